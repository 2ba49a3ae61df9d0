#!/usr/bin/env python3
"""Runs what the guides of CI services say: `python3 deploy/guides.py KILN`, with a built program.

The pipelines of GitLab and Buildkite run as their services run them, step by step in a shell with the variables of a job,
twice: the second time everything has to come from the bucket, and the report has to name each job. What only an action
can run, and what cibuildwheel reads, is looked through. Needs moto with its server, PyYAML, cargo.
"""

import logging
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request

import yaml
from moto.server import ThreadedMotoServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Longest that a step of a pipeline takes, seconds.
STEP_LIMIT = 300
MANIFEST = '[package]\nname = "guided"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n'
SOURCE = "pub fn n() -> u8 { 7 }\n#[test]\nfn seven() { assert_eq!(n(), 7); }\n"
# There is one toolchain here, and no rustup that would choose.
CARGO = '#!/bin/sh\ncase $1 in +*) shift ;; esac\nexec {cargo} "$@"\n'
AGENT = '#!/bin/sh\n[ "$1" = annotate ] && cat >"$ANNOTATION"\n'


def guide(name):
    return (ROOT / "docs" / name).read_text()


def yaml_of(name):
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", guide(name), re.M | re.S)]


def expect(holds, what):
    if not holds:
        raise AssertionError(what)


