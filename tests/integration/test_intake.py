"""Batches that upstream services send as events: a test for each sentence of docs/events.md about them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import permutations
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, text
from sqlalchemy.exc import ProgrammingError

from consumers.loop.handler import Handled
from consumers.splitter import SplitterHandler
from consumers.upkeep.sweeper import Sweeper, SweepPolicy, Swept
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Actor, RetryRequest, Role
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items
from orchestrator.batches.states import Counts
from orchestrator.process.settings import Settings
from orchestrator.storage.backlog import read_backlog
from orchestrator.storage.database import create_database_engine, transact
from schemas.api import RefusedRequestError, read_submission
from schemas.envelope import OutgoingEvent, Topic
from schemas.events import (
    BATCH_COMPLETED,
    BATCH_REJECTED,
    MAX_PART_BYTES,
    MAX_PART_ITEMS,
)
from schemas.mistakes import MOST_MISTAKES
from tests.support.databases import fresh_database
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors, record, standard_directory
from tests.support.stack import Stack
from tests.support.upstream import SOURCE, TRACE, Data, in_parts, structured, submitted, upstream_item, upstream_items
from tests.support.waiting import eventually

NOTHING = Handled([], [])
OTHER = Actor("org-other", "boss", Role.ADMIN)


@pytest.fixture(scope="module")
def refusing(infrastructure: Stack, template_database: str) -> Iterator[Pipeline]:
    """A pipeline for what is refused: many tests, and nothing that one leaves to the next."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        engine = create_database_engine(settings.worker_url, settings, connections=5, application_name="test")
        standard_directory(engine)
        pipeline = Pipeline(settings, engine)
        yield pipeline
        pipeline.close()
        engine.dispose()


def take_in(pipeline: Pipeline, *events: OutgoingEvent) -> Handled:
    """The splitter takes these in, as one micro-batch."""
    return pipeline.handle(pipeline.splitter, events)


def answers(pipeline: Pipeline, event_type: str = BATCH_REJECTED) -> list[Data]:
    """The data of the lifecycle events of a type that have been published since the last time; the others are forgotten."""
    return [orjson.loads(event.value) for event in answer_events(pipeline, event_type)]


def answer_events(pipeline: Pipeline, event_type: str = BATCH_REJECTED) -> list[OutgoingEvent]:
    pipeline.relay()
    return [event for event in pipeline.take(Topic.LIFECYCLE) if dict(event.headers)["ce_type"] == event_type.encode()]


def places(rejection: Data) -> set[tuple[str, str]]:
    return {(problem["pointer"], problem["code"]) for problem in rejection["problems"]}


def is_unknown(pipeline: Pipeline, batch_id: UUID) -> bool:
    """Whether GET answers 404."""
    try:
        pipeline.status(batch_id)
    except NotFoundError:
        return True
    return False


def assert_completed(pipeline: Pipeline, batch_id: UUID, total: int) -> None:
    """All items are registered, each once."""
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts) == ("completed", Counts(completed=total))
    assert [one.position for one in view.items] == list(range(total))
    with pipeline.engine.begin() as connection:
        found = connection.execute(text("SELECT count(*) FROM registration.activity WHERE batch_id = :id"), {"id": batch_id})
        assert found.scalar_one() == total


# --- The envelope, and what comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [lambda event: event, structured], ids=["binary", "structured"])
def test_an_upstream_batch_is_registered_and_its_completion_announced(
    pipeline: Pipeline, mode: Callable[[OutgoingEvent], OutgoingEvent]
) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, [upstream_item(0, notes="a note"), upstream_item(1, client_reference="row 7")])
    assert not take_in(pipeline, mode(event)).refused
    assert_completed(pipeline, batch_id, 2)
    view = pipeline.status(batch_id)
    assert (view.batch.coordinator_id, view.batch.label) == (COORDINATOR, "Monday group")
    assert (view.batch.submitted_by, view.batch.channel, view.batch.trace_id) == (SOURCE, SOURCE, TRACE)
    assert (view.items[0].values.notes, view.items[1].client_reference) == ("a note", "row 7")
    [completed] = answer_events(pipeline, BATCH_COMPLETED)
    headers = dict(completed.headers)
    assert completed.key == str(batch_id)
    assert headers["traceparent"].decode().split("-")[1] == TRACE
    data = orjson.loads(completed.value)
    assert (data["batch_id"], data["status"], data["completed"], data["retry_number"]) == (str(batch_id), "completed", 2, 0)


