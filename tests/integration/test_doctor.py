"""`bulkreg doctor` on real servers: it reports a healthy deployment as healthy, and finds each defect with its fix."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text

from compose import database_findings, doctor, kafka_findings
from compose.doctor import examine
from compose.findings import Finding, State
from orchestrator.directory.forgetting import Forgetter
from orchestrator.directory.forgetting_requests import ForgettingRequests
from orchestrator.process.failpoints import failpoints
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine, transact
from orchestrator.storage.outbox import SLOTS
from orchestrator.storage.people import ForgettingKey
from orchestrator.storage.slots import announce, balance
from producers import topics
from producers.topics import create_topics, planned_topics
from schemas.envelope import Topic
from tests.support.pipeline import ADMIN
from tests.support.waiting import PATIENCE_S, eventually

KEY = SecretStr("k" * 32)

# `doctor` would name its settings in every test.
pytestmark = pytest.mark.usefixtures("durable_server")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (doctor, kafka_findings):
        monkeypatch.setattr(module, "TIMEOUT_S", PATIENCE_S)


@pytest.fixture
def sound(settings: Settings) -> Settings:
    """A healthy deployment."""
    create_topics(settings)
    return changed(settings, jwt_hs256_key=KEY)


def changed(settings: Settings, **changes: object) -> Settings:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Settings.model_validate(given | changes)


def wrong(settings: Settings, environment: Mapping[str, str] | None = None) -> list[Finding]:
    return [finding for finding in examine(settings, environment or {}) if finding.state is not State.OK]


def only(settings: Settings, environment: Mapping[str, str] | None = None) -> Finding:
    found = wrong(settings, environment)
    assert len(found) == 1, found
    [finding] = found
    assert finding.fix is not None
    return finding


def as_owner(settings: Settings, *statements: str) -> None:
    engine = create_engine(settings.owner_url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_a_healthy_deployment_is_reported_as_healthy(sound: Settings) -> None:
    findings = list(examine(sound, {"BULKREG_API_PORT": "8080", "BULKREG_HOME": "x", "PATH": "/bin"}))
    assert [finding.subject for finding in findings if finding.state is State.OK] == [
        "settings",
        "authentication",
        "database (owner)",
        "database (worker)",
        "database (API)",
        "pooling",
        "outbox",
        "relays",
        "receipts",
        "Kafka",
        "consumer groups",
        "database and topics",
    ]
    assert len(findings) == 12


@pytest.mark.parametrize(
    ("statement", "state", "said"),
    [
        ("INSERT INTO orchestrator.receipt_published VALUES ('org', 1, 9, '', '', 'ahead')", State.UNSAFE, "the database was restored"),
        ("INSERT INTO orchestrator.receipt_published VALUES ('org', 1, 9, '', '', 'forked')", State.UNSAFE, "is not signed"),
        (
            "INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id,"
            " channel, at)"
            " VALUES ('org', 'registered', gen_random_uuid(), 'c', 'm', 'c', gen_random_uuid(), 'api', now() - interval '2 minutes')",
            State.ADVICE,
            "has waited for its log",
        ),
        (
            "INSERT INTO orchestrator.receipt_log (organization_id, log, origin, before_log, size) VALUES ('org', 1, 'o', 0, 3)",
            State.ADVICE,
            "nothing is signed",
        ),
    ],
    ids=["ahead", "forked", "behind", "without a key"],
)  # fmt: skip
def test_logs_of_receipts(sound: Settings, statement: str, state: State, said: str) -> None:
    as_owner(sound, statement)
    finding = only(sound)
    assert (finding.subject, finding.state) == ("receipts", state)
    assert said in finding.detail


def test_a_variable_that_no_setting_reads(sound: Settings) -> None:
    finding = only(sound, {"BULKREG_KAFKA_BOOTSTRAP": "x:9092"})
    assert (finding.state, "BULKREG_KAFKA_BOOTSTRAP is not a setting" in finding.detail) == (State.UNSAFE, True)


def test_items_in_doubt_at_an_external_service(sound: Settings) -> None:
    as_owner(
        sound,
        "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
        " VALUES (gen_random_uuid(), 0, 'org', 1, 'asked', now())",
    )
    finding = only(sound)
    assert (finding.subject, finding.state, finding.detail[:22]) == ("registration", State.ADVICE, "1 items are in doubt: ")
    asking = changed(sound, registration_url="http://127.0.0.1:1/")
    assert wrong(asking) == []
    assert [each.subject for each in examine(asking, {}) if "in doubt" in each.detail] == ["registration"]


HELD = (
    "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at, held_for, held_why, held_at)"
    " SELECT -1, 'org', gen_random_uuid(), 'lifecycle', 'k', '[]', '{{}}', now(), '{held_for}', '{why}',"
    " timestamptz '2026-11-29 07:00Z' + n * interval '1 hour'"
    " FROM generate_series(0, 2) AS n"
)


@pytest.mark.parametrize(
    ("held_for", "why", "state", "said"),
    [
        ("refused", "message too large", State.UNSAFE, "Kafka refuses them as they are (message too large)"),
        ("lifecycle", "unknown topic", State.ADVICE, "lifecycle accepts no events (unknown topic)"),
    ],
)
def test_row_53_events_that_are_set_aside(sound: Settings, held_for: str, why: str, state: State, said: str) -> None:
    as_owner(sound, HELD.format(held_for=held_for, why=why))
    [finding] = [each for each in wrong(sound) if each.subject == "outbox"]
    assert finding.state is state
    assert finding.detail == f"3 events for lifecycle are set aside, the first since 2026-11-29 07:00:00 UTC: {said}"


def test_row_53_events_wait_and_no_relay_runs(sound: Settings) -> None:
    """When `verify` reports a breach, because they have waited for too long, this is more than advice."""
    as_owner(sound, HELD.format(held_for="lifecycle", why="unknown topic"))
    found = {finding.subject: finding for finding in wrong(sound)}
    assert found.keys() == {"outbox", "relays"}
    assert found["relays"].state is State.ADVICE
    since = "timestamptz '2025-11-29 07:00:01Z'"
    as_owner(
        sound,
        f"UPDATE orchestrator.outbox SET created_at = {since} WHERE held_at = (SELECT max(held_at) FROM orchestrator.outbox)",
    )
    [late] = [finding for finding in wrong(sound) if finding.subject == "relays"]
    assert late.state is State.UNSAFE
    assert late.detail == "no relay holds a slot; events that wait: 3, the first since 2025-11-29 07:00:01 UTC"
    # Not when a relay that runs would count as silent.
    patient = sound.model_copy(update={"trouble_after_ms": 10**12})
    assert [finding.state for finding in wrong(patient) if finding.subject == "relays"] == [State.ADVICE]


def test_row_53_relay_that_holds_slots_and_does_nothing(sound: Settings) -> None:
    """The session of a stopped relay: it keeps its slots, and sends nothing."""
    engine = create_database_engine(sound.worker_url, sound, connections=1, application_name="relay")
    with engine.connect() as connection:
        announce(connection)
        assert len(balance(connection, (), lease=timedelta(seconds=9))) == SLOTS
        connection.commit()
        [holds] = [finding for finding in examine(sound, {}) if finding.subject == "relays"]
        assert (holds.state, f"holds {SLOTS} of {SLOTS} slots" in holds.detail) == (State.OK, True)
        [finding] = eventually(lambda: wrong(changed(sound, relay_lease_ms=1_000)))
        assert (finding.subject, finding.state, "been silent for" in finding.detail) == ("relays", State.UNSAFE, True)
    engine.dispose()


def test_failpoints(sound: Settings) -> None:
    assert only(changed(sound, failpoints="relay.after_publish=crash")).fix == "unset BULKREG_FAILPOINTS"


def test_secrets_of_the_examples_that_were_not_replaced(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_findings, "TIMEOUT_S", 0.5)
    examples = changed(
        sound,
        api_database_url=SecretStr("postgresql://bulkreg_api:change-me-this-is-the-api@127.0.0.1:1/x"),
        jwt_hs256_key=SecretStr("change-me-at-least-32-characters-long"),
    )
    found = [finding for finding in wrong(examples) if finding.subject == "settings"]
    assert [(finding.state, finding.detail.split()[0]) for finding in found] == [
        (State.UNSAFE, "BULKREG_API_DATABASE_URL"),
        (State.UNSAFE, "BULKREG_JWT_HS256_KEY"),
    ]
    assert all("openssl rand" in (finding.fix or "") for finding in found)


def test_a_schema_of_another_version(sound: Settings) -> None:
    as_owner(sound, "UPDATE public.schema_version SET version_num = '0000'")
    finding = only(sound)
    assert (finding.state, finding.fix) == (State.UNSAFE, "run: bulkreg db upgrade")
    assert "version 0000" in finding.detail


def test_a_database_without_the_schema(sound: Settings) -> None:
    as_owner(sound, "DROP SCHEMA orchestrator CASCADE", "DROP SCHEMA registration CASCADE", "DROP TABLE public.schema_version")
    found = wrong(sound)
    assert {finding.subject for finding in found} == {"database (owner)", "database (API)"}
    assert {(finding.state, finding.fix) for finding in found} == {(State.UNREACHABLE, "run: bulkreg db upgrade")}


def test_an_api_role_that_owns_the_tables(sound: Settings) -> None:
    finding = only(changed(sound, api_database_url=sound.database_url))
    assert (finding.subject, finding.state, "bulkreg_api" in (finding.fix or "")) == ("database (API)", State.UNSAFE, True)


@pytest.mark.parametrize("change", ["DISABLE", "NO FORCE"])
def test_row_level_security_that_is_not_forced(sound: Settings, change: str) -> None:
    as_owner(sound, f"ALTER TABLE orchestrator.outcome {change} ROW LEVEL SECURITY")
    finding = only(sound)
    assert (finding.state, "orchestrator.outcome" in finding.detail) == (State.UNSAFE, True)
    as_owner(sound, finding.fix or "")
    assert wrong(sound) == []


def test_a_missing_grant(sound: Settings) -> None:
    as_owner(sound, "REVOKE SELECT ON registration.mentor FROM bulkreg_api")
    finding = only(sound)
    assert (finding.subject, finding.state) == ("database (API)", State.UNREACHABLE)
    assert "registration.mentor" in finding.detail


@pytest.mark.parametrize(
    "written", ["ka\N{COMBINING RING ABOVE}re", "m-1\N{ZERO WIDTH SPACE}", "m\N{NO-BREAK SPACE}1"], ids=ascii
)
def test_ids_that_were_stored_in_another_spelling(sound: Settings, written: str) -> None:
    as_owner(sound, f"INSERT INTO registration.activity_type VALUES ('a', '{written}', 'x'), ('a', 'plain æøå', 'x')")
    finding = only(sound)
    assert (finding.subject, finding.state) == ("directory", State.UNSAFE)
    assert ascii(written) in finding.detail
    assert " and " not in finding.detail.split(" is stored")[0]


def test_a_server_that_may_lose_commits(sound: Settings) -> None:
    name = sound.owner_url.database
    as_owner(sound, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    assert (only(sound).state, only(sound).fix) == (State.UNSAFE, "set synchronous_commit = on in the server")


def test_a_role_that_may_not_connect(sound: Settings) -> None:
    url = sound.worker_url.set(password="wrong").render_as_string(hide_password=False)
    finding = only(changed(sound, worker_database_url=SecretStr(url)))
    assert (finding.subject, finding.state) == ("database (worker)", State.UNREACHABLE)
    assert "bulkreg db upgrade" in (finding.fix or "")
    assert "BULKREG_WORKER_DATABASE_URL" in (finding.fix or "")


def test_roles_that_may_not_read_the_servers_timeline(sound: Settings) -> None:
    """Every session reads it (decision 57), so without the right nothing can connect."""
    as_owner(sound, "REVOKE EXECUTE ON FUNCTION pg_control_system, pg_walfile_name FROM PUBLIC")
    found = wrong(sound)
    assert [(each.subject, each.state) for each in found] == [
        (subject, State.UNREACHABLE) for subject in ("database (worker)", "database (API)")
    ]
    as_owner(sound, *((each.fix or "").partition("database: ")[2] for each in found))
    assert wrong(sound) == []


def test_unavailable_servers(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_findings, "TIMEOUT_S", 0.5)
    url = SecretStr("postgresql://x:secret@127.0.0.1:1,127.0.0.1:2/x")
    found = wrong(changed(sound, database_url=url, kafka_bootstrap_servers="127.0.0.1:1"))
    assert [(finding.subject, finding.state) for finding in found] == [
        (subject, State.UNREACHABLE) for subject in ("database (owner)", "database (worker)", "database (API)", "Kafka")
    ]
    assert "secret" not in str(found)
    databases = found[:3]
    assert [finding.fix for finding in databases] == [
        f"start PostgreSQL, or correct BULKREG_{name}DATABASE_URL" for name in ("", "WORKER_", "API_")
    ]
    assert all(finding.detail.count("Connection refused") == 2 for finding in databases)


class WithoutBrokerSeven(AdminClient):
    """Knows of a second broker, which should have copies of some partitions and has none."""

    def list_topics(self, *args: Any, **kwargs: Any) -> Any:
        metadata = super().list_topics(*args, **kwargs)
        for name, topic in metadata.topics.items():
            if name.endswith(("batches.v1", "lifecycle.v1")):
                topic.partitions[0].replicas = [*topic.partitions[0].replicas, 7]
        return metadata


def test_a_broker_that_is_down(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "AdminClient", WithoutBrokerSeven)
    finding = only(sound)
    assert (finding.subject, finding.state) == ("Kafka broker 7", State.UNSAFE)
    assert "no up-to-date copy of 2 of the topics' partitions" in finding.detail
    assert "start broker 7" in (finding.fix or "")


def test_brokers_that_stop_responding_in_the_middle(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    described: list[object] = []

    class Once(AdminClient):
        """Describes the topics, and finds no broker afterwards."""

        def describe_configs(self, *args: Any, **kwargs: Any) -> Any:
            described.append(args)
            return super().describe_configs(*args, **kwargs)

        def list_topics(self, *args: Any, **kwargs: Any) -> Any:
            if described:
                raise KafkaException(KafkaError(KafkaError._TRANSPORT, "all brokers are down"))
            return super().list_topics(*args, **kwargs)

    monkeypatch.setattr(topics, "AdminClient", Once)
    finding = only(sound)
    assert (finding.subject, finding.state) == ("Kafka", State.UNREACHABLE)
    assert finding.detail.endswith(": all brokers are down")


def test_connections_that_others_can_read(sound: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_findings, "TIMEOUT_S", 0.5)
    remote = SecretStr("postgresql://x:y@database.invalid/x")
    found = wrong(changed(sound, database_url=remote, kafka_bootstrap_servers="broker.invalid:9092"))
    unsafe = [finding for finding in found if finding.state is State.UNSAFE]
    assert [finding.subject for finding in unsafe] == ["database (owner)", "database (worker)", "database (API)", "Kafka"]
    assert {finding.fix for finding in unsafe[:3]} == {"append ?sslmode=verify-full to its URL"}
    assert "BULKREG_KAFKA_SECURITY_PROTOCOL" in (unsafe[3].fix or "")
    private = SecretStr("postgresql://x:y@database.invalid/x?sslmode=verify-full")
    for safe in (changed(sound, database_url=private), changed(sound, database_url=remote, database_allow_plaintext=True)):
        assert all(finding.state is not State.UNSAFE for finding in wrong(safe))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://x:y@/x?host=one.invalid:5432&host=127.0.0.1:1", "one.invalid"),
        ("postgresql://x:y@/x?host=one.invalid,two.invalid&port=5432,5433", "one.invalid, two.invalid"),
        ("postgresql://x:y@/x?host=[::1]:1,[2001:db8::1]:2", "2001:db8::1"),
    ],
)
def test_connections_to_several_servers_that_others_can_read(url: str, named: str) -> None:
    unsafe = list(database_findings._transport("database", make_url(url), {}))
    assert [finding.detail for finding in unsafe] == [f"the connection to {named} may be unencrypted (sslmode is prefer)"]
    assert unsafe[0].fix == "append &sslmode=verify-full to its URL"
    for safe in (f"{url}&sslmode=verify-full", "postgresql://x:y@/x?host=127.0.0.1:1&host=/run/postgresql", "postgresql:///x"):
        assert list(database_findings._transport("database", make_url(safe), {})) == []


def test_missing_topics_and_topics_with_other_settings(settings: Settings) -> None:
    secured = changed(settings, jwt_hs256_key=KEY)
    missing = wrong(secured)
    assert {(finding.state, finding.fix) for finding in missing} == {(State.UNREACHABLE, "run: bulkreg topics create")}
    assert len(missing) == 6
    create_topics(settings)
    other = wrong(changed(secured, topic_retention_hours=24))
    assert {finding.state for finding in other} == {State.ADVICE}
    assert all("retention.ms is" in finding.detail for finding in other)
    assert len(other) == 6
    days = settings.topic_retention_hours // 24
    assert wrong(changed(secured, notes_retention_days=days)) == []
    longer = wrong(changed(secured, notes_retention_days=days - 1))
    assert [finding.subject.rpartition(".")[0].rpartition(".")[2] for finding in longer] == ["batches", "dead-letter"]
    assert all(finding.state is State.ADVICE and f"keeps records for {days} days" in finding.detail for finding in longer)
    [batches] = [plan for plan in planned_topics(settings) if plan.topic is Topic.BATCHES]
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})

    def change(name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        configured = ConfigResource("topic", batches.name, incremental_configs=[entry])
        for future in admin.incremental_alter_configs([configured]).values():
            future.result()

    def is_kept_for_ever() -> bool:
        return any("keeps records for ever" in finding.detail for finding in wrong(changed(secured, notes_retention_days=days)))

    change("retention.ms", "-1")
    eventually(is_kept_for_ever)
    change("retention.ms", "0")
    eventually(lambda: not is_kept_for_ever())
    # Then the retention deletes nothing.
    change("cleanup.policy", "compact")
    eventually(is_kept_for_ever)


def test_people_who_can_not_be_forgotten_or_recognized_without_the_key(sound: Settings, engine: Engine) -> None:
    keyed, other = (changed(sound, forgetting_key=SecretStr(letter * 32)) for letter in "kx")
    assert [wrong(each) for each in (sound, keyed)] == [[], []]
    transact(engine, lambda connection: ForgettingRequests(connection).ask(ADMIN, "mentor-1", also_unknown=True))
    [asked] = wrong(sound)
    assert (asked.subject, asked.state, "BULKREG_FORGETTING_KEY" in asked.detail) == ("forgetting", State.ADVICE, True)
    assert wrong(keyed) == []
    with engine.begin() as connection:
        connection.execute(text("UPDATE registration.forgetting SET requested_at = requested_at - interval '25 hours'"))
    [waits] = wrong(keyed)
    assert "has waited 25 hours" in waits.detail
    assert Forgetter(ForgettingKey.of(keyed), failpoints("")).work(engine).people == 1
    for unknown in (sound, other):
        [found] = wrong(unknown)
        assert "people were forgotten under another key" in found.detail
    assert wrong(keyed) == []


def test_authentication_that_is_missing_or_unsafe(sound: Settings) -> None:
    nobody_asked = only(changed(sound, jwt_hs256_key=None))
    assert (nobody_asked.subject, nobody_asked.state) == ("authentication", State.ADVICE)
    open_door = only(changed(sound, jwt_hs256_key=None, api_host="0.0.0.0"))
    assert (open_door.state, "BULKREG_JWT_JWKS_URL" in (open_door.fix or "")) == (State.UNSAFE, True)
    assert only(changed(sound, api_host="0.0.0.0")).state is State.ADVICE
    plain = only(changed(sound, jwt_hs256_key=None, jwt_jwks_url="http://provider.example.org/keys"))
    assert (plain.state, "https" in (plain.fix or "")) == (State.UNSAFE, True)


def test_plans_that_anybody_could_sign(sound: Settings) -> None:
    bare = sound.api_url._replace(password=None).render_as_string()
    without = changed(sound, api_database_url=SecretStr(bare), jwt_hs256_key=None)
    [found] = [finding for finding in wrong(without) if finding.subject == "plans"]
    assert (found.state, "BULKREG_PLAN_SIGNING_KEY" in (found.fix or "")) == (State.UNSAFE, True)
    for own in (changed(without, plan_signing_key=KEY), changed(without, jwt_hs256_key=KEY)):
        assert "plans" not in {finding.subject for finding in wrong(own)}


@contextmanager
def provider(body: bytes, status: int = 200) -> Iterator[str]:
    class FixedResponse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), FixedResponse) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.005,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"<html>", 200, "no key set"),
        (b"[]", 200, "no key set"),
        (b'{"keys": 5}', 200, "no key set"),
        (b'{"keys": []}', 200, "no keys"),
        (b"{}", 503, "503"),
    ],
)
def test_an_identity_provider_without_keys(sound: Settings, body: bytes, status: int, detail: str) -> None:
    with provider(body, status) as url:
        finding = only(changed(sound, jwt_hs256_key=None, jwt_jwks_url=url.replace("://", "://svc:hemmelig@")))
    assert (finding.subject, finding.state, detail in finding.detail) == ("identity provider", State.UNREACHABLE, True)
    assert "hemmelig" not in finding.detail


def test_an_identity_provider_that_works(sound: Settings) -> None:
    with provider(json.dumps({"keys": [{"kty": "OKP"}]}).encode()) as url:
        assert wrong(changed(sound, jwt_hs256_key=None, jwt_jwks_url=url)) == []
    away = only(changed(sound, jwt_hs256_key=None, jwt_jwks_url="http://127.0.0.1:1/keys"))
    assert (away.subject, away.state) == ("identity provider", State.UNREACHABLE)
