"""The chart and its examples: what each pod may do and which secrets it gets, and that names agree with the product's."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.roles import ROLES
from orchestrator.process.settings import Settings
from schemas.envelope import Topic

ROOT = Path(__file__).parents[2]
CHART = ROOT / "compose" / "kubernetes" / "bulkreg"
EXAMPLES = ROOT / "compose" / "kubernetes" / "examples"

# Without a cluster helm assumes a very old one.
KUBERNETES = ("--kube-version", "1.34.0")

Manifest = Mapping[str, Any]

needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed, so the chart is not rendered")


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def manifests() -> Sequence[Manifest]:
    """What the chart gives with the example's values."""
    ran = helm(
        "template", "bulkreg", str(CHART), *KUBERNETES, "--namespace", "bulkreg", "--values", str(EXAMPLES / "values.yaml")
    )
    assert ran.returncode == 0, ran.stderr
    return [manifest for manifest in yaml.safe_load_all(ran.stdout) if manifest is not None]


def pods(manifests: Sequence[Manifest]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What each pod contains, with the name of what creates it."""
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield manifest["metadata"]["name"], spec["template"]["spec"]


@needs_helm
def test_the_chart_has_no_mistake_that_helm_finds() -> None:
    ran = helm("lint", "--strict", str(CHART), "--values", str(EXAMPLES / "values.yaml"))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_helm
def test_every_role_has_a_deployment_and_a_disruption_budget(manifests: Sequence[Manifest]) -> None:
    for kind in ("Deployment", "PodDisruptionBudget"):
        names = {manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == kind}
        assert names == {f"bulkreg-{role}" for role in ROLES}


@needs_helm
def test_only_the_migration_has_the_owners_rights(manifests: Sequence[Manifest]) -> None:
    holders: dict[str, set[str]] = {}
    for name, pod in pods(manifests):
        for source in pod["containers"][0]["envFrom"]:
            holders.setdefault(source["secretRef"]["name"], set()).add(name)
    assert holders == {
        "bulkreg-owner": {"bulkreg-migration-1"},
        "bulkreg-api": {"bulkreg-api"},
        "bulkreg-worker": {f"bulkreg-{role}" for role in ROLES if role != "api"} | {"bulkreg-verify"},
    }


@needs_helm
def test_the_migration_knows_the_passwords_that_it_sets(manifests: Sequence[Manifest]) -> None:
    """Without them it would set derived ones, and every other pod would be refused."""
    known = {
        name: [variable for variable in pod["containers"][0]["env"] if "valueFrom" in variable] for name, pod in pods(manifests)
    }
    assert known.pop("bulkreg-migration-1") == [
        {"name": setting, "valueFrom": {"secretKeyRef": {"name": secret, "key": setting, "optional": True}}}
        for setting, secret in (
            ("BULKREG_API_DATABASE_URL", "bulkreg-api"),
            ("BULKREG_WORKER_DATABASE_URL", "bulkreg-worker"),
        )
    ]
    assert not any(known.values())


@needs_helm
def test_the_migration_does_what_compose_does_first(manifests: Sequence[Manifest]) -> None:
    """tests/unit/test_compose_files.py runs it."""
    [container] = next(pod["containers"] for name, pod in pods(manifests) if name == "bulkreg-migration-1")
    setup = yaml.safe_load((ROOT / "compose" / "docker" / "compose.yaml").read_text())["services"]["setup"]
    assert container["command"] == [word.replace("$$", "$") for word in setup["entrypoint"]]


@needs_helm
def test_every_pod_meets_the_restricted_standard(manifests: Sequence[Manifest]) -> None:
    found = list(pods(manifests))
    assert len(found) == len(ROLES) + 2
    for _, pod in found:
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert pod["automountServiceAccountToken"] is False
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


@needs_helm
def test_each_role_is_ready_by_its_own_readyz(manifests: Sequence[Manifest]) -> None:
    for name, pod in pods(manifests):
        container = pod["containers"][0]
        if container.get("args", [""])[0] != "run":
            continue
        port = str(container["ports"][0]["containerPort"])
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        served = environment.get("BULKREG_HEALTH_PORT", str(Settings().api_port))
        assert (container["readinessProbe"]["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]) == (
            "/readyz",
            "/healthz",
        )
        assert served == port, name


@needs_helm
def test_the_settings_of_the_pods_are_the_products(manifests: Sequence[Manifest]) -> None:
    known = {f"BULKREG_{name.upper()}" for name in Settings.model_fields}
    for _, pod in pods(manifests):
        assert {variable["name"] for variable in pod["containers"][0]["env"]} <= known


@needs_helm
def test_every_pod_goes_where_the_values_say(tmp_path: Path) -> None:
    """Also the migration: where each node has a taint, it would wait for ever, and the installation with it."""
    where = {"nodeSelector": {"pool": "bulkreg"}, "tolerations": [{"key": "pool", "operator": "Exists"}]}
    (tmp_path / "where.yaml").write_text(yaml.safe_dump(where))
    values = ("--values", str(EXAMPLES / "values.yaml"), "--values", str(tmp_path / "where.yaml"))
    rendered = yaml.safe_load_all(helm("template", "bulkreg", str(CHART), *KUBERNETES, *values).stdout)
    found = list(pods([manifest for manifest in rendered if manifest is not None]))
    assert len(found) == len(ROLES) + 2
    for name, pod in found:
        assert {key: pod.get(key) for key in where} == where, name


def test_no_secret_is_a_plain_value_of_the_chart() -> None:
    secrets = {f"BULKREG_{name.upper()}" for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert secrets == set(schema["properties"]["settings"]["propertyNames"]["not"]["enum"])


@needs_helm
def test_a_migration_has_a_new_name_with_each_revision() -> None:
    """A Job can't be changed: with one name, the second upgrade would fail."""
    arguments = ("template", "bulkreg", str(CHART), *KUBERNETES, "--values", str(EXAMPLES / "values.yaml"))
    jobs = []
    for upgrade in ((), ("--is-upgrade",)):
        ran = helm(*arguments, *upgrade)
        jobs += [each for each in yaml.safe_load_all(ran.stdout) if each and each["kind"] == "Job"]
    assert {job["metadata"]["annotations"]["helm.sh/hook"] for job in jobs} == {"pre-install,pre-upgrade"}
    template = (CHART / "templates" / "jobs.yaml").read_text()
    assert "-migration-{{ .Release.Revision }}" in template


@needs_helm
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("image.repository=", "repository"),
        ("settings.BULKREG_KAFKA_BOOTSTRAP_SERVERS=", "BULKREG_KAFKA_BOOTSTRAP_SERVERS"),
        ("settings.BULKREG_DATABASE_URL=postgresql://x", "BULKREG_DATABASE_URL"),
        ("roles.relay.replicas=0", "replicas"),
        ("ingress.host=", "host"),
        ("replicas=3", "replicas"),
    ],
)
def test_values_that_can_not_work_are_refused(change: str, named: str) -> None:
    ran = helm("template", "bulkreg", str(CHART), *KUBERNETES, "--values", str(EXAMPLES / "values.yaml"), "--set", change)
    assert ran.returncode != 0
    assert named in ran.stderr