def test_completion_is_announced_once_and_again_after_a_retry(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, [upstream_item(0), upstream_item(1, "nobody")])
    take_in(pipeline, event)
    commands = pipeline.take(Topic.COMMANDS)
    results = pipeline.handle(pipeline.registration, commands).events
    pipeline.handle(pipeline.aggregator, results)
    [first] = answer_events(pipeline, BATCH_COMPLETED)
    # Everything once more, as after a crash of each role.
    take_in(pipeline, event)
    pipeline.handle(pipeline.registration, commands)
    pipeline.handle(pipeline.aggregator, results)
    pipeline.drain()
    assert answer_events(pipeline, BATCH_COMPLETED) == []
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    [second] = answer_events(pipeline, BATCH_COMPLETED)
    assert [orjson.loads(each.value)["retry_number"] for each in (first, second)] == [0, 1]
    assert dict(first.headers)["ce_id"] != dict(second.headers)["ce_id"]


# --- Idempotency by the batch id ------------------------------------------------------------------------------------------------


def test_the_same_batch_again_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    items = upstream_items(3)
    take_in(pipeline, submitted(batch_id, items, invented="ignored"), submitted(batch_id, items))
    assert_completed(pipeline, batch_id, 3)
    before = pipeline.status(batch_id).batch
    spelt_out = submitted(batch_id, items[::-1], part=1, parts=1, total_items=3, override_duplicates=False)
    for event in (submitted(batch_id, items), structured(submitted(batch_id, items)), spelt_out):
        assert take_in(pipeline, event) == NOTHING
    assert pipeline.status(batch_id).batch.version == before.version
    assert answers(pipeline) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "Tuesday group"},
        {"override_duplicates": True},
        {"coordinator_id": "coord-2"},
        {"total_items": 4},
        {"items": [*upstream_items(2), upstream_item(2, notes="another")]},
        {"items": [*upstream_items(2), upstream_item(2, client_reference="row 9")]},
        {"items": [*upstream_items(2), upstream_item(2, duration_minutes=61)]},
        {"items": upstream_items(2)},
    ],
    ids=str,
)
def test_other_content_under_the_same_id_is_refused_and_the_batch_goes_on(pipeline: Pipeline, fields: Data) -> None:
    batch_id = uuid4()
    take_in(pipeline, submitted(batch_id, upstream_items(3)))
    changed = submitted(batch_id, fields.pop("items", upstream_items(3)), event_id="event-2", **fields)
    [(_, refusal)] = take_in(pipeline, changed).refused
    assert refusal.reason == "batch_differs"
    [rejection] = answers(pipeline)
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (True, "event-2")
    assert places(rejection) == {("/batch_id", "batch_differs")}
    assert_completed(pipeline, batch_id, 3)


@pytest.mark.parametrize("is_malformed", [False, True], ids=["well formed", "malformed"])
@pytest.mark.parametrize("sizes", [[3], [2, 1]], ids=["running", "collecting"])
def test_an_id_that_another_organization_has_used_is_refused_without_saying_more(
    pipeline: Pipeline, sizes: list[int], is_malformed: bool
) -> None:
    batch_id = uuid4()
    first, *others = in_parts(batch_id, sizes)
    take_in(pipeline, first)
    items = [{}] if is_malformed else upstream_items(3)
    [(_, refusal)] = take_in(pipeline, submitted(batch_id, items, organization_id=OTHER.organization_id)).refused
    [rejection] = answers(pipeline)
    assert (refusal.reason, rejection["batch_continues"]) == ("batch_id_taken", True)
    assert [problem["code"] for problem in rejection["problems"]] == ["batch_id_taken"]
    assert rejection["organization_id"] == OTHER.organization_id
    assert ORGANIZATION not in orjson.dumps(rejection).decode()
    take_in(pipeline, *others)
    assert_completed(pipeline, batch_id, 3)


