"""The chart on a real control plane: installation with its hook, upgrade, a failed migration, drain, and the restricted standard.

BULKREG_TEST_KUBECONFIG names a cluster that the test may change: it makes a namespace there, and cordons the nodes for a moment. Pods need not
run anything (kwok pretends them), so this is about manifests, admission, hooks, rollouts and budgets.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from compose.roles import ROLES
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
CHART, VALUES = ROOT / "compose" / "kubernetes" / "bulkreg", ROOT / "compose" / "kubernetes" / "examples" / "values.yaml"
CLUSTER = "BULKREG_TEST_KUBECONFIG"
WITHIN = "240s"
# The cluster need not know the Prometheus operator's kinds.
WITHOUT_OPERATOR = ("--set", "monitoring.enabled=false")

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_200)]

needs_cluster = pytest.mark.skipif(
    not os.environ.get(CLUSTER) or not shutil.which("helm") or not shutil.which("kubectl"),
    reason=f"{CLUSTER} does not name a cluster, or helm or kubectl is missing",
)


def run(program: str, *arguments: str, code: int | None = 0, given: str | None = None) -> str:
    """Runs a program on the cluster. Returns what it writes. Fails on another exit code than the expected one (None: any)."""
    environment = os.environ | {"KUBECONFIG": os.environ[CLUSTER]}
    done = subprocess.run([program, *arguments], env=environment, input=given, capture_output=True, text=True, check=False)
    assert code in (None, done.returncode), f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr if done.returncode else done.stdout


class Release:
    """The release of this test, in a namespace of its own."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    def kubectl(self, *arguments: str, code: int | None = 0, given: str | None = None) -> str:
        return run("kubectl", "--namespace", self.namespace, *arguments, code=code, given=given)

    def found(self, kind: str) -> Sequence[Mapping[str, Any]]:
        items: Sequence[Mapping[str, Any]] = json.loads(self.kubectl("get", kind, "--output", "json"))["items"]
        return items

    def helm(self, command: str, *arguments: str, code: int | None = 0) -> str:
        values = ("--namespace", self.namespace, "--values", str(VALUES), *WITHOUT_OPERATOR, "--wait", "--timeout", WITHIN)
        return run("helm", command, "bulkreg", str(CHART), *values, *arguments, code=code)

    def revision(self) -> tuple[int, str]:
        """The last revision, and its state."""
        [release] = json.loads(run("helm", "list", "--all", "--namespace", self.namespace, "--output", "json"))
        return int(release["revision"]), release["status"]

    def pods(self) -> dict[str, str]:
        """The running pods of the roles, with the role of each."""
        return {
            pod["metadata"]["uid"]: pod["metadata"]["labels"]["app.kubernetes.io/component"]
            for pod in self.found("pods")
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ROLES and "deletionTimestamp" not in pod["metadata"]
        }

    def are_available(self) -> bool:
        return all(
            deployment["status"].get("availableReplicas")
            == deployment["spec"]["replicas"]
            == deployment["status"].get("replicas")
            for deployment in self.found("deployments")
        )


@pytest.fixture
def release() -> Iterator[Release]:
    """An empty namespace that admits restricted pods only, with the Secrets that the chart needs."""
    namespace = f"bulkreg-test-{uuid4().hex[:8]}"
    made = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    run("kubectl", "apply", "--filename", "-", given=json.dumps(made))
    release = Release(namespace)
    eventually(lambda: release.found("serviceaccounts"))
    for name, setting in (("owner", "DATABASE_URL"), ("worker", "WORKER_DATABASE_URL"), ("api", "API_DATABASE_URL")):
        url = f"--from-literal=BULKREG_{setting}=postgresql://bulkreg@database/bulkreg"
        release.kubectl("create", "secret", "generic", f"bulkreg-{name}", url)
    try:
        yield release
    finally:
        run("kubectl", "delete", "namespace", namespace, "--wait=false")


