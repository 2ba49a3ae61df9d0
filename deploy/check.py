#!/usr/bin/env python3
"""Looks through the files of deployment: `python3 deploy/check.py`.

They parse, and what has to agree does: time to drain against time to be killed, who the server runs as, where its state
is, which probes there are; and what guides for CI have users copy. systemd looks at its unit where it is installed, and the
schemas of Kubernetes at their file (`pip install kubernetes-validate`). Needs PyYAML. The image is built and run by the tests
in tests/tests/container.
"""

import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent
ROOT = DEPLOY.parent
# What the server takes beside KILN_DRAIN until it is gone, seconds.
GRACE = 30
USER = "65532"
PORT = 5456
KNOWN = ["--listen", f"0.0.0.0:{PORT}"]
# Nobody has to be known there: without that, a server that other machines reach does not start.
ANYBODY = [*KNOWN, "--allow-anyone"]
# Asks where a server listens by default; it needs no token.
HEALTH = ["kiln-server", "health"]
faults = []


def expect(holds, what):
    if not holds:
        faults.append(what)


def text(name):
    return (DEPLOY / name).read_text()


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def dockerfile():
    lines = text("Dockerfile")
    final = lines[lines.rindex("\nFROM "):]
    for line in ("FROM scratch", f"USER {USER}:{USER}", "VOLUME /var/lib/kiln", f"EXPOSE {PORT}", "STOPSIGNAL SIGTERM"):
        expect(f"\n{line}\n" in final, f"Dockerfile: {line}")
    expect(f"CMD {json.dumps(HEALTH)}" in final, "Dockerfile: a check of health")


def compose():
    (whole,) = documents(DEPLOY / "compose.yaml")
    server, store = whole["services"]["server"], whole["services"]["store"]
    drain = server["environment"]["KILN_DRAIN"]
    expect(server["stop_grace_period"] == f"{drain + GRACE}s", "compose.yaml: stop_grace_period is KILN_DRAIN and 30 s")
    expect(server["read_only"] and server["cap_drop"] == ["ALL"], "compose.yaml: hardened")
    expect(server["ports"] == [f"${{KILN_LISTEN:-127.0.0.1}}:{PORT}:{PORT}"], "compose.yaml: this machine only by default")
    expect("kiln:/var/lib/kiln" in server["volumes"], "compose.yaml: state in a volume")
    expect(server["healthcheck"]["test"] == ["CMD", *HEALTH], "compose.yaml: a check of health")
    expect(server["command"] == ANYBODY, "compose.yaml: it says that anybody is let in")
    expect(set(whole["volumes"]) == {"kiln", "store"} and "healthcheck" in store, "compose.yaml: the store")
    (over,) = documents(DEPLOY / "compose.jobs.yaml")
    over = over["services"]["server"]
    rules = over["environment"]["KILN_TRUST"]
    expect(over["command"] == KNOWN, "compose.jobs.yaml: nobody is let in who is not known")
    (mount,) = over["volumes"]
    expect(mount["read_only"] and mount["source"].startswith("${KILN_RULES:?"), "compose.jobs.yaml: rules that are only read")
    # A file by itself would stay the old one when it is replaced; what is missing would be made, as a directory.
    expect(f"{mount['target']}/trust.json" == rules, "compose.jobs.yaml: the directory of the rules")
    expect(mount["bind"] == {"create_host_path": False}, "compose.jobs.yaml: rules have to be there")
    command = re.search(r"`KILN_RULES=(\S+) … docker compose", (ROOT / "docs/operations.md").read_text())[1]
    expect(command.startswith("/"), "docs/operations.md: compose takes a relative path from deploy/")
    endpoint, port = server["environment"]["AWS_ENDPOINT_URL_S3"], store["environment"]["VGW_PORT"]
    expect(endpoint == f"http://store{port}", "compose.yaml: the server asks where the store listens")