def purge(pipeline: Pipeline, batch_id: UUID) -> None:
    """What a purge leaves: a tombstone."""
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("""INSERT INTO orchestrator.tombstone
                    SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch WHERE batch_id = :id"""),
            {"id": batch_id},
        )
        for table in ("outcome", "batch_item", "batch_part", "batch"):
            connection.execute(text(f"DELETE FROM orchestrator.{table} WHERE batch_id = :id"), {"id": batch_id})


def test_a_purged_batch_is_never_resurrected(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, upstream_items(3))
    take_in(pipeline, event)
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    assert take_in(pipeline, event) == NOTHING, "deleted, not yet purged"
    purge(pipeline, batch_id)
    pipeline.drain()
    answers(pipeline)
    assert take_in(pipeline, event) == NOTHING
    assert answers(pipeline) == []
    for foreign, code in (({"label": "another"}, "batch_differs"), ({"organization_id": "org-other"}, "batch_id_taken")):
        [(_, refusal)] = take_in(pipeline, submitted(batch_id, upstream_items(3), **foreign)).refused
        assert refusal.reason == code
    assert is_unknown(pipeline, batch_id)


# --- Parts ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_parts_may_come_in_any_order_and_twice(pipeline: Pipeline, order: tuple[int, ...]) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 2, 1])
    first, second, last = (parts[index] for index in order)
    for event in (first, first, second, first):
        assert take_in(pipeline, event) == NOTHING
        view = pipeline.status(batch_id)
        assert (view.batch.status, view.batch.counts, list(view.items)) == ("pending", Counts(pending=5), [])
    take_in(pipeline, last)
    assert pipeline.status(batch_id).batch.status == "processing"
    take_in(pipeline, last, second)
    assert_completed(pipeline, batch_id, 5)
    assert answers(pipeline) == []


def test_only_a_batch_whose_parts_have_all_come_keeps_others_out(pipeline: Pipeline) -> None:
    *first, last = in_parts(uuid4(), [2, 2, 1])
    take_in(pipeline, *first)
    assert transact(pipeline.api, read_backlog).pending == 0
    take_in(pipeline, last)
    assert transact(pipeline.api, read_backlog).pending == 5
    with pytest.raises(ProgrammingError, match="permission denied"):
        transact(pipeline.engine, read_backlog)


def test_parts_that_come_together_are_expanded_together(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    handled = take_in(pipeline, *reversed(in_parts(batch_id, [2, 2, 1])))
    assert len(handled.events) == 5
    pipeline.relay()
    assert pipeline.take(Topic.BATCHES) == [], "nothing is left to publish again"
    assert_completed(pipeline, batch_id, 5)


def test_parts_are_published_again_without_their_notes(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    noted = [upstream_item(position, notes=f"canary {position}") for position in range(3)]
    for part in (1, 2, 3):
        take_in(pipeline, submitted(batch_id, noted[part - 1 : part], part=part, parts=3, total_items=3))
    pipeline.relay()
    again = pipeline.take(Topic.BATCHES)
    assert [orjson.loads(event.value)["part"] for event in again] == [1, 2]
    assert not any(b"canary" in event.value for event in again)
    assert len(take_in(pipeline, *again).events) == 2
    assert_completed(pipeline, batch_id, 3)
    assert [one.values.notes for one in pipeline.status(batch_id).items] == ["canary 0", "canary 1", "canary 2"]


def handle_beside(pipeline: Pipeline, mine: Sequence[OutgoingEvent], rivals: Sequence[OutgoingEvent]) -> None:
    """A transaction takes in some events, and while it is open, another one others; it has to wait, and decides after the commit."""

    def rival(connection: Connection) -> Handled:
        return pipeline.splitter.handle(connection, [record(event) for event in rivals])

    with ThreadPoolExecutor(1) as threads:
        with pipeline.engine.begin() as connection:
            handled = [pipeline.splitter.handle(connection, [record(event) for event in mine])]
            waiting = threads.submit(transact, pipeline.engine, rival)
            eventually(lambda: _waits_for_a_lock(pipeline))
        handled.append(waiting.result())
    for each in handled:
        pipeline.queues[Topic.COMMANDS] += each.events


def _waits_for_a_lock(pipeline: Pipeline) -> bool:
    with pipeline.engine.begin() as connection:
        waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database = "
        waiting += "(SELECT oid FROM pg_database WHERE datname = current_database()))"
        return bool(connection.execute(text(waiting)).scalar_one())


@pytest.mark.parametrize(("mine", "rivals"), [([0], [1]), ([1], [0]), ([0], [0, 1]), ([0, 1], [0]), ([0, 1], [0, 1])], ids=str)
def test_parts_taken_in_at_the_same_time_make_one_batch(pipeline: Pipeline, mine: list[int], rivals: list[int]) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 1])
    handle_beside(pipeline, [parts[index] for index in mine], [parts[index] for index in rivals])
    assert_completed(pipeline, batch_id, 3)
    assert len(answers(pipeline, BATCH_COMPLETED)) == 1


