"""The chart with the real product: installation, a failed migration, an upgrade with another schema and the way back, under load.

The control plane is real, and so are the processes: the node of this test runs them (tests/production/kubelet.py). So the migration is the
chart's hook, the order of the replacements is the Deployments', and the clients go where the Service's endpoints are.
"""

import os
from collections import Counter
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import pytest
import yaml
from sqlalchemy import Engine, create_engine, text

from compose.roles import ROLES
from orchestrator.process.settings import Settings
from orchestrator.storage.migrate import newest_version
from tests.faults.roles import assert_exactly_once
from tests.production.kubelet import TAINT, Cluster, Node, following
from tests.production.release import CLUSTER, Release, empty_release, needs_cluster
from tests.support.api_server import KEY
from tests.support.clients import ITEMS, Clients
from tests.support.next_version import ROOT, NextVersion
from tests.support.pipeline import standard_directory
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(2_400)]

REPOSITORY = "registry.example.org/bulkreg"
ROLLOUT_S = 600.0
BROKEN = "ALTER TABLE orchestrator.batch ADD COLUMN of_the_broken_version text DEFAULT no_such_function()"


class Upgrades:
    """The release, with the settings of this test."""

    def __init__(self, release: Release, node: Node, settings: Settings, folder: Path) -> None:
        self.release, self.node = release, node
        self._values = folder / "values.yaml"
        twice = ("api", "registration")
        self._values.write_text(
            yaml.safe_dump(
                {
                    "image": {"repository": REPOSITORY},
                    "settings": {
                        "BULKREG_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
                        "BULKREG_TOPIC_PREFIX": settings.topic_prefix,
                        "BULKREG_TOPIC_PARTITIONS": str(settings.topic_partitions),
                        "BULKREG_TOPIC_REPLICATION_FACTOR": "1",
                        "BULKREG_JWT_JWKS_URL": "",
                        "BULKREG_LOG_LEVEL": "WARNING",
                    },
                    "roles": {role: {"replicas": 2 if role in twice else 1} for role in ROLES},
                    "nodeSelector": {"kubernetes.io/hostname": node.name},
                    "tolerations": [{"key": TAINT, "operator": "Exists"}],
                }
            )
        )

    def to(self, version: str, *, command: str = "upgrade", code: int = 0) -> str:
        values = ("--values", str(self._values), "--set", f"image.tag={version}", "--timeout", f"{ROLLOUT_S:.0f}s")
        said = self.release.helm(command, *values, code=code)
        assert not self.node.raised, self.node.raised
        return said

    def versions(self) -> Counter[str]:
        """How many pods of the roles have each image."""
        return Counter(pod["spec"]["containers"][0]["image"].rpartition(":")[2] for pod in self.release.staying())

    def restarts(self) -> int:
        return sum(
            status["restartCount"] for pod in self.release.found("pods") for status in pod["status"].get("containerStatuses", ())
        )


def schema_version(settings: Settings) -> str:
    owner = create_engine(settings.owner_url)
    try:
        with owner.connect() as connection:
            return str(connection.scalar(text("SELECT version_num FROM public.schema_version")))
    finally:
        owner.dispose()


@needs_cluster
def test_upgrade_under_load_with_a_changed_schema(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    standard_directory(engine)
    folders = {name: tmp_path / name for name in ("next", "broken")}
    for folder in folders.values():
        folder.mkdir()
    NextVersion(folders["next"])
    NextVersion(folders["broken"]).add_migration("broken", BROKEN)
    images = {f"{REPOSITORY}:{tag}": folder for tag, folder in {"present": ROOT, **folders}.items()}

    def url(name: str) -> str:
        return str(getattr(settings, f"{name}_url").set(drivername="postgresql").render_as_string(hide_password=False))

    secrets = {
        "bulkreg-owner": {"BULKREG_DATABASE_URL": url("owner")},
        "bulkreg-worker": {"BULKREG_WORKER_DATABASE_URL": url("worker")},
        "bulkreg-api": {"BULKREG_API_DATABASE_URL": url("api"), "BULKREG_JWT_HS256_KEY": KEY},
    }
    logs = tmp_path / "logs"
    logs.mkdir()
    with (
        Cluster(Path(os.environ[CLUSTER])) as cluster,
        Node(cluster, f"bulkreg-test-{uuid4().hex[:8]}", images, logs) as node,
        empty_release(secrets) as release,
    ):
        upgrades = Upgrades(release, node, settings, tmp_path)
        upgrades.to("present", command="install")
        present = release.pods()
        clients = Clients(settings, cluster.endpoints(release.namespace, "bulkreg-api", 8080))
        with following(cluster, release.namespace, "bulkreg-api", 8080, clients.urls), clients.at_work(3, pause_s=0.05):
            clients.go_on()
            assert "pre-upgrade hooks failed" in upgrades.to("broken", code=1)
            assert release.revision() == (2, "failed")
            assert release.pods() == present, "the pods of before go on"
            assert schema_version(settings) == newest_version(), "a migration that fails changes nothing"
            clients.go_on()

            upgrades.to("next")
            assert release.revision() == (3, "deployed")
            assert schema_version(settings) == "expand"
            eventually(lambda: set(upgrades.versions()) == {"next"}, within_s=ROLLOUT_S)
            clients.go_on()

            # The way back runs no migration, because the version before works with the new schema.
            release.back_to(1, within_s=ROLLOUT_S)
            eventually(lambda: set(upgrades.versions()) == {"present"}, within_s=ROLLOUT_S)
            clients.go_on()
        times_s = sorted(clients.times_s)
        print(
            f"{len(times_s)} batches: p50 {quantiles(times_s, n=100)[49]:.3f} s, p99 {quantiles(times_s, n=100)[98]:.3f} s,"
            f" longest {times_s[-1]:.3f} s; repeated requests: {dict(clients.trouble)}"
        )
        assert not clients.trouble, "a client noticed an upgrade"
        assert upgrades.restarts() == 0
        assert set(node.ended.values()) == {0}, "a role did not end in time"
        assert_exactly_once(engine, settings, activities=ITEMS * len(clients.accepted))
        release.kubectl("create", "job", "now", "--from=cronjob/bulkreg-verify")
        release.kubectl("wait", "job/now", "--for=condition=complete", f"--timeout={ROLLOUT_S:.0f}s")
        run_no_more(release, node)
    with engine.connect() as connection:
        written_by = set(connection.scalars(text("SELECT DISTINCT of_the_next_version FROM orchestrator.outcome")))
    assert written_by == {None, "next"}, "both versions must have decided items"


def run_no_more(release: Release, node: Node) -> None:
    release.uninstall()

    def are_over() -> bool:
        # helm keeps the Job of a hook that has failed, so that its log can be read.
        return {pod["status"]["phase"] for pod in release.found("pods")} <= {"Failed"}

    eventually(are_over, within_s=ROLLOUT_S, what="the end of all pods")
    assert not node.raised, node.raised
