"""A process without the API says over HTTP how each of its roles is, where the settings give it a port (specification, 6)."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from orchestrator.settings import Settings
from schemas import api as models
from tests.support.ports import free_port
from tests.support.product import BULKREG
from tests.support.waiting import eventually


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
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.fixture
def port() -> int:
    return free_port()


def readiness(url: str) -> tuple[int, dict[str, Any]] | None:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=10)
    except httpx.TransportError:
        return None
    models.HealthAnswer.model_validate_json(answer.content, extra="forbid")
    return answer.status_code, answer.json()["checks"]


def test_each_role_of_a_process_is_ready_when_its_loop_turns_and_a_broker_answers(
    settings: Settings, topics: None, port: int
) -> None:
    with running(settings, port, "relay", "splitter") as url:
        well = (200, {name: {"ok": True} for name in ("database", "relay", "splitter")})
        eventually(lambda: readiness(url) == well, within_s=30)
        assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
        assert "# TYPE bulkreg_records_handled_total counter" in httpx.get(f"{url}/metrics").text
        assert httpx.get(f"{url}/api/v1/bulk-registrations").status_code == 404


def test_a_role_without_a_broker_says_so(settings: Settings, port: int) -> None:
    with running(settings, port, "splitter", BULKREG_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1") as url:
        told = eventually(lambda: readiness(url), within_s=30)
    assert told == (503, {"database": {"ok": True}, "splitter": {"ok": False, "detail": "no broker answers"}})