def test_whole_batches_taken_in_at_the_same_time_are_one(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, upstream_items(3))
    handle_beside(pipeline, [event], [event])
    assert_completed(pipeline, batch_id, 3)


def test_splitters_that_take_in_the_same_batches_in_other_orders_do_not_block_each_other(pipeline: Pipeline) -> None:
    batches = [uuid4() for _ in range(20)]
    halves = [[in_parts(batch_id, [1, 1], label=str(batch_id))[half] for batch_id in batches[:: 1 - 2 * half]] for half in (0, 1)]
    barrier = threading.Barrier(2)

    def work(events: Sequence[OutgoingEvent]) -> Handled:
        barrier.wait()
        # Not `transact`: that would try again after a deadlock.
        with pipeline.engine.begin() as connection:
            return pipeline.splitter.handle(connection, [record(event) for event in events])

    with ThreadPoolExecutor(2) as threads:
        for handled in threads.map(work, halves):
            assert not handled.refused
    assert {pipeline.status(batch_id).batch.status for batch_id in batches} == {"processing"}


# --- What a part can have wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"total_items": 4}, {"parts": 3}, {"label": "another"}, {"coordinator_id": "coord-9"}], ids=str
)
def test_parts_that_disagree_are_refused_and_the_first_ones_stay(pipeline: Pipeline, fields: Data) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    disagreeing = submitted(batch_id, upstream_items(1, 2), **{"part": 2, "parts": 2, "total_items": 3, **fields})
    [(_, refusal)] = take_in(pipeline, disagreeing).refused
    [rejection] = answers(pipeline)
    assert (refusal.reason, rejection["batch_continues"]) == ("batch_differs", True)
    take_in(pipeline, second)
    assert_completed(pipeline, batch_id, 3)


WRONG_PARTS: dict[str, tuple[Data, set[tuple[str, str]]]] = {
    "part beyond parts": ({"part": 3}, {("/part", "out_of_range")}),
    "too many items in all": ({"total_items": 10_001}, {("/total_items", "too_many_items")}),
    "positions beyond the total": (
        {"items": [upstream_item(2), upstream_item(3), upstream_item(9)]},
        {("/items/1/position", "out_of_range"), ("/items/2/position", "out_of_range")},
    ),
    "a position twice": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(2)]},
        {("/items/0/position", "duplicate_position"), ("/items/1/position", "duplicate_position")},
    ),
    "a mentor twice": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(1, "mentor-7")]},
        {("/items/0/mentor_id", "duplicate_mentor"), ("/items/1/mentor_id", "duplicate_mentor")},
    ),
    "unknown coordinator": ({"coordinator_id": "nobody"}, {("/coordinator_id", "coordinator_unknown")}),
    "no items": ({"items": []}, {("/items", "no_items")}),
    "more than 500 items": ({"items": upstream_items(501), "total_items": 1_000}, {("/items", "too_many_items")}),
    "more than 512 KB": (
        {"items": [upstream_item(position, notes="n" * 9_000) for position in range(60)], "total_items": 1_000},
        {("", "too_large")},
    ),
    "malformed": (
        {"items": [upstream_item(2, duration_minutes="60"), "nothing"], "part": "2", "label": 7},
        {
            ("/items/0/duration_minutes", "wrong_type"),
            ("/items/1", "wrong_type"),
            ("/part", "wrong_type"),
            ("/label", "wrong_type"),
        },
    ),
    "position beyond all": ({"items": [upstream_item(1 << 20)]}, {("/items/0/position", "out_of_range")}),
    "everything at once": (
        {"items": [upstream_item(2, "mentor-7"), upstream_item(9, "mentor-7")], "part": 3, "coordinator_id": "nobody"},
        {
            ("/part", "out_of_range"),
            ("/items/1/position", "out_of_range"),
            ("/items/0/mentor_id", "duplicate_mentor"),
            ("/items/1/mentor_id", "duplicate_mentor"),
            ("/coordinator_id", "coordinator_unknown"),
        },
    ),
}


