"""A release of the chart in a namespace of its own, by helm and kubectl.

BULKREG_TEST_KUBECONFIG names a cluster that the test may change: it makes a namespace there.
"""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from compose.roles import ROLES
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
CHART, VALUES = ROOT / "compose" / "kubernetes" / "bulkreg", ROOT / "compose" / "kubernetes" / "examples" / "values.yaml"
CLUSTER = "BULKREG_TEST_KUBECONFIG"
WITHIN = "240s"
# The cluster need not know the Prometheus operator's kinds.
WITHOUT_OPERATOR = ("--set", "monitoring.enabled=false")

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

    def back_to(self, revision: int, *, within_s: float) -> None:
        where = ("--namespace", self.namespace, "--wait", "--timeout", f"{within_s:.0f}s")
        run("helm", "rollback", "bulkreg", str(revision), *where)

    def uninstall(self) -> None:
        run("helm", "uninstall", "bulkreg", "--namespace", self.namespace)

    def revision(self) -> tuple[int, str]:
        """The last revision, and its state."""
        last = json.loads(run("helm", "history", "bulkreg", "--max", "1", "--namespace", self.namespace, "--output", "json"))[-1]
        return int(last["revision"]), last["status"]

    def staying(self) -> list[Mapping[str, Any]]:
        """The pods of the roles that are not being deleted."""
        return [
            pod
            for pod in self.found("pods")
            if pod["metadata"]["labels"]["app.kubernetes.io/component"] in ROLES and "deletionTimestamp" not in pod["metadata"]
        ]

    def pods(self) -> dict[str, str]:
        """The pods of the roles that are not being deleted, with the role of each."""
        return {pod["metadata"]["uid"]: pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in self.staying()}

    def are_available(self) -> bool:
        return all(
            deployment["status"].get("availableReplicas")
            == deployment["spec"]["replicas"]
            == deployment["status"].get("replicas")
            for deployment in self.found("deployments")
        )


SECRETS: Mapping[str, Mapping[str, str]] = {
    "bulkreg-owner": {"BULKREG_DATABASE_URL": "postgresql://bulkreg@database/bulkreg"},
    "bulkreg-worker": {"BULKREG_WORKER_DATABASE_URL": "postgresql://bulkreg_worker@database/bulkreg"},
    "bulkreg-api": {"BULKREG_API_DATABASE_URL": "postgresql://bulkreg_api@database/bulkreg"},
}


@contextlib.contextmanager
def empty_release(secrets: Mapping[str, Mapping[str, str]] = SECRETS) -> Iterator[Release]:
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
    for name, values in secrets.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        release.kubectl("apply", "--filename", "-", given=json.dumps(secret))
    try:
        yield release
    finally:
        run("kubectl", "delete", "namespace", namespace, "--wait=false")
