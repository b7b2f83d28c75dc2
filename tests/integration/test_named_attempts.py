"""What the database returns for the attempts that commands and results name: only existing ones, in the order of the names."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, text

from orchestrator.batches.model import CorrectedItem, ItemError, RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.states import ItemStatus, Outcome
from orchestrator.storage.blame import TransientError
from orchestrator.storage.expansion import pending_items
from orchestrator.storage.locks import share_batches
from orchestrator.storage.outcomes import NewOutcome, command_states, insert_outcomes
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.statements import read_statements
from orchestrator.storage.tombstones import purged_among, tombstones_among
from schemas.corrections import Correction
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors
from tests.support.plans import without_indexes
from tests.support.upstream import in_parts, submitted, upstream_item


def key(batch_id: UUID, position: int, attempt: int = 1) -> OutcomeKey:
    return OutcomeKey(str(batch_id), position, attempt)


def two_attempts(pipeline: Pipeline) -> UUID:
    """The first item has succeeded, the second is pending in its second attempt, and the third has failed."""
    batch_id = pipeline.submit([item("mentor-1"), item("nobody", minutes=45), item("no one")])
    pipeline.drain()
    changes: Correction = {"activity_type": "camp", "override_duplicates": True}
    correction = CorrectedItem(DerivedIds(batch_id).item_id(1), changes)
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[correction]))
    return batch_id


@pytest.mark.parametrize("file", ["expansion", "outcomes"])
def test_only_the_batches_of_the_named_items_are_read(pipeline: Pipeline, file: str) -> None:
    """Others would be left out later, but each transaction would read all batches that there are."""
    one, other, _ = (str(pipeline.submit(mentors(1, first=first))) for first in (1, 2, 3))
    statement = read_statements(f"orchestrator/storage/sql/{file}.sql")["batches"].text()
    with pipeline.engine.begin() as connection:
        read = [
            {row.batch_id for row in connection.execute(statement, {"batch_ids": named})}
            for named in ([one], [one, other], [str(uuid4())])
        ]
    assert read == [{one}, {one, other}, set()]


def test_states_of_commands(pipeline: Pipeline) -> None:
    """An attempt is new if the item is in it, and decided if it has an outcome. Any other is absent, and has no effect."""
    batch_id = two_attempts(pipeline)
    other = pipeline.submit(mentors(1, first=9))
    cancelled = pipeline.submit(mentors(1, first=8))
    pipeline.call(cancel_batch, ADMIN, cancelled, None)
    with pipeline.engine.begin() as connection:
        asked = "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
        connection.execute(text(f"{asked} VALUES (:id, 7, :org, 1, 'asked', now())"), {"id": other, "org": ORGANIZATION})
    keys = [
        key(batch_id, 1, 2),
        key(batch_id, 1, 3),
        key(batch_id, 3),
        key(uuid4(), 0),
        key(batch_id, 1, 1),
        key(batch_id, 0, 1),
        key(batch_id, 0, 2),
        key(other, 0),
        key(cancelled, 0),
    ]
    with pipeline.engine.begin() as connection:
        decided = {
            (row.batch_id, row.position, row.attempt): row
            for row in connection.execute(text("SELECT * FROM orchestrator.outcome"))
        }
        now, states = command_states(connection, keys)
        nothing = command_states(connection, [key(uuid4(), 0)])
    assert states.keys() == {0, 4, 5, 7, 8}
    assert nothing == (None, {})
    for index, expected in ((4, decided[batch_id, 1, 1]), (5, decided[batch_id, 0, 1]), (8, decided[cancelled, 0, 1])):
        said = states[index]
        assert (said.outcome, said.error and said.error.as_json(), said.decided_at) == (
            expected.outcome,
            expected.error,
            expected.created_at,
        )
        assert said.activity_id == (None if expected.activity_id is None else str(expected.activity_id))
    for index in (0, 7):
        assert (states[index].outcome, states[index].decided_at) == (None, now)
    assert states[4].error is not None
    assert states[5].activity_id is not None
    assert [states[index].is_cancelled for index in (0, 7, 8)] == [False, False, True]
    assert [states[index].has_dispatches for index in (0, 7, 8)] == [False, True, False]
    assert {state.organization_id for state in states.values()} == {ORGANIZATION}
    for index, state in states.items():
        assert state.item_id == str(DerivedIds(UUID(keys[index].batch_id)).item_id(keys[index].position))
        assert state.trace_id == "0" * 31 + "1"


def test_an_outcome_is_as_old_as_its_decision_and_not_as_its_transaction(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    clock = text("SELECT clock_timestamp()")
    with pipeline.engine.begin() as connection, pipeline.engine.begin() as another:
        connection.execute(text("SELECT 1"))
        later: datetime = another.execute(clock).scalar_one()
        share_batches(connection, [str(batch_id)])
        now, _ = command_states(connection, [key(batch_id, 0)])
        repository = PostgresActivityRepository(connection)
        assert now is not None
        assert later < now < repository.clock()
        assert later < repository.clock_and_coordinators(ORGANIZATION, {COORDINATOR})[0]
        batch = repository.find_batch(batch_id)
        assert batch is not None
        assert batch.measurement.read_at > now


def test_an_attempt_is_decided_once_and_a_set_is_decided_completely_or_not_at_all(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(3))
    at = pipeline.status(batch_id).batch.submitted_at + timedelta(seconds=5)
    failure = ItemError("mentor_not_found", 'says "no", \\ and {so on}', retryable=False)

    def decide(connection: Connection, positions: Sequence[int]) -> None:
        outcomes = [
            NewOutcome(key(batch_id, position, 1), ORGANIZATION, Outcome.FAILED, None, failure)
            if position
            else NewOutcome(key(batch_id, position, 1), ORGANIZATION, Outcome.SUCCESS, str(batch_id), None)
            for position in positions
        ]
        insert_outcomes(connection, outcomes, at)

    with pipeline.engine.begin() as connection:
        decide(connection, [1, 0])
    for again in ([2, 1], [1], [0, 2]):
        with pytest.raises(TransientError), pipeline.engine.begin() as connection:
            decide(connection, again)
    with pipeline.engine.begin() as connection:
        rows = connection.execute(text("SELECT * FROM orchestrator.outcome ORDER BY position")).all()
    assert [tuple(row) for row in rows] == [
        (batch_id, 0, 1, ORGANIZATION, "success", batch_id, None, at),
        (batch_id, 1, 1, ORGANIZATION, "failed", None, failure.as_json(), at),
    ]


def test_pending_attempts_are_expanded_with_their_own_values_in_the_order_of_the_keys(pipeline: Pipeline) -> None:
    batch_id, other = two_attempts(pipeline), pipeline.submit([item("mentor-7", kind="camp", minutes=15)])
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET trace_id = repeat('7', 32) WHERE batch_id = :id"), {"id": other})
        began = {
            (row.batch_id, row.position): row.attempt_at
            for row in connection.execute(text("SELECT * FROM orchestrator.batch_item"))
        }
        # 0 is decided, 1 is in its second attempt, 2 has failed, 3 does not exist.
        keys = [key(batch_id, 3), key(batch_id, 1, 1), key(other, 0), key(batch_id, 0), key(batch_id, 1, 2)]
        keys += [key(batch_id, 2), key(batch_id, 1, 3), key(uuid4(), 0)]
        found = list(pending_items(connection, keys))
    common = {"organization_id": ORGANIZATION, "coordinator_id": COORDINATOR, "activity_date": "2026-03-25"}
    assert [(one.index, one.attempt_at, one.trace_id, one.data) for one in found] == [
        (
            2,
            began[other, 0],
            "7" * 32,
            common
            | {
                "batch_id": str(other),
                "item_id": str(DerivedIds(other).item_id(0)),
                "position": 0,
                "attempt": 1,
                "mentor_id": "mentor-7",
                "activity_type": "camp",
                "duration_minutes": 15,
                "override_duplicates": False,
            },
        ),
        (
            4,
            began[batch_id, 1],
            "0" * 31 + "1",
            common
            | {
                "batch_id": str(batch_id),
                "item_id": str(DerivedIds(batch_id).item_id(1)),
                "position": 1,
                "attempt": 2,
                "mentor_id": "nobody",
                "activity_type": "camp",
                "duration_minutes": 45,
                "override_duplicates": True,
            },
        ),
    ]


def test_results_are_folded_only_into_the_attempt_that_they_name(pipeline: Pipeline) -> None:
    """A result of an earlier attempt, one of an undecided attempt, and one of a batch that is not locked."""
    batch_id, other = pipeline.submit([item("mentor-1"), item("nobody"), item("mentor-2")]), pipeline.submit([item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    # All but the last item of the first batch.
    commands = [one for one in pipeline.take(Topic.COMMANDS) if b"mentor-2" not in one.value]
    pipeline.handle(pipeline.registration, commands)
    unknown = key(uuid4(), 0)
    keys = [key(batch_id, 2), key(batch_id, 1), key(batch_id, 1, 2), unknown, key(batch_id, 0), key(other, 0)]
    with pipeline.engine.begin() as connection:
        repository = PostgresActivityRepository(connection)
        batches = repository.lock_for_fold([batch_id])
        folded = repository.fold(keys, batches)
        assert folded.unknown == [0, 2, 3]
        assert folded.changed == {batch_id: {ItemStatus.SUCCESS: 1, ItemStatus.FAILED: 1}}
        again = repository.fold(keys, batches)
        assert (again.changed, again.unknown) == ({}, [0, 2, 3])
    shown = [(one.status, one.activity_id is None, one.error is None) for one in pipeline.status(batch_id).items]
    assert shown == [("success", False, True), ("failed", True, False), ("pending", True, True)]
    assert [one.status for one in pipeline.status(other).items] == ["pending"]


def test_items_are_returned_by_position_wherever_their_rows_are(pipeline: Pipeline) -> None:
    """An updated row moves inside its table. The order must not depend on that."""
    batch_id = pipeline.submit([item("nobody-1"), *mentors(3), item("nobody-2")])
    other = pipeline.submit([item("nobody-1"), *mentors(3, first=9)])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(0)]))
    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        for position in (3, 1, 0):
            moved = text("UPDATE orchestrator.batch_item SET notes = 'moved' WHERE batch_id = :id AND position = :position")
            connection.execute(moved, {"id": batch_id, "position": position})
        connection.execute(text("UPDATE orchestrator.item_history SET retried_by = 'moved' WHERE attempt = 1"))
        repository = PostgresActivityRepository(connection)
        for status, expected in ((ItemStatus.SUCCESS, [1, 2, 3]), (ItemStatus.FAILED, [4]), (ItemStatus.PENDING, [0])):
            assert [one.position for one in repository.items_by_status(batch_id, status)] == expected
        assert [one.position for one in repository.items_at(batch_id, [3, 0, 9, 1])] == [0, 1, 3]
        assert [one.attempt for one in repository.history(batch_id, 0)] == [1, 2]
        assert [one.attempt for one in repository.history(batch_id, 4)] == [1]
        assert repository.history(batch_id, 1) == []
        values = [item("mentor-1"), item("mentor-2"), item("mentor-1", kind="camp"), item("mentor-9")]
        found = sorted(repository.positions_of_identities(batch_id, [one.values for one in values]))
        assert [(position, one.mentor_id) for position, one in found] == [(1, "mentor-1"), (2, "mentor-2")]
    assert [one.position for one in pipeline.status(batch_id).items] == [0, 1, 2, 3, 4]
    assert pipeline.status(other).batch.errors_by_code == {"mentor_not_found": 1}
    assert pipeline.status(batch_id).batch.errors_by_code == {"mentor_not_found": 1}


def test_a_cancel_names_its_items_by_position(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody"), *mentors(3)])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:1])
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    with pipeline.engine.begin() as connection:
        without_indexes(connection)
        repository = PostgresActivityRepository(connection)
        connection.execute(text("UPDATE orchestrator.batch_item SET notes = 'moved' WHERE position IN (0, 2)"))
        assert repository.cancel_pending(batch_id, repository.clock()) == [(0, 2), (1, 1), (2, 1), (3, 1)]


def test_parts_and_tombstones_are_found_by_their_batch(pipeline: Pipeline) -> None:
    whole, collecting, nobodys = uuid4(), uuid4(), uuid4()
    pipeline.handle(pipeline.splitter, [submitted(whole, [upstream_item(0, notes="noted")])])
    # The last part came first.
    first, second, third = in_parts(collecting, [1, 1, 1], label="another")
    pipeline.handle(pipeline.splitter, [third])
    pipeline.handle(pipeline.splitter, [first])
    with pipeline.engine.begin() as connection:
        asked = [(str(whole), 1), (str(whole), 2), (str(collecting), 1), (str(collecting), 2), (str(collecting), 3)]
        known = CollectedParts(connection).known([*asked, (str(nobodys), 1)])
        rows = {
            (str(row.batch_id), row.part): row for row in connection.execute(text("SELECT * FROM orchestrator.batch_part")).all()
        }
        headers = {
            str(row.batch_id): bytes(row.content_hash) for row in connection.execute(text("SELECT * FROM orchestrator.batch"))
        }
    assert known.keys() == set(asked)
    for (batch_id, number), part in known.items():
        row = rows.get((batch_id, number))
        assert (part.organization_id, part.header_hash) == (ORGANIZATION, headers[batch_id])
        assert part.parts == (1 if batch_id == str(whole) else 3)
        if row is None:
            assert (part.content_hash, part.public_hash) == (None, None)
        else:
            assert (part.content_hash, part.public_hash) == (bytes(row.content_hash), bytes(row.public_hash))
    assert rows.keys() == {(str(whole), 1), (str(collecting), 1), (str(collecting), 3)}
    pipeline.handle(pipeline.splitter, [second])
    pipeline.relay()
    again = [one.value for one in pipeline.take(Topic.BATCHES)]
    assert [b'"part":1' in value for value in again] == [True, False], "parts must be published again in their order"

    with pipeline.engine.begin() as connection:
        bury = text("INSERT INTO orchestrator.tombstone VALUES (:id, :org, :hash, now())")
        connection.execute(bury, {"id": nobodys, "org": "org-1", "hash": b"hash 1"})
        connection.execute(bury, {"id": uuid4(), "org": "org-2", "hash": b"hash 2"})
        among = [str(nobodys), str(whole)]
        assert purged_among(connection, among) == {str(nobodys)}
        found = tombstones_among(connection, among)
    assert {batch: (one.organization_id, one.header_hash) for batch, one in found.items()} == {str(nobodys): ("org-1", b"hash 1")}