@pytest.mark.parametrize(("fields", "expected"), WRONG_PARTS.values(), ids=WRONG_PARTS)
def test_a_part_that_is_wrong_in_itself_is_dead_lettered_and_the_batch_rejected(
    refusing: Pipeline, fields: Data, expected: set[tuple[str, str]]
) -> None:
    batch_id = uuid4()
    fields = {"items": upstream_items(1, 2), "part": 2, "parts": 2, "total_items": 3, **fields}
    wrong = submitted(batch_id, event_id="event-2", **fields)
    [first, _] = in_parts(batch_id, [2, 1], **{name: value for name, value in fields.items() if name == "coordinator_id"})
    # The total agrees, so that it is not that which is wrong.
    first = first._replace(value=orjson.dumps(orjson.loads(first.value) | {"total_items": fields["total_items"]}))
    take_in(refusing, first)
    answers(refusing)
    [(_, refusal)] = take_in(refusing, wrong).refused
    [rejection] = answers(refusing)
    assert refusal.reason in {code for _, code in expected}
    assert places(rejection) == expected
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (False, "event-2")
    assert (rejection["batch_id"], rejection["organization_id"]) == (str(batch_id), ORGANIZATION)
    assert is_unknown(refusing, batch_id)


def test_a_wrong_part_leaves_a_batch_alone_that_is_whole(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    take_in(pipeline, *in_parts(batch_id, [2, 1]))
    beyond = submitted(batch_id, upstream_items(1), part=3, parts=2, total_items=3)
    malformed = submitted(batch_id, [{}])
    assert len(take_in(pipeline, beyond, malformed).refused) == 2
    assert [rejection["batch_continues"] for rejection in answers(pipeline)] == [True, True]
    assert_completed(pipeline, batch_id, 3)


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([upstream_item(1, "mentor-9")], {("/items/1/position", "duplicate_position")}),
        (
            [upstream_item(2, "mentor-1")],
            {("/items/0/mentor_id", "duplicate_mentor"), ("/items/2/mentor_id", "duplicate_mentor")},
        ),
    ],
    ids=["positions overlap", "a mentor in two parts"],
)
def test_a_batch_is_validated_as_a_whole_and_rejected_as_a_whole(
    pipeline: Pipeline, second: list[Data], expected: set[tuple[str, str]]
) -> None:
    batch_id = uuid4()
    take_in(pipeline, submitted(batch_id, upstream_items(2), part=1, parts=2, total_items=3))
    handled = take_in(pipeline, submitted(batch_id, second, part=2, parts=2, total_items=3, event_id="event-2"))
    assert (len(handled.refused), list(handled.events)) == (1, [])
    [rejection] = answers(pipeline)
    assert places(rejection) == expected
    assert (rejection["batch_continues"], rejection["rejected_event_id"]) == (False, "event-2")
    assert is_unknown(pipeline, batch_id)
    take_in(pipeline, *in_parts(batch_id, [2, 1]))
    assert_completed(pipeline, batch_id, 3)


def test_positions_that_are_missing_are_named(refusing: Pipeline) -> None:
    batch_id = uuid4()
    take_in(refusing, submitted(batch_id, [upstream_item(0), upstream_item(3)], total_items=5))
    [rejection] = answers(refusing)
    [problem] = rejection["problems"]
    assert (problem["pointer"], problem["code"]) == ("/items", "missing_positions")
    assert problem["detail"].endswith("missing: 1, 2 and 4")


