"""The chart on a real control plane: installation with its hook, upgrade, a failed migration, drain, and the restricted standard.

BULKREG_TEST_KUBECONFIG names a cluster that the test may change: it makes a namespace there, and cordons the nodes for a moment. Pods need not
run anything (kwok pretends them), so this is about manifests, admission, hooks, rollouts and budgets.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from compose.roles import ROLES
from tests.production.release import CHART, ROOT, VALUES, WITHIN, Release, empty_release, needs_cluster, run
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_200)]


@pytest.fixture
def release() -> Iterator[Release]:
    with empty_release() as release:
        yield release


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
    # During the upgrade before, a role had three pods, and its budget let two go.
    eventually(lambda: {budget["status"]["disruptionsAllowed"] for budget in release.found("poddisruptionbudgets")} == {1})
    names: dict[str, list[str]] = {role: [] for role in ROLES}
    for pod in release.staying():
        names[pod["metadata"]["labels"]["app.kubernetes.io/component"]].append(pod["metadata"]["name"])
    for role in ROLES:
        answers = [_evicted(release, name) for name in names[role]]
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