@needs_helm
def test_the_alarms_are_those_of_the_rules(manifests: Sequence[Manifest]) -> None:
    [rules] = [manifest for manifest in manifests if manifest["kind"] == "PrometheusRule"]
    original = yaml.safe_load((ROOT / "compose" / "observability" / "rules.yaml").read_text())
    for group, expected in zip(rules["spec"]["groups"], original["groups"], strict=True):
        assert [rule.get("alert", rule.get("record")) for rule in group["rules"]] == [
            rule.get("alert", rule.get("record")) for rule in expected["rules"]
        ]
        links = [rule["annotations"]["runbook_url"] for rule in group["rules"] if "alert" in rule]
        assert all(link.startswith("https://wiki.example.org/bulkreg/runbooks.md#") for link in links)


def test_the_scalers_watch_the_products_groups_and_topics() -> None:
    prefix = Settings().topic_prefix
    documents = list(yaml.safe_load_all((EXAMPLES / "keda.yaml").read_text()))
    scaled = {each["spec"]["scaleTargetRef"]["name"].removeprefix("bulkreg-"): each["spec"] for each in documents}
    read_by = {
        "splitter": [Topic.BATCHES],
        "registration": [Topic.COMMANDS, Topic.COMMANDS_BULK],
        "aggregator": [Topic.RESULTS],
    }
    for role, topics in read_by.items():
        triggers = [trigger["metadata"] for trigger in scaled[role]["triggers"]]
        assert [trigger["consumerGroup"] for trigger in triggers] == [f"{prefix}.{role}"] * len(topics)
        assert [trigger["topic"] for trigger in triggers] == [topic.on_cluster(prefix) for topic in topics]
        assert scaled[role]["minReplicaCount"] >= 2
        if role != "splitter":
            largest = Settings().max_items
            assert all(int(trigger["lagThreshold"]) >= largest for trigger in triggers), "one batch must not add a pod"
    assert set(scaled) <= set(ROLES)


# What a pod takes of PostgreSQL (docs/operations.md, Size). Any other role takes two.
CONNECTIONS = {"api": Settings().api_database_connections + 9, "sweeper": 3, "notifier": 3}
# For people, backups, and what watches the database.
KEPT_FREE = 10


def test_the_examples_database_has_connections_for_the_most_pods_and_one_more_of_each_role() -> None:
    database, *_ = yaml.safe_load_all((EXAMPLES / "cloudnative-pg.yaml").read_text())
    most = {role: values["replicas"] for role, values in yaml.safe_load((CHART / "values.yaml").read_text())["roles"].items()}
    for scaler in yaml.safe_load_all((EXAMPLES / "keda.yaml").read_text()):
        spec = scaler["spec"]
        most[spec["scaleTargetRef"]["name"].removeprefix("bulkreg-")] = spec.get("maxReplicaCount") or spec["maxReplicas"]
    assert set(most) == set(ROLES)
    needed = sum((pods + 1) * CONNECTIONS.get(role, 2) for role, pods in most.items())
    assert needed + KEPT_FREE <= int(database["spec"]["postgresql"]["parameters"]["max_connections"])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_yaml(path: Path) -> None:
    assert [each for each in yaml.safe_load_all(path.read_text()) if each is not None]


def test_the_values_schema_is_one() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())) <= set(schema["properties"])