def kubernetes():
    kinds = {one["kind"]: one for one in documents(DEPLOY / "kubernetes.yaml")}
    wanted = {"ConfigMap", "Secret", "ServiceAccount", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"}
    expect(set(kinds) == wanted, f"kubernetes.yaml: {wanted}")
    for kind, one in kinds.items():
        labels = one["metadata"]["labels"]
        expect(labels == {"app.kubernetes.io/name": "kiln"}, f"kubernetes.yaml: labels of {kind}")
    expect(all(isinstance(value, str) for value in kinds["ConfigMap"]["data"].values()), "kubernetes.yaml: settings are text")
    spec = kinds["StatefulSet"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    drain = int(kinds["ConfigMap"]["data"]["KILN_DRAIN"])
    expect(spec["replicas"] == 2 and spec["serviceName"] == kinds["Service"]["metadata"]["name"], "kubernetes.yaml: replicas")
    expect(pod["terminationGracePeriodSeconds"] == drain + GRACE, "kubernetes.yaml: the grace period is KILN_DRAIN and 30 s")
    expect(pod["securityContext"]["runAsUser"] == int(USER) and pod["securityContext"]["runAsNonRoot"], "kubernetes.yaml: user")
    # A service of this name would set KILN_PORT and the like.
    expect(pod["enableServiceLinks"] is False, "kubernetes.yaml: no variables of services")
    hard = container["securityContext"]
    expect(hard["readOnlyRootFilesystem"] and hard["allowPrivilegeEscalation"] is False, "kubernetes.yaml: hardened")
    expect(hard["capabilities"] == {"drop": ["ALL"]} and "limits" in container["resources"], "kubernetes.yaml: bounds")
    expect(container["args"] == ANYBODY, "kubernetes.yaml: it says that anybody is let in")
    for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        expect(container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "http"}, f"kubernetes.yaml: {probe}")
    schemas()
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    expect(mounts == {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}, "kubernetes.yaml: volumes")


def schemas():
    """Kubernetes' own word on its file, where it can be asked."""
    if not importlib.util.find_spec("kubernetes_validate"):
        print("NOTE: kubernetes-validate is not installed: no schema looks at kubernetes.yaml")
        return
    import kubernetes_validate

    for one in documents(DEPLOY / "kubernetes.yaml"):
        try:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            faults.append(f"kubernetes.yaml: {one['kind']}: {error.message}")


def unit():
    lines = text("kiln.service")
    drain = int(re.search(r"KILN_DRAIN=(\d+)", lines)[1])
    expect(f"TimeoutStopSec={drain + GRACE}\n" in lines, "kiln.service: TimeoutStopSec is KILN_DRAIN and 30 s")
    for line in ("DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet="):
        expect(f"\n{line}\n" in lines, f"kiln.service: {line}")
    if not shutil.which("systemd-analyze"):
        print("NOTE: systemd is not installed: it does not look at kiln.service")
        return
    with tempfile.TemporaryDirectory() as scratch:
        # The program need not be installed here.
        copy = pathlib.Path(scratch, "kiln.service")
        copy.write_text(lines.replace("/usr/local/bin/kiln-server", "/bin/true"))
        said = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
        expect(said.returncode == 0 and "kiln.service" not in said.stderr, f"kiln.service: {said.stderr}")


def action():
    (whole,) = documents(DEPLOY / "action/action.yml")
    for name, given in whole["inputs"].items():
        expect("description" in given and isinstance(given["default"], str), f"action.yml: {name}")
    for script in (whole["runs"]["main"], whole["runs"]["post"]):
        expect((DEPLOY / "action" / script).is_file(), f"action.yml: {script}")
    guide = (ROOT / "docs/github.md").read_text()
    told = {name for row in re.findall(r"^\| (`.*?`) \|", guide, re.M) for name in re.findall(r"`([a-z0-9-]+)`", row)}
    unset = {"matrix", "job-index", "job-total"}
    expect(told == set(whole["inputs"]) - unset, f"docs/github.md: inputs {told ^ (set(whole['inputs']) - unset)}")


def guides():
    known = set(re.findall(r"^\| `(KILN_[A-Z_]+)`", (ROOT / "docs/settings.md").read_text(), re.M))
    for name in ("buildkite", "ci", "cibuildwheel", "docker-builds", "forgejo", "github", "gitlab"):
        whole = (ROOT / f"docs/{name}.md").read_text()
        for block in re.findall(r"^```yaml\n(.*?)^```$", whole, re.M | re.S):
            expect(list(yaml.safe_load_all(block)), f"docs/{name}.md: YAML with something in it")
        unknown = set(re.findall(r"\bKILN_[A-Z_]+\b", whole)) - known
        expect(not unknown, f"docs/{name}.md: settings that there are, and not {unknown}")
    # Where a pipeline is uploaded, a single dollar is replaced: what a command has of it is gone when it runs.
    pipeline = (ROOT / "docs/buildkite.md").read_text()
    commands = re.findall(r"^ *command: (?:\|\n(?:(?: {8}.*)?\n)+|.*$)", pipeline, re.M)
    expect(len(commands) == 3, f"docs/buildkite.md: commands {commands}")
    for command in commands:
        expect(not re.search(r"(?<!\$)\$(?!\$)", command), f"docs/buildkite.md: {command.strip()}")


def workflows():
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        (whole,) = documents(path)
        for name, job in whole["jobs"].items():
            expect("timeout-minutes" in job and "permissions" in whole, f"{path.name}: bounds of {name}")


def main():
    checks = (dockerfile, compose, kubernetes, unit, action, guides, workflows)
    for check in checks:
        try:
            check()
        except (KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
            faults.append(f"{check.__name__}: {type(error).__name__}: {error}")
    for fault in faults:
        print(f"WRONG: {fault}")
    print(f"deploy: {len(checks)} kinds of files looked through, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
