"""What was sent to an external registration service, after the setting was changed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from orchestrator.batches.operations import cancel_batch, retry_failed_items
from orchestrator.storage.blame import TransientError
from schemas.ids import DerivedIds
from tests.support.external import ALL, NEVER, ExternalPipeline, codes, correct, decide, in_process, own_activities
from tests.support.faulty_service import Fault, FaultyService
from tests.support.pipeline import ADMIN, Pipeline, mentors, record
from tests.support.waiting import PATIENCE_S, eventually


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.ERROR_AFTER_THE_WORK])
def test_cancelled_batch_gets_no_activity_after_the_setting_was_changed(
    pipeline: ExternalPipeline, service: FaultyService, fault: Fault
) -> None:
    batch_id = pipeline.submit(mentors(2))
    commands = pipeline.commands(batch_id)
    service.always = fault
    with pytest.raises(TransientError):
        pipeline.external.prepare([record(command) for command in commands], stopped_soon())
    assert pipeline.call(cancel_batch, ADMIN, batch_id, None).unresolved == 2
    decide(pipeline, in_process(), commands)
    assert own_activities(pipeline) == 0
    assert pipeline.status(batch_id).batch.counts.pending == 2, "only the service that was asked knows the outcomes"
    # With the setting restored, the service is asked.
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    counts = pipeline.status(batch_id).batch.counts
    assert (counts.completed, counts.cancelled) == ((2, 0) if fault is Fault.ERROR_AFTER_THE_WORK else (0, 2))


def test_item_in_doubt_is_registered_by_no_other_service(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(2))
    service.faults["mentor-1"].extend([Fault.ERROR_AFTER_THE_WORK] * 100)
    service.faults["mentor-2"].append(Fault.REFUSES)
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["registration_unavailable", "mentor_not_found"]
    service.faults.clear()
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    commands = pipeline.commands(batch_id)
    decide(pipeline, in_process(), commands)
    assert codes(pipeline, batch_id) == ["registration_unavailable", None], "the refused item must be registered in-process"
    assert own_activities(pipeline) == 1
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "completed"
    assert str(view.items[0].activity_id) == service.answers[f"{view.items[0].item_id}:0"]["activity_id"]
    assert (own_activities(pipeline), len(service.activities())) == (1, 1)


def test_mark_waits_for_an_in_process_registration_of_its_batch(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(1))
    commands = pipeline.commands(batch_id)
    with ThreadPoolExecutor(1) as threads, pipeline.engine.connect() as connection:
        with connection.begin():
            in_process().handle(connection, [record(command) for command in commands])
            rival = threads.submit(pipeline.external.prepare, [record(command) for command in commands], NEVER)
            eventually(lambda: waiting_for_locks(pipeline) == 1)
        rival.result(PATIENCE_S)
    assert (own_activities(pipeline), service.asked) == (1, [])
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()


def waiting_for_locks(pipeline: Pipeline) -> int:
    with pipeline.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one())


def stopped_soon() -> threading.Event:
    """The event that tells a role to stop, already set."""
    stopping = threading.Event()
    stopping.set()
    return stopping


def test_an_item_in_doubt_of_a_cancelled_batch_is_never_given_up(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(1))
    commands = pipeline.commands(batch_id)
    service.always = Fault.ERROR_AFTER_THE_WORK
    with pytest.raises(TransientError):
        pipeline.external.prepare([record(command) for command in commands], stopped_soon())
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    with pipeline.engine.begin() as connection:
        handled = pipeline.registration.give_up(connection, record(commands[0]), RuntimeError("a bug"))
    assert (list(handled.events), len(handled.refused)) == ([], 1)
    assert pipeline.status(batch_id).batch.counts.pending == 1
    service.always = None
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.completed == 1


def test_key_that_was_withdrawn_at_the_service_is_not_used_again(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(1))
    item_id = DerivedIds(batch_id).item_id(0)
    service.answers[f"{item_id}:0"] = {"key": f"{item_id}:0", "item_id": "", "status": "withdrawn"}
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["registration_unavailable"]
    pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, duration_minutes=30))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert [asked.key for asked in service.asked] == [f"{item_id}:0", f"{item_id}:1"]
