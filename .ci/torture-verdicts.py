#!/usr/bin/env python3
"""Judges the verdicts of the torture suite: `torture-verdicts.py VERDICTS.json`.

Every case has to pass, but for those named here with the reason. A named case that no longer has
the named verdict fails the check too, so that the list stays true.
"""

import json
import sys
from collections import Counter
from pathlib import Path

# Case -> (verdict, why). docs and README name these limits to users.
EXPECTED = {
    "output/debuginfo-in-two-checkouts": (
        "ALTERED",
        "roots are remapped so that other checkouts hit; see docs/portable-results.md",
    ),
}

# What says nothing about Kiln: the machine cannot run the case. Printed, not judged.
NOT_RUN = "SKIP"


def judge(results):
    """Lines that say what is wrong."""
    wrong = []
    for result in results:
        case, verdict = result["id"], result["verdict"]
        expected, why = EXPECTED.get(case, ("PASS", ""))
        detail = " ".join(result["detail"].split())[:400]
        if verdict in (expected, NOT_RUN):
            continue
        if case in EXPECTED:
            wrong.append(
                f"{case}: {verdict}, expected {expected} ({why}); when that is mended, take it off "
                f"the list in .ci/torture-verdicts.py. {detail}"
            )
        else:
            wrong.append(f"{case}: {verdict}. {detail}")
    gone = EXPECTED.keys() - {result["id"] for result in results}
    wrong += [f"{case}: named in .ci/torture-verdicts.py, but there is no such case" for case in sorted(gone)]
    if not results:
        wrong.append("no case ran")
    return wrong


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = json.loads(Path(sys.argv[1]).read_text())["results"]
    for result in results:
        if result["verdict"] == NOT_RUN:
            print(f"not run on this machine: {result['id']}: {result['detail']}")
    wrong = judge(results)
    for line in wrong:
        print(f"WRONG  {line}")
    counts = ", ".join(f"{n} {verdict}" for verdict, n in Counter(r["verdict"] for r in results).most_common())
    print(f"torture suite: {len(results)} cases, {counts}; {len(wrong)} not as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
