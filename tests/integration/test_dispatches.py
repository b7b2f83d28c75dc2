"""The stored dispatches of several items at once (test_external_states.py covers the states of one item)."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from orchestrator.batches.model import Actor, ItemError, NewBatch, NewItem, RetryRequest, Role
from orchestrator.batches.operations import cancel_batch, retry_failed_items, submit_bulk_registration
from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage.dispatch import (
    Dispatch,
    DispatchState,
    SettledDispatch,
    dispatches,
    mark_dispatched,
    positions_in_doubt,
    record_settled,
)
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors, record
from tests.support.plans import without_indexes
from tests.support.two_transactions import begun_meanwhile

REFUSAL = ItemError("mentor_not_found", "No", retryable=False)


def submit(pipeline: Pipeline, items: Sequence[NewItem]) -> str:
    batch = NewBatch(new_batch_id(), COORDINATOR, None, False, items, "ab" * 16)
    actor = Actor(ORGANIZATION, "the-sender", Role.SERVICE, channel="the-channel")
    pipeline.call(submit_bulk_registration, actor, batch)
    return str(batch.batch_id)


def mark(pipeline: Pipeline, *commands: tuple[str, int, int]) -> Sequence[Row[Any]]:
    with pipeline.engine.begin() as connection:
        return mark_dispatched(connection, [OutcomeKey(*command) for command in commands])


def answer(pipeline: Pipeline, *answers: SettledDispatch) -> None:
    with pipeline.engine.begin() as connection:
        record_settled(connection, answers)


def registered(batch_id: str, position: int, activity_id: UUID, refusals: int = 0) -> SettledDispatch:
    return SettledDispatch(batch_id, position, refusals, DispatchState.REGISTERED, str(activity_id), None)


def refused(batch_id: str, position: int, refusals: int = 0) -> SettledDispatch:
    return SettledDispatch(batch_id, position, refusals, DispatchState.REFUSED, None, REFUSAL)


def books(pipeline: Pipeline, *items: tuple[str, int]) -> Mapping[int, Dispatch]:
    with pipeline.engine.begin() as connection:
        return dispatches(connection, items)


def in_doubt(pipeline: Pipeline, batch_id: str, *positions: int) -> Sequence[int]:
    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        return positions_in_doubt(connection, UUID(batch_id), positions)


def test_each_question_has_the_values_of_its_item(pipeline: Pipeline) -> None:
    one = submit(pipeline, [item("mentor-1"), item("mentor-2", minutes=75, notes="a note"), item("mentor-3")])
    other = submit(pipeline, mentors(2, first=11))
    # The last one is of an attempt that the item is not in.
    rows = mark(pipeline, (other, 1, 1), (one, 1, 1), (one, 0, 1), (one, 2, 2))
    asked = {row.ord: (row.item_id, row.mentor_id) for row in rows}
    assert asked == {
        1: (str(DerivedIds(UUID(other)).item_id(1)), "mentor-12"),
        2: (str(DerivedIds(UUID(one)).item_id(1)), "mentor-2"),
        3: (str(DerivedIds(UUID(one)).item_id(0)), "mentor-1"),
    }
    [second] = [row for row in rows if row.ord == 2]
    values = item("mentor-2").values
    assert (second.organization_id, second.coordinator_id, second.submitted_by, second.channel, second.trace_id) == (
        ORGANIZATION,
        COORDINATOR,
        "the-sender",
        "the-channel",
        "ab" * 16,
    )
    assert (second.activity_type, second.activity_date, second.duration_minutes, second.notes) == (
        values.activity_type,
        values.activity_date,
        75,
        "a note",
    )
    assert (second.override_duplicates, second.is_cancelled, second.refusals) == (False, False, 0)
    assert sorted(books(pipeline, (one, 2), (one, 0), (other, 0), (other, 1))) == [1, 3]


def test_the_service_is_also_asked_for_an_organization_without_a_directory(pipeline: Pipeline) -> None:
    batch_id = submit(pipeline, mentors(2))
    with pipeline.engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.organization"))
    assert [row.ord for row in mark(pipeline, (batch_id, 0, 1), (batch_id, 1, 1))] == [1, 2]


def test_a_response_belongs_to_its_item_and_key_and_the_first_counts(pipeline: Pipeline) -> None:
    one, other = submit(pipeline, mentors(3)), submit(pipeline, mentors(3, first=11))
    mark(pipeline, *((batch_id, position, 1) for batch_id in (one, other) for position in range(3)))
    made, too_late = new_batch_id(), new_batch_id()
    answer(pipeline, refused(one, 0), registered(other, 1, made), registered(one, 2, made, refusals=1))
    answer(pipeline, registered(one, 0, too_late), refused(other, 1), registered(other, 1, too_late, refusals=1))
    found = books(pipeline, (other, 1), (one, 0), (one, 2), (other, 0), (one, 1))
    assert {index: (each.state, each.activity_id, each.error) for index, each in found.items()} == {
        0: (DispatchState.REGISTERED, str(made), None),
        1: (DispatchState.REFUSED, None, REFUSAL),
        2: ("asked", None, None),
        3: ("asked", None, None),
        4: ("asked", None, None),
    }
    assert {each.is_of_present_attempt for each in found.values()} == {True}
    assert [(row.ord, row.refusals) for row in mark(pipeline, (one, 0, 1), (other, 1, 1), (one, 2, 1))] == [(3, 0)]


def test_of_two_responses_that_come_at_once_the_first_counts(pipeline: Pipeline) -> None:
    batch_id, made = submit(pipeline, mentors(1)), new_batch_id()
    mark(pipeline, (batch_id, 0, 1))
    begun_meanwhile(
        pipeline.engine,
        lambda connection: record_settled(connection, [registered(batch_id, 0, made)]),
        lambda connection: record_settled(connection, [refused(batch_id, 0)]),
    )
    [found] = books(pipeline, (batch_id, 0)).values()
    assert (found.state, found.activity_id, found.error) == (DispatchState.REGISTERED, str(made), None)


def test_a_late_response_changes_nothing_although_another_of_its_position_counts(pipeline: Pipeline) -> None:
    """Both come in one call, for items of two batches with the same position."""
    one, other = submit(pipeline, mentors(1)), submit(pipeline, mentors(1, first=11))
    mark(pipeline, (one, 0, 1), (other, 0, 1))
    made = new_batch_id()
    answer(pipeline, registered(one, 0, made))
    answer(pipeline, refused(one, 0), refused(other, 0))
    found = books(pipeline, (one, 0), (other, 0))
    assert [(found[place].state, found[place].activity_id) for place in (0, 1)] == [
        (DispatchState.REGISTERED, str(made)),
        (DispatchState.REFUSED, None),
    ]


def test_only_an_item_that_the_service_may_have_registered_is_in_doubt(pipeline: Pipeline) -> None:
    one, other = submit(pipeline, mentors(6)), submit(pipeline, mentors(6, first=11))
    mark(pipeline, *((one, position, 1) for position in (4, 3, 2, 1)), (other, 0, 1), (other, 1, 1))
    answer(pipeline, refused(one, 1), registered(one, 2, new_batch_id()))
    answer(pipeline, SettledDispatch(one, 3, 0, DispatchState.WITHDRAWN, None, None))
    assert in_doubt(pipeline, one, 4, 3, 2, 1, 0) == [2, 4]
    assert in_doubt(pipeline, one, 3, 4) == [4]
    assert in_doubt(pipeline, one) == []
    # So a cancel leaves only these to the service's response.
    assert pipeline.call(cancel_batch, ADMIN, UUID(one), None).unresolved == 2
    statuses = {each.position: each.status for each in pipeline.status(UUID(one)).items}
    assert [position for position, status in statuses.items() if status == "pending"] == [2, 4]
    assert [position for position, status in statuses.items() if status == "cancelled"] == [0, 1, 3, 5]


def test_a_refused_item_is_sent_under_the_next_key_in_its_next_attempt(pipeline: Pipeline) -> None:
    batch_id = submit(pipeline, [item("nobody"), item("no one")])
    mark(pipeline, (batch_id, 0, 1), (batch_id, 1, 1))
    answer(pipeline, refused(batch_id, 0))
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, UUID(batch_id), RetryRequest())
    before = books(pipeline, (batch_id, 0), (batch_id, 1))
    assert [(before[place].state, before[place].is_of_present_attempt) for place in (0, 1)] == [
        ("refused", False),
        ("asked", False),
    ]
    assert mark(pipeline, (batch_id, 0, 1)) == [], "a question of an earlier attempt must be ignored"
    asked = mark(pipeline, (batch_id, 0, 2), (batch_id, 1, 2))
    # The other item never got a response, so its key stays the same.
    assert [(row.ord, row.refusals) for row in asked] == [(1, 1), (2, 0)]
    answer(pipeline, refused(batch_id, 0), refused(batch_id, 1))
    after = books(pipeline, (batch_id, 0), (batch_id, 1))
    assert [(after[place].state, after[place].error, after[place].is_of_present_attempt) for place in (0, 1)] == [
        ("asked", None, True),
        ("refused", REFUSAL, True),
    ]


def test_no_item_of_a_cancelled_batch_is_sent_again(pipeline: Pipeline) -> None:
    one, other = submit(pipeline, mentors(2)), submit(pipeline, mentors(2, first=11))
    mark(pipeline, (one, 0, 1))
    pipeline.call(cancel_batch, ADMIN, UUID(one), None)
    rows = mark(pipeline, (one, 1, 1), (one, 0, 1), (other, 0, 1))
    assert [(row.ord, row.is_cancelled) for row in rows] == [(2, True), (3, False)]
    found = books(pipeline, (one, 1), (one, 0), (other, 0))
    assert {index: each.is_cancelled for index, each in found.items()} == {1: True, 2: False}


def test_each_command_of_a_micro_batch_is_decided_by_its_items_dispatch(pipeline: Pipeline) -> None:
    """An earlier deployment had a service, and asked it for some of the items. The others are decided without asking it."""
    one = submit(pipeline, [item("mentor-1"), item("mentor-2"), item("nobody"), item("mentor-4"), item("mentor-5")])
    other = submit(pipeline, mentors(2, first=11))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = {(str(each.data.batch_id), each.data.position): event for event, each in received(pipeline)}
    mark(pipeline, (one, 0, 1), (one, 3, 1), (one, 4, 1), (other, 0, 1))
    made, made_too = new_batch_id(), new_batch_id()
    answer(pipeline, registered(one, 0, made), refused(one, 3), registered(other, 0, made_too))
    pipeline.call(cancel_batch, ADMIN, UUID(other), None)
    places = [(one, 1), (one, 0), (other, 0), (one, 2), (one, 3), (other, 1), (one, 4)]
    pipeline.handle(pipeline.registration, [commands[place] for place in places])
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    own = DerivedIds(UUID(one)).activity_id(1)
    items = pipeline.status(UUID(one)).items
    assert [(each.status, str(each.activity_id), each.error and each.error.code) for each in items] == [
        ("success", str(made), None),
        ("success", str(own), None),
        ("failed", "None", "mentor_not_found"),
        ("failed", "None", REFUSAL.code),
        ("failed", "None", "registration_unavailable"),
    ]
    assert [each.error.message == REFUSAL.message for each in items if each.error is not None] == [False, True, False]
    cancelled = pipeline.status(UUID(other)).items
    assert [(each.status, each.activity_id) for each in cancelled] == [("success", made_too), ("cancelled", None)]
    with pipeline.engine.begin() as connection:
        assert connection.execute(text("SELECT activity_id FROM registration.activity")).scalars().all() == [UUID(str(own))]


def received(pipeline: Pipeline) -> Sequence[tuple[OutgoingEvent, Any]]:
    return [(event, record(event)) for event in pipeline.take(Topic.COMMANDS)]