def test_a_repeated_rejection_has_the_bytes_of_the_first(refusing: Pipeline) -> None:
    event = submitted(uuid4(), upstream_items(1), coordinator_id="nobody", event_id="event-1")
    malformed = submitted(uuid4(), [{}], event_id="event-2")
    take_in(refusing, event, malformed)
    first = answer_events(refusing)
    take_in(refusing, event, malformed)
    assert answer_events(refusing) == first
    assert {dict(each.headers)["traceparent"].decode().split("-")[1] for each in first} == {TRACE}


def test_a_long_list_of_problems_is_cut_after_a_hundred(refusing: Pipeline) -> None:
    take_in(refusing, submitted(uuid4(), [0] * 200_000))
    [rejection] = answers(refusing)
    assert [problem["code"] for problem in rejection["problems"]] == [
        "too_many_items",
        *["wrong_type"] * (MOST_MISTAKES - 1),
        "too_many_mistakes",
    ]
    batch_id = uuid4()
    same = [upstream_item(position, "mentor-1") for position in range(6_000)]
    for part in range(12):
        items = same[part * MAX_PART_ITEMS : (part + 1) * MAX_PART_ITEMS]
        # Each mentor is right in the part, and twice in the batch.
        day = [one | {"activity_date": f"20{index // 28 + 10:02}-01-{index % 28 + 1:02}"} for index, one in enumerate(items)]
        take_in(refusing, submitted(batch_id, day, part=part + 1, parts=12, total_items=6_000))
    [event] = answer_events(refusing)
    problems = orjson.loads(event.value)["problems"]
    assert [problem["code"] for problem in problems] == ["duplicate_mentor"] * MOST_MISTAKES + ["too_many_mistakes"]
    assert len(event.value) < 64 * 1024


