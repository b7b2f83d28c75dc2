"""No request waits longer than its deadline, and what hangs holds up nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH, API_ROOT
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.pipeline import COORDINATOR, standard_directory

ACTIVITY = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}

SETTINGS = {"jwt_hs256_key": SecretStr(KEY), "request_deadline_ms": 1_000, "api_database_connections": 2}


@pytest.fixture
def server(settings: Settings, engine: Engine) -> Iterator[ApiServer]:
    standard_directory(engine)
    with running_api(settings.model_copy(update=SETTINGS)) as server:
        yield server


def test_row_67_reads_and_readiness_go_on_while_every_change_hangs(server: ApiServer, owner: Engine) -> None:
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as client, ThreadPoolExecutor(4) as clients, owner.connect() as other:
        # Reads do not wait for this lock, and changes do.
        other.execute(text("LOCK TABLE orchestrator.batch IN EXCLUSIVE MODE"))
        submissions = [
            clients.submit(client.post, API_PATH, json={"mentor_ids": [f"mentor-{n}"], "activity": ACTIVITY}) for n in range(4)
        ]
        for answer in (future.result() for future in submissions):
            assert (answer.status_code, answer.json()["code"]) in ((503, "database_unavailable"), (503, "overloaded"))
            assert int(answer.headers["Retry-After"]) > 0
        assert client.get(API_PATH).status_code == 200
        assert client.get(f"{API_ROOT}/me").status_code == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        other.rollback()


def test_a_change_after_its_deadline_says_that_its_result_is_unknown(server: ApiServer, owner: Engine) -> None:
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as client, owner.connect() as other:
        other.execute(text("LOCK TABLE orchestrator.batch IN EXCLUSIVE MODE"))
        body, key = {"mentor_ids": ["mentor-1"], "activity": ACTIVITY}, {"Idempotency-Key": "once"}
        answer = client.post(API_PATH, json=body, headers=key)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert "The result is unknown" in answer.json()["detail"]
        other.rollback()
        # It is stored once, whether the first request still had its effect or not.
        assert client.post(API_PATH, json=body, headers=key).status_code == 202
        assert len(client.get(API_PATH).json()["data"]) == 1
