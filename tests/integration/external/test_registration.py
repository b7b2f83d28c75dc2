"""Registration through an external service (docs/external-registration.md). tests/faults/test_service.py covers its faults."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, event, text

from consumers.external.adapter import ExternalRegistration
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.errors import ConflictError
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items
from orchestrator.process import metrics
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queue, Queues
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.external import ALL, NEVER, ExternalPipeline, codes, correct
from tests.support.faulty_service import Fault, FaultyService
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors, record, standard_directory
from tests.support.shown import shown
from tests.support.sweeping import sweep
from tests.support.waiting import PATIENCE_S, eventually


def completions(pipeline: Pipeline) -> int:
    pipeline.relay()
    return len(pipeline.queues[Topic.LIFECYCLE])


def test_each_item_has_one_request_which_names_who_did_what_and_who_registers(
    pipeline: ExternalPipeline, service: FaultyService
) -> None:
    registered = metrics.REGISTRATION_REQUESTS.labels("registered")
    before = shown(registered)
    batch_id = pipeline.submit([item("mentor-1", notes="a private note"), item("mentor-2", minutes=90)])
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "completed"
    assert len(service.asked) == 2
    assert shown(registered) - before == 2
    ids = DerivedIds(batch_id)
    asked = service.posts("mentor-1")[0]
    assert asked.key == f"{ids.item_id(0)}:0"
    assert asked.body == {
        "item_id": str(ids.item_id(0)),
        "batch_id": str(batch_id),
        "organization_id": ADMIN.organization_id,
        "attributed_to": "mentor-1",
        "registered_by": COORDINATOR,
        "submitted_by": COORDINATOR,
        "channel": "api",
        "activity_type": "visit",
        "activity_date": "2026-03-25",
        "duration_minutes": 60,
        "notes": "a private note",
        "override_duplicates": False,
    }
    assert asked.headers["traceparent"].startswith("00-" + "0" * 31 + "1-")
    assert str(view.items[0].activity_id) == service.answers[asked.key]["activity_id"]


def test_a_refusal_is_final_and_uses_our_words(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes="a private note"), item("mentor-2"), item("mentor-3"), item("mentor-4")])
    rival = "01990000-0000-7000-8000-000000000001"
    service.refusals = {
        "mentor-1": {"code": "invalid_item", "field": "notes", "message": "bad notes: a private note"},
        "mentor-2": {"code": "duplicate_activity", "conflicting_activity_id": rival},
        "mentor-3": {"code": "quota_exceeded"},
    }
    for mentor in service.refusals:
        service.faults[mentor].append(Fault.REFUSES)
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts.failed) == ("partial", 3)
    errors = [shown.error for shown in view.items]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[2] is not None
    assert (errors[0].code, errors[0].field, "private" in str(errors)) == ("invalid_item", "notes", False)
    assert (errors[1].code, errors[1].conflicting_activity_id) == ("duplicate_activity", rival)
    assert (errors[2].code, errors[2].message) == (
        "invalid_item",
        "The registration service refused the item (quota_exceeded)",
    )
    assert len(service.asked) == 4, "a refusal must not be tried again"


def test_corrected_retry_after_a_refusal_has_a_new_key(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit([item("mentor-1")])
    service.faults["mentor-1"].append(Fault.REFUSES)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, duration_minutes=30))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    item_id = DerivedIds(batch_id).item_id(0)
    assert [asked.key for asked in service.asked] == [f"{item_id}:0", f"{item_id}:1"]
    assert [asked.body["duration_minutes"] for asked in service.asked] == [60, 30]


def test_item_in_doubt_is_retried_under_its_key_and_can_not_be_corrected(
    pipeline: ExternalPipeline, service: FaultyService
) -> None:
    batch_id = pipeline.submit(mentors(2))
    service.faults["mentor-1"].extend([Fault.ERROR_AFTER_THE_WORK] * 100)
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["registration_unavailable", None]
    with pytest.raises(ConflictError) as refused:
        pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, duration_minutes=30))
    assert refused.value.code == "item_in_doubt"
    service.faults.clear()
    assert pipeline.call(retry_failed_items, ADMIN, batch_id, ALL).retried == 1
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.items[0].attempt) == ("completed", 2)
    assert {asked.key for asked in service.posts("mentor-1")} == {f"{view.items[0].item_id}:0"}
    assert set(service.activities().values()) == {1}


def test_item_in_doubt_can_be_corrected_after_its_old_key_was_refused(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(1))
    service.always = Fault.ERROR
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["registration_unavailable"]
    service.always = Fault.REFUSES
    pipeline.call(retry_failed_items, ADMIN, batch_id, ALL)
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["mentor_not_found"]
    service.always = None
    pipeline.call(retry_failed_items, ADMIN, batch_id, correct(batch_id, 0, mentor_id="mentor-9"))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert [asked.key[-2:] for asked in service.posts("mentor-9")] == [":1"]


def test_an_item_that_the_service_can_not_handle_does_not_stop_others(pipeline: ExternalPipeline, service: FaultyService) -> None:
    batch_id = pipeline.submit(mentors(8))
    for number in range(1, 7):
        service.faults[f"mentor-{number}"].extend([Fault.ERROR] * 1_000)
    pipeline.drain()
    assert codes(pipeline, batch_id) == ["registration_unavailable"] * 6 + [None, None]


def test_concurrent_deliveries_of_the_same_commands_make_one_activity_each(
    pipeline: ExternalPipeline, asking: Settings, service: FaultyService
) -> None:
    batch_id = pipeline.submit(mentors(20))
    records = [record(command, offset) for offset, command in enumerate(pipeline.commands(batch_id))]
    service.always = Fault.SLOW
    begun = threading.Barrier(2)
    rival = ExternalRegistration(asking, pipeline.engine)

    def deliver(external: ExternalRegistration) -> Sequence[bytes]:
        begun.wait()
        external.prepare(records, NEVER)
        begun.wait()
        while True:
            # If two deliveries meet, one of them is told to try again.
            with suppress(TransientError), pipeline.engine.begin() as connection:
                return sorted(event.value for event in pipeline.registration.handle(connection, records).events)

    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(deliver, external) for external in (pipeline.external, rival)]
        results = [both[0].result(PATIENCE_S), both[1].result(PATIENCE_S)]
    rival.close()
    assert results[0] == results[1]
    assert set(service.activities().values()) == {1}
    assert len(service.activities()) == 20
    for event_of_one in pipeline.handle(pipeline.registration, pipeline.commands(batch_id)).events:
        pipeline.queues[Topic.RESULTS].append(event_of_one)


@pytest.mark.parametrize(
    "failpoint",
    [
        Failpoint.REGISTRATION_AFTER_DISPATCH_COMMIT,
        Failpoint.REGISTRATION_AFTER_ANSWERS,
        Failpoint.REGISTRATION_AFTER_ANSWERS_COMMIT,
    ],
)
def test_a_failure_between_request_and_outcome_is_repeated_under_the_same_key(
    pipeline: ExternalPipeline, asking: Settings, service: FaultyService, failpoint: Failpoint
) -> None:
    batch_id = pipeline.submit(mentors(3))
    commands = pipeline.commands(batch_id)
    failing = ExternalRegistration(asking.model_copy(update={"failpoints": f"{failpoint}=raise"}), pipeline.engine)
    with pytest.raises(InjectedError):
        failing.prepare([record(command) for command in commands], NEVER)
    failing.close()
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    assert set(service.activities().values()) == {1}
    keys = [asked.key for asked in service.asked]
    assert len(set(keys)) == 3
    assert len(keys) == (6 if failpoint is Failpoint.REGISTRATION_AFTER_ANSWERS else 3)


# --- Cancel ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.HANGS_AFTER_THE_WORK])
def test_cancel_waits_for_no_request_and_the_response_decides(
    pipeline: ExternalPipeline, asking: Settings, service: FaultyService, fault: Fault
) -> None:
    batch_id = pipeline.submit(mentors(4))
    commands = pipeline.commands(batch_id)
    service.faults["mentor-2"].append(fault)
    with ThreadPoolExecutor(1) as threads:
        delivery = threads.submit(pipeline.handle, pipeline.registration, commands[:2])
        eventually(lambda: len(service.asked) == 2)
        answer = pipeline.call(cancel_batch, ADMIN, batch_id, "a mistake")
        service.may_go_on.set()
        delivery.result(PATIENCE_S)
    counts = answer.batch.counts
    assert (answer.batch.status, answer.unresolved, counts.pending, counts.cancelled) == ("cancelled", 2, 2, 2)
    assert answer.batch.completed_at is None
    assert completions(pipeline) == 0
    assert pipeline.call(cancel_batch, ADMIN, batch_id, None).unresolved == 2
    with pytest.raises(ConflictError):
        pipeline.call(delete_batch, ADMIN, batch_id)
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts.completed, view.batch.counts.cancelled) == ("cancelled", 2, 2)
    assert view.batch.completed_at is not None
    assert completions(pipeline) == 1
    assert len([asked for asked in service.asked if asked.method == "POST"]) == 2, "nothing must be sent again"


def test_request_that_never_arrived_is_withdrawn_and_has_no_effect_later(
    pipeline: ExternalPipeline, asking: Settings, service: FaultyService
) -> None:
    batch_id = pipeline.submit(mentors(1))
    commands = pipeline.commands(batch_id)
    # The process stops after it has written the dispatch, and before the request.
    stopped = ExternalRegistration(
        asking.model_copy(update={"failpoints": f"{Failpoint.REGISTRATION_AFTER_DISPATCH_COMMIT}=raise"}), pipeline.engine
    )
    with pytest.raises(InjectedError):
        stopped.prepare([record(command) for command in commands], NEVER)
    stopped.close()
    assert pipeline.call(cancel_batch, ADMIN, batch_id, None).unresolved == 1
    pipeline.handle(pipeline.registration, commands)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.cancelled == 1
    assert [asked.method for asked in service.asked] == ["GET", "DELETE"]
    assert service.answers[service.asked[0].key]["status"] == "withdrawn"
    assert completions(pipeline) == 1


@pytest.mark.parametrize(("before", "counted"), [(Fault.ERROR_AFTER_THE_WORK, (1, 0)), (Fault.ERROR, (0, 1))])
def test_sweeper_asks_for_unresolved_items_until_the_service_responds(
    pipeline: ExternalPipeline, settings: Settings, service: FaultyService, before: Fault, counted: tuple[int, int]
) -> None:
    batch_id = pipeline.submit(mentors(1))
    commands = pipeline.commands(batch_id)
    service.always = before
    cancelled = threading.Event()

    def when_asked() -> None:
        eventually(lambda: service.asked)
        pipeline.call(cancel_batch, ADMIN, batch_id, None)
        service.stop()
        cancelled.set()

    with ThreadPoolExecutor(1) as threads:
        cancel = threads.submit(when_asked)
        with pytest.raises(TransientError):
            pipeline.external.prepare([record(command) for command in commands], cancelled)
        cancel.result(PATIENCE_S)
    # The command is lost, so only the sweeper can finish the item.
    pipeline.queues.clear()
    end: Queues = {(topic, 0): Queue(0, 1) for topic in (Topic.BATCHES, Topic.COMMANDS, Topic.COMMANDS_BULK)}
    policy = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_resends=2)
    sweeper = Sweeper(policy, lambda topics: {place: queue for place, queue in end.items() if place[0] in topics})
    with pipeline.engine.begin() as connection:
        advance_progress(connection, {place: Position(queue.next_offset) for place, queue in end.items()})
    resent = 0
    for _ in range(20):
        swept = sweep(sweeper, pipeline.engine)
        assert swept.given_up == 0
        resent += swept.resent
        pipeline.relay()
        pipeline.take(Topic.COMMANDS)
    assert resent > policy.max_resends
    assert pipeline.status(batch_id).batch.counts.pending == 1
    service.start()
    while not (swept := sweep(sweeper, pipeline.engine)).resent:
        assert swept.given_up == 0
    pipeline.drain()
    counts = pipeline.status(batch_id).batch.counts
    assert (counts.completed, counts.cancelled) == counted
    assert completions(pipeline) == 1


# --- Beside the service ---------------------------------------------------------------------------------------------------------


def test_in_process_registration_executes_no_additional_statement(settings: Settings, engine: Engine) -> None:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    statements: list[str] = []

    def note(_c: Connection, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    pipeline.submit(mentors(3))
    event.listen(engine, "before_cursor_execute", note)
    pipeline.drain()
    event.remove(engine, "before_cursor_execute", note)
    pipeline.close()
    assert any("registration.activity" in statement for statement in statements)
    # It learns from the batches' rows that no external service was ever asked, and runs no further statement.
    asked = [statement for statement in statements if "orchestrator.dispatch" in statement]
    assert all("FROM orchestrator.batch b WHERE batch_id = ANY" in statement for statement in asked)


def test_another_organizations_dispatches_are_hidden_from_the_api(pipeline: ExternalPipeline) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    for organization, expected in ((ADMIN.organization_id, 1), ("org-other", 0)):
        with pipeline.api.begin() as connection:
            connection.execute(text("SELECT set_config('bulkreg.organizations', :o, true)"), {"o": organization})
            assert connection.execute(text("SELECT count(*) FROM orchestrator.dispatch")).scalar_one() == expected


def test_notes_are_not_sent_unencrypted_to_another_machine() -> None:
    Settings(registration_url="https://registrations.example/v1")
    Settings(registration_url="http://127.0.0.1:8000")
    Settings(registration_url="http://registrations.example", registration_allow_plaintext=True)
    with pytest.raises(ValidationError, match="https unless its host is loopback"):
        Settings(registration_url="http://registrations.example")