def test_a_batch_whose_parts_are_too_large_together_is_rejected_and_may_be_sent_again(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    parts = in_parts(batch_id, [2, 1])
    handler = SplitterHandler(
        bulk_threshold_items=100, max_items=10, max_batch_bytes=len(parts[0].value) + len(parts[1].value) - 1
    )
    pipeline.handlers = (handler, *pipeline.handlers[1:])
    take_in(pipeline, *parts)
    [rejection] = answers(pipeline)
    assert (places(rejection), rejection["batch_continues"]) == ({("", "too_large")}, False)
    assert is_unknown(pipeline, batch_id)
    take_in(pipeline, submitted(uuid4(), [upstream_item(0, notes="n" * len(parts[0].value) * 2)]))
    assert places(answers(pipeline)[-1]) == {("", "too_large")}
    pipeline.handlers = (SplitterHandler(bulk_threshold_items=100, max_items=10), *pipeline.handlers[1:])
    take_in(pipeline, *parts)
    assert_completed(pipeline, batch_id, 3)


# --- The same problems as over HTTP -----------------------------------------------------------------------------------------------

BAD_ITEMS: dict[str, list[object]] = {
    "wrong types": [upstream_item(0, duration_minutes="60", notes=3), upstream_item(1, activity_date=20260325)],
    "missing fields": [{"position": 0}],
    "not an object": [7, None, "text", []],
    "empty and long": [upstream_item(0, activity_type=""), upstream_item(1, "m" * 101), upstream_item(2, notes="n" * 10_001)],
    "no date": [upstream_item(0, activity_date="2026-02-30"), upstream_item(1, activity_date="25.03.2026")],
    "beyond 32 bits": [upstream_item(0, duration_minutes=1 << 31)],
    "NUL": [upstream_item(0, notes="a\x00b")],
    "a mentor twice": [upstream_item(0, "mentor-1"), upstream_item(1, "mentor-2"), upstream_item(2, "mentor-1")],
    "a mentor twice, and a mistake": [upstream_item(0, "m"), upstream_item(1, "m"), upstream_item(2, duration_minutes=None)],
    "no items": [],
}


@pytest.mark.parametrize("items", BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_the_problems_are_those_that_http_answers(refusing: Pipeline, items: list[object]) -> None:
    without_positions = [
        {name: value for name, value in one.items() if name != "position"} if isinstance(one, dict) else one for one in items
    ]
    with pytest.raises(RefusedRequestError) as refused:
        read_submission({"items": without_positions}, max_items=MAX_PART_ITEMS)
    take_in(refusing, submitted(uuid4(), items))
    [rejection] = answers(refusing)
    assert rejection["problems"] == [mistake._asdict() for mistake in refused.value.mistakes]


# --- Batches whose parts never all come -------------------------------------------------------------------------------------------


def test_cancel_ends_a_batch_that_is_being_collected(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    cancelled = pipeline.call(cancel_batch, ADMIN, batch_id, "a mistake")
    assert (cancelled.batch.status, cancelled.batch.counts) == ("cancelled", Counts(cancelled=3))
    pipeline.relay()
    assert [dict(event.headers)["ce_type"].decode() for event in pipeline.queues[Topic.LIFECYCLE]] == [BATCH_REJECTED]
    [rejection] = answers(pipeline)
    assert (places(rejection), rejection["batch_continues"]) == ({("/parts", "incomplete")}, False)
    for event in (second, first):
        assert take_in(pipeline, event) == NOTHING
    assert pipeline.status(batch_id).batch.counts == Counts(cancelled=3)
    pipeline.call(delete_batch, ADMIN, batch_id)
    for event in (second, first):
        assert take_in(pipeline, event) == NOTHING
    pipeline.drain()
    assert is_unknown(pipeline, batch_id)


@pytest.mark.parametrize(("age_hours", "is_ended"), [(23, False), (25, True)])
def test_a_day_without_the_missing_parts_ends_a_batch(
    pipeline: Pipeline, settings: Settings, age_hours: int, is_ended: bool
) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    with pipeline.engine.begin() as connection:
        aged = "UPDATE orchestrator.batch SET submitted_at = submitted_at - CAST(:age AS interval)"
        connection.execute(text(aged), {"age": timedelta(hours=age_hours)})
    swept = Sweeper(SweepPolicy.of(settings), lambda _topics: {}).sweep(pipeline.engine)
    assert swept == Swept(batches_ended=int(is_ended))
    assert is_unknown(pipeline, batch_id) == is_ended
    assert [places(rejection) for rejection in answers(pipeline)] == [{("/parts", "incomplete")}] * is_ended
    take_in(pipeline, second, first)
    assert_completed(pipeline, batch_id, 3)


def test_a_part_that_comes_while_the_batch_is_cancelled_changes_nothing(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    first, second = in_parts(batch_id, [2, 1])
    take_in(pipeline, first)
    with ThreadPoolExecutor(1) as threads:
        with pipeline.engine.begin() as connection:
            pipeline.splitter.handle(connection, [record(second)])
            cancelling = threads.submit(pipeline.call, cancel_batch, ADMIN, batch_id, None)
            eventually(lambda: _waits_for_a_lock(pipeline))
        cancelling.result()
    pipeline.drain()
    view = pipeline.status(batch_id)
    assert (view.batch.status, view.batch.counts) == ("cancelled", Counts(cancelled=3))
    assert [one.status for one in view.items] == ["cancelled"] * 3, "whole when the cancel got the lock"


# --- Our own events ---------------------------------------------------------------------------------------------------------------


def test_our_own_events_are_parts_of_at_most_500_items_and_512_kb(pipeline: Pipeline) -> None:
    long = "\N{PERSON WITH HEADSCARF}" * 94
    items = [item(f"{long}{position:06}", kind=long)._replace(client_reference=long) for position in range(1_100)]
    batch_id = pipeline.submit(items, label=long)
    pipeline.relay()
    parts = pipeline.queues[Topic.BATCHES]
    sizes = [len(orjson.loads(event.value)["items"]) for event in parts]
    assert sum(sizes) == 1_100
    assert max(sizes) < MAX_PART_ITEMS
    assert MAX_PART_BYTES * 0.9 < max(len(event.value) for event in parts) <= MAX_PART_BYTES
    assert not any(take_in(pipeline, event).refused for event in pipeline.take(Topic.BATCHES))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts == Counts(failed=1_100)


def test_short_items_travel_in_parts_of_500(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(1_001))
    pipeline.relay()
    assert [len(orjson.loads(event.value)["items"]) for event in pipeline.queues[Topic.BATCHES]] == [500, 500, 1]
