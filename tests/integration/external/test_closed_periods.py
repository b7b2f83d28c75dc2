"""Closed periods, and what an external registration service has been asked."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from pydantic import SecretStr
from sqlalchemy import Engine, text

from consumers.external.adapter import mark_questions
from orchestrator.batches.operations import retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process.settings import Settings
from schemas.paths import CLOSED_PERIOD_PATH
from tests.faults.every_interleaving import looking
from tests.support.api_server import KEY, running_api
from tests.support.closing import close
from tests.support.external import ALL, ExternalPipeline, codes
from tests.support.faulty_service import Fault, FaultyService
from tests.support.pipeline import ADMIN, DAY, item, mentors
from tests.support.waiting import PATIENCE_S, eventually


def test_an_item_in_a_closed_period_is_never_sent(pipeline: ExternalPipeline, service: FaultyService) -> None:
    close(pipeline, DAY)
    batch_id = pipeline.submit([item("mentor-1"), item("mentor-2", day=DAY + timedelta(days=1))])
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["period_closed", None]
    assert len(service.asked) == 1
    close(pipeline, None)
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    pipeline.drain()
    assert (codes(pipeline, batch_id), len(service.asked)) == ([None, None], 2)


def test_a_retry_of_what_the_service_refused_is_not_sent_once_the_period_is_closed(
    pipeline: ExternalPipeline, service: FaultyService
) -> None:
    service.refusals = {"mentor-1": {"code": "mentor_inactive"}}
    service.faults["mentor-1"].append(Fault.REFUSES)
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["mentor_inactive"]
    close(pipeline, DAY)
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    pipeline.drain()
    assert (codes(pipeline, batch_id), len(service.asked)) == (["period_closed"], 1)


def test_what_was_sent_before_the_closing_is_unresolved_until_the_service_has_answered(
    pipeline: ExternalPipeline, service: FaultyService, engine: Engine
) -> None:
    batch_id = pipeline.submit(mentors(2))
    commands = pipeline.commands(batch_id)
    with engine.begin() as connection:
        # The requests are on their way.
        mark_questions(connection, [OutcomeKey(str(batch_id), 0, 1)])
    assert close(pipeline, DAY).period.unresolved == 1
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    assert codes(pipeline, batch_id) == [None, "period_closed"]
    assert close(pipeline, DAY).period.unresolved == 0
    assert sum(service.activities().values()) == 1


def test_who_has_seen_the_period_is_told_that_the_service_has_answered(
    pipeline: ExternalPipeline, asking: Settings, engine: Engine
) -> None:
    batch_id = pipeline.submit(mentors(1))
    commands = pipeline.commands(batch_id)
    with engine.begin() as connection:
        mark_questions(connection, [OutcomeKey(str(batch_id), 0, 1)])
    close(pipeline, DAY)
    with running_api(asking.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        seen = client.get(CLOSED_PERIOD_PATH)
        if_changed = {"If-None-Match": seen.headers["ETag"]}
        assert client.get(CLOSED_PERIOD_PATH, headers=if_changed).status_code == 304
        pipeline.handle(pipeline.registration, commands)
        answered = client.get(CLOSED_PERIOD_PATH, headers=if_changed)
    # The period itself has not changed.
    assert (seen.json()["version"], seen.json()["unresolved"]) == (1, 1)
    assert answered.status_code == 200, "an answer of the service leaves the tag as it was"
    assert (answered.json()["version"], answered.json()["unresolved"]) == (1, 0)


def test_a_closing_waits_for_the_mark_of_a_request(pipeline: ExternalPipeline, engine: Engine) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.commands(batch_id)
    with looking(engine) as watcher, ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            mark_questions(connection, [OutcomeKey(str(batch_id), 0, 1)])
            closing = pool.submit(close, pipeline, DAY)
            eventually(lambda: watcher.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())
        assert closing.result(PATIENCE_S).period.unresolved == 1
    pipeline.drain()
