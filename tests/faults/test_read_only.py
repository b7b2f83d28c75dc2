"""Row 43 of the fault catalogue: the database refuses a statement, and no record is to blame."""

import contextlib

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage import database
from orchestrator.storage.blame import Blame, blame
from orchestrator.storage.database import check_writable, create_database_engine
from producers.producer import EventProducer
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.faults.roles import assert_exactly_once, running_flow, wait_until_completed
from tests.support.api_server import KEY, running_api
from tests.support.kafka import reading
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.read_only import read_only
from tests.support.waiting import eventually

SUBMISSION = {
    "coordinator_id": "coord-1",
    "items": [{"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}],
}


def test_row_43_the_api_reports_a_read_only_database_and_recovers_at_once(settings: Settings, pipeline: Pipeline) -> None:
    with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        assert client.post(API_PATH, json=SUBMISSION).status_code == 202
        assert client.get("/readyz").status_code == 200
        with read_only(settings.owner_url):
            refused = client.post(API_PATH, json=SUBMISSION)
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
            assert int(refused.headers["Retry-After"]) >= 1
            ready = client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["checks"]["database"] == {"ok": False, "detail": "the database is read-only"}
            assert client.get(API_PATH).status_code == 200, "reading must still work"
        # Sessions that were opened meanwhile stay read-only. Only the product closes them.
        assert client.get("/readyz").status_code == 200
        assert [client.post(API_PATH, json=SUBMISSION).status_code for _ in range(20)] == [202] * 20


def test_row_43_the_api_reports_a_missing_right(settings: Settings, pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(text("REVOKE INSERT ON orchestrator.batch FROM bulkreg_api"))
    with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        refused = client.post(API_PATH, json=SUBMISSION)
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        with owner.begin() as connection:
            connection.execute(text("GRANT INSERT ON orchestrator.batch TO bulkreg_api"))
        assert client.post(API_PATH, json=SUBMISSION).status_code == 202
    owner.dispose()
    [line] = logged(caplog, Action.DATABASE_REFUSED)
    assert (line["role"], line["level"]) == ("api", "error")
    assert "InsufficientPrivilege 42501" in str(line["error"])


def test_row_43_of_several_hosts_the_writable_one_is_chosen(settings: Settings) -> None:
    """One server with two addresses. While it is read-only, no connection is possible; afterwards it works again."""
    url = settings.worker_url
    place = f"{url.host}:{url.port}"
    several = url.set(host=None, port=None).update_query_dict({"host": [place, place]})
    engine = create_database_engine(several, settings, connections=1, application_name="test")
    check_writable(engine)
    with read_only(settings.owner_url), pytest.raises(OperationalError) as refused:
        check_writable(engine, give_up_after_s=0.1)
    assert blame(refused.value) is Blame.PASSING
    check_writable(engine)
    engine.dispose()


def test_row_43_a_session_that_is_idle_is_no_commit_that_waits(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_COMMIT_WAITS_TOO_LONG_S", 0.0)
    idle = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
    with idle.connect() as connection:
        connection.execute(text("SELECT 1"))
        check_writable(engine)
    idle.dispose()


def retries(role: str) -> float:
    return REGISTRY.get_sample_value("bulkreg_micro_batch_retries_total", {"role": role, "why": "database"}) or 0.0


def test_row_43_no_good_record_is_put_aside_while_the_database_is_read_only(
    settings: Settings, engine: Engine, pipeline: Pipeline, publisher: EventProducer
) -> None:
    """Each consumer has records when the database becomes read-only, and its session stays read-only afterwards."""
    batches = [pipeline.submit(mentors(10, first=1 + 10 * number)) for number in range(3)]
    pipeline.relay()
    events = pipeline.take(Topic.BATCHES)
    by_batch = {batch_id: [event for event in events if event.key == str(batch_id)] for batch_id in batches}
    first, second, third = batches
    pipeline.handle(pipeline.splitter, by_batch[second] + by_batch[third])
    commands = pipeline.take(Topic.COMMANDS)
    pipeline.handle(pipeline.registration, [command for command in commands if str(second).encode() not in command.value])
    waiting = [*by_batch[first], *commands, *pipeline.take(Topic.RESULTS)]
    before = {role: retries(role) for role in ("splitter", "registration", "aggregator")}
    with contextlib.ExitStack() as roles:
        letters = roles.enter_context(reading(settings, Topic.DEAD_LETTER))
        with read_only(settings.owner_url):
            publisher.publish(waiting)
            roles.enter_context(running_flow(settings))
            eventually(lambda: all(retries(role) >= before[role] + 2 for role in before))
        engine.dispose()
        wait_until_completed(engine, batches)
        assert letters.read() == []
    assert_exactly_once(engine, settings, activities=30)
