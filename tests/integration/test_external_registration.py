"""Registration through an external service (docs/external-registration.md). tests/faults/test_service.py covers its faults."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Unpack
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, Engine, event, text

from consumers.external.adapter import ExternalRegistration, mark_questions
from consumers.loop.handler import Handled, Handler
from consumers.registration import RegistrationHandler
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.errors import ConflictError
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process import metrics
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.external import ExternalRegistrationService
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.storage.blame import TransientError
from orchestrator.storage.progress import Position, advance_progress
from orchestrator.storage.sweeping import Queue, Queues
from orchestrator.verification.verify import verify
from schemas.corrections import Correction
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.faults.every_interleaving import looking
from tests.support.closing import close
from tests.support.faulty_service import Fault, FaultyService, faulty_service, impatient
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, Pipeline, item, mentors, record, standard_directory
from tests.support.waiting import PATIENCE_S, eventually

NEVER = threading.Event()
ALL = RetryRequest()


class ExternalPipeline(Pipeline):
    """The flow. Its registration role asks the service first, as the loop does."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        super().__init__(settings, engine)
        self.external = ExternalRegistration(settings, engine)
        self.handlers = (self.handlers[0], RegistrationHandler(ExternalRegistrationService()), self.handlers[2])

    def handle(self, handler: Handler, events: Iterable[OutgoingEvent]) -> Handled:
        events = list(events)
        if handler is self.registration:
            self.external.prepare([record(event, offset) for offset, event in enumerate(events)], NEVER)
        return super().handle(handler, events)

    def commands(self, batch_id: UUID) -> list[OutgoingEvent]:
        """The commands of a new batch or a retry."""
        self.relay()
        self.handle(self.splitter, self.take(Topic.BATCHES))
        return [command for command in self.take(Topic.COMMANDS) if str(batch_id).encode() in command.value]

    def close(self) -> None:
        self.external.close()
        super().close()


@pytest.fixture
def service() -> Iterator[FaultyService]:
    with faulty_service() as service:
        yield service


@pytest.fixture
def asking(settings: Settings, service: FaultyService) -> Settings:
    return impatient(settings, service)


@pytest.fixture
def pipeline(asking: Settings, engine: Engine) -> Iterator[ExternalPipeline]:
    standard_directory(engine)
    pipeline = ExternalPipeline(asking, engine)
    yield pipeline
    # The invariants must hold after every test.
    assert verify(engine, asking).breaches == []
    pipeline.close()


def codes(pipeline: Pipeline, batch_id: UUID) -> list[str | None]:
    return [shown.error.code if shown.error else None for shown in pipeline.status(batch_id).items]


def correct(batch_id: UUID, position: int, **changes: Unpack[Correction]) -> RetryRequest:
    return RetryRequest(corrections=[CorrectedItem(DerivedIds(batch_id).item_id(position), changes)])


def completions(pipeline: Pipeline) -> int:
    pipeline.relay()
    return len(pipeline.queues[Topic.LIFECYCLE])


def test_each_item_has_one_request_which_names_who_did_what_and_who_registers(
    pipeline: ExternalPipeline, service: FaultyService
) -> None:
    registered = metrics.REGISTRATION_REQUESTS.labels("registered")._value
    before = registered.get()
    batch_id = pipeline.submit([item("mentor-1", notes="a private note"), item("mentor-2", minutes=90)])
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert view.batch.status == "completed"
    assert len(service.asked) == 2
    assert registered.get() - before == 2
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
        swept = sweeper.sweep(pipeline.engine)
        assert swept.given_up == 0
        resent += swept.resent
        pipeline.relay()
        pipeline.take(Topic.COMMANDS)
    assert resent > policy.max_resends
    assert pipeline.status(batch_id).batch.counts.pending == 1
    service.start()
    while not (swept := sweeper.sweep(pipeline.engine)).resent:
        assert swept.given_up == 0
    pipeline.drain()
    counts = pipeline.status(batch_id).batch.counts
    assert (counts.completed, counts.cancelled) == counted
    assert completions(pipeline) == 1


# --- After the setting was changed ----------------------------------------------------------------------------------------------


def in_process() -> RegistrationHandler:
    """The registration role after BULKREG_REGISTRATION_URL was removed."""
    return RegistrationHandler(InProcessRegistrationService(EARLIEST_YEAR))


def own_activities(pipeline: Pipeline) -> int:
    with pipeline.engine.begin() as connection:
        return int(connection.execute(text("SELECT count(*) FROM registration.activity")).scalar_one())


def decide(pipeline: ExternalPipeline, handler: RegistrationHandler, commands: Sequence[OutgoingEvent]) -> None:
    with pipeline.engine.begin() as connection:
        handled = handler.handle(connection, [record(command, offset) for offset, command in enumerate(commands)])
    for result in handled.events:
        pipeline.queues[Topic.RESULTS].append(result)
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))


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


# --- Closed periods -------------------------------------------------------------------------------------------------------------


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
