"""A process without the API reports the health of each of its roles over HTTP, if the settings give it a port (docs/operations.md)."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from sqlalchemy import Engine, text

from orchestrator.process.settings import Settings
from orchestrator.storage.observing import note_starts
from producers.topics import create_topics
from schemas.api.health import HealthResponse
from schemas.envelope import Topic
from tests.support.no_tls import NO_TLS
from tests.support.ports import free_port
from tests.support.prepared import BULKREG
from tests.support.waiting import PATIENCE_S, eventually


@contextmanager
def running(settings: Settings, port: int, *roles: str, **changes: str) -> Iterator[str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BULKREG_")},
        "BULKREG_DATABASE_URL": settings.database_url.get_secret_value(),
        "BULKREG_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "BULKREG_TOPIC_PREFIX": settings.topic_prefix,
        "BULKREG_HEALTH_PORT": str(port),
        **changes,
    }
    with subprocess.Popen([*BULKREG, "run", *roles], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    return free_port()


def readiness(url: str) -> tuple[int, dict[str, Any]] | None:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=PATIENCE_S, verify=NO_TLS)
    except httpx.TransportError:
        return None
    HealthResponse.model_validate_json(answer.content, extra="forbid")
    return answer.status_code, answer.json()["checks"]


def test_each_role_is_ready_while_its_loop_turns_and_a_broker_responds(settings: Settings, topics: None, port: int) -> None:
    with running(settings, port, "relay", "splitter") as url:
        well: dict[str, Any] = {name: {"ok": True} for name in ("database", "relay", "splitter")}
        well["relay"]["detail"] = "owns 16 of the 16 slots of the outbox"
        eventually(lambda: readiness(url) == (200, well))
        assert httpx.get(f"{url}/healthz", timeout=PATIENCE_S, verify=NO_TLS).json()["status"] == "ok"
        assert (
            "# TYPE bulkreg_records_handled_total counter" in httpx.get(f"{url}/metrics", timeout=PATIENCE_S, verify=NO_TLS).text
        )
        assert httpx.get(f"{url}/api/v1/bulk-registrations", timeout=PATIENCE_S, verify=NO_TLS).status_code == 404


def test_a_role_without_a_broker_is_not_ready(settings: Settings, port: int) -> None:
    with running(settings, port, "splitter", BULKREG_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1") as url:
        expected = (503, {"database": {"ok": True}, "splitter": {"ok": False, "detail": "no broker responds"}})
        eventually(lambda: readiness(url) == expected)


def test_row_53_relay_whose_oldest_event_waits_too_long_is_not_ready(
    settings: Settings, engine: Engine, topics: None, port: int
) -> None:
    """The event is for a topic that does not exist."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)"
                " VALUES (0, 'org', gen_random_uuid(), 'batches', 'k', '[]', '{}', now() - interval '1 hour')"
            )
        )
    # The client is kept until the response arrives, because closing it would end its requests.
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    name = Topic.BATCHES.on_cluster(settings.topic_prefix)
    admin.delete_topics([name])[name].result()
    with running(settings, port, "relay") as url:

        def is_told() -> bool:
            told = readiness(url)
            return told is not None and told[0] == 503 and "the oldest event" in told[1]["relay"].get("detail", "")

        eventually(is_told)
        assert "bulkreg_outbox_oldest_seconds 36" in httpx.get(f"{url}/metrics", timeout=PATIENCE_S, verify=NO_TLS).text
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM orchestrator.outbox"))
        eventually(lambda: (told := readiness(url)) is not None and told[0] == 200)
    create_topics(settings)


def test_row_53_role_that_keeps_restarting_is_not_ready_until_it_lasts(
    settings: Settings, engine: Engine, topics: None, port: int
) -> None:
    with engine.begin() as connection:
        note_starts(connection, ["splitter"] * 2 + ["relay"], host=socket.gethostname())
    with running(settings, port, "relay", "splitter", BULKREG_MAX_RESTARTS="2") as url:

        def is_told() -> bool:
            told = readiness(url)
            if told is None or not told[1]["relay"]["ok"]:
                return False
            return told[0] == 503 and "began 3 times within 10 minutes" in told[1]["splitter"].get("detail", "")

        eventually(is_told)
        assert 'bulkreg_role_starts{role="splitter"} 3.0' in httpx.get(f"{url}/metrics", timeout=PATIENCE_S, verify=NO_TLS).text