class Place:
    """Machines of jobs: each has a checkout, a state directory and a home of its own."""

    def __init__(self, scratch, kiln, endpoint):
        self.scratch, self.machines = scratch, 0
        self.bin = scratch / "bin"
        self.bin.mkdir()
        shutil.copy(kiln, self.bin / "kiln")
        self.shim("cargo", CARGO.format(cargo=shutil.which("cargo")))
        self.shim("buildkite-agent", AGENT)
        passed = ("HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN")
        self.base = {name: os.environ[name] for name in passed if name in os.environ}
        self.base |= {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }

    def shim(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def job(self, *variables):
        return Job(self, variables)


class Job:
    """A job on a new machine."""

    def __init__(self, place, variables):
        place.machines += 1
        self.dir = place.scratch / str(place.machines)
        checkout = self.dir / "checkout"
        (checkout / "src").mkdir(parents=True)
        (checkout / "Cargo.toml").write_text(MANIFEST)
        (checkout / "src/lib.rs").write_text(SOURCE)
        self.env = dict(place.base)
        for some in variables:
            self.env |= {name: str(value) for name, value in some.items()}
        # Wherever the guide puts it: jobs are on machines of their own.
        self.env["KILN_DIR"] = str(self.dir / "kiln")
        self.checkout = checkout

    def run(self, commands):
        """Runs the commands of a step in one shell, and fails as they do; what they print."""
        lines = [commands] if isinstance(commands, str) else commands
        command = ["bash", "-eo", "pipefail", "-c", "\n".join(lines)]
        done = subprocess.run(
            command, env=self.env, cwd=self.checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=STEP_LIMIT, check=False,
        )
        expect(done.returncode == 0, f"{lines} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout


def gitlab(place):
    (pipeline,) = yaml_of("gitlab.md")
    test, report = pipeline["test"], pipeline["report"]
    (axis,) = test["parallel"]["matrix"]
    ((name, values),) = axis.items()
    for number in (1, 2):
        of_pipeline = {"GITLAB_CI": "true", "CI": "true", "CI_PIPELINE_ID": number, "CI_PROJECT_PATH": "acme/app"}
        for value in values:
            job = place.job(pipeline["variables"], of_pipeline, {"CI_JOB_NAME": f"test: [{value}]", name: value})
            job.run(test["script"])
            job.run(test["after_script"])
        job = place.job(pipeline["variables"], of_pipeline, {"CI_JOB_NAME": "report"})
        said = job.run(report["script"])
        for value in values:
            expect(f"test: [{value}]" in said, f"gitlab: the report does not name the job of {value}:\n{said}")
        for artifact in report["artifacts"]["paths"]:
            expect((job.checkout / artifact).stat().st_size > 0, f"gitlab: {artifact}")
        expect(number == 1 or "100.0 % of units" in said, f"gitlab: not everything hit:\n{said}")


def buildkite(place):
    (pipeline,) = yaml_of("buildkite.md")
    test, wait, report = pipeline["steps"]
    expect(wait["continue_on_failure"], "buildkite: the report is made after failures, too")
    hook = re.search(r"`pre-exit`.*\n\n((?:    .*\n)+)", guide("buildkite.md"))[1]
    for number in (1, 2):
        of_build = {"BUILDKITE": "true", "BUILDKITE_BUILD_ID": f"b{number}", "BUILDKITE_PIPELINE_SLUG": "app"}
        for value in test["matrix"]:
            label, command = (test[part].replace("{{matrix}}", value) for part in ("label", "command"))
            job = place.job(pipeline["env"], of_build, {"BUILDKITE_LABEL": label, "BUILDKITE_STEP_KEY": test["key"]})
            job.run(command)
            job.run(hook)
        annotation = place.scratch / f"annotation-{number}"
        place.job(pipeline["env"], of_build, {"BUILDKITE_LABEL": "report", "ANNOTATION": annotation}).run(report["command"])
        said = annotation.read_text()
        for value in test["matrix"]:
            expect(test["label"].replace("{{matrix}}", value) in said, f"buildkite: {value} is not in the report:\n{said}")
        expect(number == 1 or "100.0 % of units" in said, f"buildkite: not everything hit:\n{said}")


def uses(thing):
    """All steps in a workflow or a part of one that use an action."""
    if isinstance(thing, dict):
        if "uses" in thing:
            yield thing
        thing = list(thing.values())
    if isinstance(thing, list):
        for part in thing:
            yield from uses(part)


def steps_of_actions(_):
    inputs = set(yaml.safe_load((ROOT / "deploy/action/action.yml").read_text())["inputs"])
    for name in ("github.md", "forgejo.md"):
        ours = [step for step in uses(yaml_of(name)) if "deploy/action@" in step["uses"]]
        expect(ours, f"{name}: no step uses the action")
        for step in ours:
            unknown = set(step.get("with", {})) - inputs
            expect(not unknown, f"{name}: the action knows no {unknown}")


def cibuildwheel(place):
    settings = set(re.findall(r"^\| `([A-Z_]+)` \|", guide("settings.md"), re.M)) | {"RUSTC_WRAPPER", "CARGO_INCREMENTAL"}
    blocks = yaml_of("cibuildwheel.md")
    expect(len(blocks) == 2, "cibuildwheel: a directory, and a server")
    for block in blocks:
        words = shlex.split(block["env"]["CIBW_ENVIRONMENT_LINUX"])
        words.remove("PATH=$HOME/.cargo/bin:$PATH")
        names = {word.split("=")[0] for word in words}
        expect(names <= settings, f"cibuildwheel: {names - settings} is no setting")
        # Its commands run in a shell; a wheel is repaired by another program.
        job = place.job(dict(word.split("=", 1) for word in words if "=/host" not in word and "http:" not in word))
        job.run("cargo build --quiet")
        job.run(block["env"]["CIBW_REPAIR_WHEEL_COMMAND_LINUX"].split(" && ", 1)[1])


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    endpoint = "http://%s:%d" % server.get_host_and_port()
    try:
        checks = (gitlab, buildkite, steps_of_actions, cibuildwheel)
        for check in checks:
            bucket = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()
            urllib.request.urlopen(bucket).close()
            with tempfile.TemporaryDirectory(prefix="kiln-guide.") as scratch:
                check(Place(pathlib.Path(scratch), sys.argv[1], endpoint))
            print(f"{check.__name__}: as the guide says")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