@needs_cluster
def test_installation_upgrade_failed_migration_and_drain(release: Release) -> None:
    refused = release.kubectl("run", "root", "--image", "debian:12", code=1)
    assert 'violates PodSecurity "restricted' in refused

    release.helm("install")
    assert release.revision() == (1, "deployed")
    first = release.pods()
    assert {role: list(first.values()).count(role) for role in ROLES} == dict.fromkeys(ROLES, 2)
    assert [event for event in release.found("events") if "migration-1" in event["involvedObject"]["name"]], "no hook ran"

    release.helm("upgrade", "--set", "settings.BULKREG_LOG_LEVEL=DEBUG")
    assert release.revision() == (2, "deployed")
    eventually(lambda: release.are_available() and len(release.pods()) == len(first))
    second = release.pods()
    assert not first.keys() & second.keys(), "every pod is new"

    # A migration that does not end: no node has so many processors.
    never = ("--set", "migration.activeDeadlineSeconds=60", "--set-string", "migration.resources.requests.cpu=1000")
    failed = release.helm("upgrade", *never, "--set", "settings.BULKREG_LOG_LEVEL=INFO", code=1)
    assert "pre-upgrade hooks failed" in failed
    assert release.revision() == (3, "failed")
    assert release.pods() == second, "the pods of before go on"
    release.helm("upgrade", "--set", "settings.BULKREG_LOG_LEVEL=INFO")
    assert release.revision() == (4, "deployed")

    nodes = [node["metadata"]["name"] for node in release.found("nodes")]
    run("kubectl", "cordon", *nodes)
    try:
        _evict_one_of_each(release)
    finally:
        run("kubectl", "uncordon", *nodes)
    eventually(release.are_available, within_s=2 * PATIENCE_S)
    run("kubectl", "drain", nodes[0], "--ignore-daemonsets", "--delete-emptydir-data", "--force", f"--timeout={WITHIN}")
    try:
        eventually(release.are_available, within_s=2 * PATIENCE_S)
        assert nodes[0] not in {
            pod["spec"].get("nodeName") for pod in release.found("pods") if pod["status"]["phase"] == "Running"
        }
    finally:
        run("kubectl", "uncordon", nodes[0])


def _evict_one_of_each(release: Release) -> None:
    """While no node takes new pods, the budget of each role lets one go, and keeps the other."""
    for role in ROLES:
        names = release.kubectl("get", "pods", "--selector", f"app.kubernetes.io/component={role}", "--output", "name").split()
        answers = [_evicted(release, name.removeprefix("pod/")) for name in names[:2]]
        assert answers[0] == "", role
        assert "would violate the pod's disruption budget" in answers[1], role


def _evicted(release: Release, pod: str) -> str:
    """Returns the refusal, or nothing."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": release.namespace}}
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    said = release.kubectl("create", "--raw", path, "--filename", "-", given=json.dumps(eviction), code=None)
    return "" if '"status":"Success"' in said.replace(" ", "") else said


@pytest.mark.skipif(not shutil.which("kube-score") or not shutil.which("helm"), reason="kube-score or helm is not installed")
def test_every_warning_of_kube_score_is_explained() -> None:
    rendered = subprocess.run(
        ["helm", "template", "bulkreg", CHART, "--kube-version", "1.34.0", "--values", VALUES],
        capture_output=True,
        text=True,
        check=True,
    )
    known = "\n---\n".join(
        yaml.safe_dump(manifest)
        for manifest in yaml.safe_load_all(rendered.stdout)
        if manifest and "monitoring.coreos.com" not in manifest["apiVersion"]
    )
    scored = subprocess.run(
        ["kube-score", "score", "--output-format", "json", "-"], input=known, capture_output=True, text=True, check=False
    )
    ok = 10
    found = {
        check["check"]["id"]
        for manifest in json.loads(scored.stdout)
        for check in manifest["checks"] or ()
        if not check["skipped"] and check["grade"] < ok
    }
    page = (ROOT / "docs" / "operations.md").read_text()
    [table] = re.findall(r"^\| warning of kube-score \|.*\n\|.*\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert set(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == found
