"""Erasing notes: at a person's request, and because of their age (docs/decisions/0045-forgetting.md)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from consumers.upkeep.purger import Purged, PurgePolicy, Purger
from orchestrator.batches.errors import ConflictError, ForbiddenError, NotFoundError
from orchestrator.batches.model import Actor, CorrectedItem, RetryRequest, Role
from orchestrator.batches.operations import delete_batch, get_item, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.storage.notes import NotesOf, batches_with_old_notes, erase_notes_of, erase_old_notes_of_purged
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, Pipeline, item
from tests.support.sweeping import purge
from tests.support.upstream import submitted, upstream_item

SECRET = "seen at the hospital"
HOLDERS = {
    "orchestrator.batch_item": "notes",
    "orchestrator.item_history": "submitted::text || coalesce(correction::text, '')",
    "orchestrator.batch_part": "items::text",
    "registration.activity": "notes",
}


def holders(pipeline: Pipeline, secret: str = SECRET) -> list[str]:
    """The tables that hold the text, once for each row."""
    with pipeline.engine.connect() as connection:
        return [
            table
            for table, column in HOLDERS.items()
            for _ in connection.execute(text(f"SELECT 1 FROM {table} WHERE {column} LIKE :like"), {"like": f"%{secret}%"})
        ]


def erasures(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    with pipeline.engine.connect() as connection:
        rows = connection.execute(
            text("SELECT position, attempt, organization_id, erased_by, channel FROM registration.notes_erasure ORDER BY 1, 2")
        )
        return [tuple(row) for row in rows]


def with_every_kind_of_notes(pipeline: Pipeline) -> UUID:
    """A batch whose one item failed twice, each time with notes, and was then registered."""
    batch_id = pipeline.submit([item("nobody", notes=SECRET), item("mentor-2", notes="another's")])
    pipeline.drain()
    item_id = DerivedIds(batch_id).item_id(0)
    for mentor in ("no one", "mentor-1"):
        correction = CorrectedItem(item_id, {"mentor_id": mentor, "notes": f"{SECRET}, says {mentor}"})
        pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[correction]))
        pipeline.drain()
    return batch_id


def test_notes_are_erased_from_item_history_and_activity_with_a_row_that_says_by_whom(
    pipeline: Pipeline, settings: Settings
) -> None:
    batch_id = with_every_kind_of_notes(pipeline)
    before = pipeline.status(batch_id)
    assert len(holders(pipeline)) == 4
    assert erase(pipeline, batch_id)
    assert holders(pipeline) == []
    assert holders(pipeline, "another's") == ["orchestrator.batch_item", "registration.activity"]
    assert erasures(pipeline) == [(0, 3, ORGANIZATION, COORDINATOR, "api")]
    after = pipeline.status(batch_id)
    assert after.batch.version == before.batch.version + 1, "a client with a copy must learn that it is old"
    assert after.batch.changed_at > before.batch.changed_at
    assert after.batch.edit_version == before.batch.edit_version
    _, attempts = pipeline.call(get_item, ADMIN, batch_id, after.items[0].item_id)
    assert [(attempt.values["notes"], attempt.correction) for attempt in attempts] == [
        (None, {"mentor_id": "no one"}),
        (None, {"mentor_id": "mentor-1"}),
    ]
    assert not erase(pipeline, batch_id), "there is nothing left to erase"
    assert pipeline.status(batch_id).batch.version == after.batch.version
    assert len(erasures(pipeline)) == 1
    assert verify(pipeline.engine, settings).breaches == []


def test_of_a_correction_of_notes_alone_nothing_is_left(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("nobody", notes=SECRET)])
    pipeline.drain()
    item_id = DerivedIds(batch_id).item_id(0)
    correction = CorrectedItem(item_id, {"notes": f"{SECRET}, again"})
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[correction]))
    pipeline.drain()
    assert erase(pipeline, batch_id)
    _, [attempt] = pipeline.call(get_item, ADMIN, batch_id, item_id)
    assert attempt.correction is None


def test_only_the_items_of_several_that_have_notes_are_recorded_as_erased(pipeline: Pipeline) -> None:
    """Somebody holds the activity of one without notes, and is not waited for."""
    batch_id = pipeline.submit(
        [item("mentor-1"), item("mentor-2", notes=SECRET), item("mentor-3"), item("mentor-4", notes=SECRET)]
    )
    pipeline.drain()
    ids = DerivedIds(batch_id)
    several = [NotesOf(str(batch_id), position, str(ids.item_id(position)), ORGANIZATION) for position in (3, 2, 1)]
    with pipeline.engine.connect() as holder, pipeline.engine.begin() as connection:
        holder.execute(text("SELECT FROM registration.activity WHERE attributed_to = 'mentor-3' FOR UPDATE"))
        connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        assert erase_notes_of(connection, several, at=datetime.now(UTC), by="boss", channel="api") == 2
    assert erasures(pipeline) == [(position, 1, ORGANIZATION, "boss", "api") for position in (1, 3)]
    assert holders(pipeline) == []


def test_a_pending_item_is_registered_without_the_notes(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes=SECRET)])
    assert erase(pipeline, batch_id)
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.completed == 1
    assert holders(pipeline) == []
    assert verify(pipeline.engine, settings).breaches == []


def test_notes_that_a_later_correction_brings_are_kept_until_they_are_erased_too(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit([item("nobody", notes=SECRET)])
    pipeline.drain()
    erase(pipeline, batch_id)
    correction = CorrectedItem(DerivedIds(batch_id).item_id(0), {"mentor_id": "mentor-1", "notes": "new"})
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[correction]))
    pipeline.drain()
    assert [view.values.notes for view in pipeline.status(batch_id).items] == ["new"]
    assert verify(pipeline.engine, settings).breaches == []
    assert erase(pipeline, batch_id)
    assert holders(pipeline, "new") == []
    assert [(position, attempt) for position, attempt, *_ in erasures(pipeline)] == [(0, 1), (0, 2)]
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize("purged", [False, True], ids=["deleted", "purged"])
def test_notes_of_a_deleted_batch_can_be_erased(pipeline: Pipeline, settings: Settings, *, purged: bool) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes=SECRET)])
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batch_id)
    if purged:
        purge(Purger(PurgePolicy(timedelta(0), timedelta(days=7))), pipeline.engine)
    for stranger in (replace(COORDINATOR_ACTOR, subject="coord-2"), replace(ADMIN, organization_id="org-neighbour")):
        with pytest.raises(NotFoundError):
            erase(pipeline, batch_id, actor=stranger)
    with pytest.raises(ForbiddenError):
        erase(pipeline, batch_id, actor=Actor(ORGANIZATION, "auditor", Role.AUDITOR))
    assert erase(pipeline, batch_id)
    assert holders(pipeline) == []
    assert erasures(pipeline) == [(0, 1, ORGANIZATION, COORDINATOR, "api")]
    pipeline.drain()
    assert verify(pipeline.engine, settings).breaches == []


def test_an_item_in_doubt_keeps_its_notes_because_it_has_to_be_asked_for_again(pipeline: Pipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item("nobody", notes=SECRET)])
    pipeline.drain()
    with owner.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
                " VALUES (:batch_id, 0, :organization, 1, 'asked', now())"
            ),
            {"batch_id": batch_id, "organization": ORGANIZATION},
        )
    with pytest.raises(ConflictError) as refused:
        erase(pipeline, batch_id)
    assert refused.value.code == "item_in_doubt"
    assert holders(pipeline) == ["orchestrator.batch_item"]
    assert not purge(Purger(RETAIN), pipeline.engine).notes


def test_an_unknown_item_is_not_found(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes=SECRET)])
    for position in (1, 900):
        with pytest.raises(NotFoundError):
            erase(pipeline, batch_id, position)
    with pytest.raises(NotFoundError):
        erase(pipeline, uuid4())
    assert holders(pipeline) == ["orchestrator.batch_item"]


RETAIN = PurgePolicy(timedelta(days=1000), timedelta(days=1000), notes_after=timedelta(days=30))


def make_older(owner: Engine, days: int, *batch_ids: UUID) -> None:
    with owner.begin() as connection:
        values = {"days": timedelta(days=days), "batch_ids": list(batch_ids)}
        connection.execute(
            text("UPDATE orchestrator.batch_item SET attempt_at = attempt_at - :days WHERE batch_id = ANY (:batch_ids)"), values
        )
        connection.execute(
            text("UPDATE registration.activity SET created_at = created_at - :days WHERE batch_id = ANY (:batch_ids)"), values
        )


def test_the_retention_erases_old_notes_in_chunks_and_no_others(pipeline: Pipeline, owner: Engine) -> None:
    old = [pipeline.submit([item(f"mentor-{number}", notes=SECRET) for number in range(first, first + 5)]) for first in (1, 11)]
    corrected, young = with_notes_in_history(pipeline), pipeline.submit([item("mentor-30", notes="young")])
    pipeline.drain()
    purged = pipeline.submit([item("mentor-50", notes=SECRET)])
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, purged)
    purge(Purger(PurgePolicy(timedelta(0), timedelta(days=7))), pipeline.engine)
    make_older(owner, 31, *old, corrected, purged)
    make_older(owner, 29, young)
    purger = Purger(replace(RETAIN, max_items=3, max_batches=1))
    assert purge(purger, pipeline.engine) == Purged(notes=10 + 1 + 1)
    assert holders(pipeline) == []
    assert holders(pipeline, "young") == ["orchestrator.batch_item", "registration.activity"]
    assert {(by, channel) for *_, by, channel in erasures(pipeline)} == {("retention", "retention")}
    assert not purge(purger, pipeline.engine)
    assert not purge(Purger(replace(RETAIN, notes_after=None)), pipeline.engine)


def test_the_oldest_notes_are_found_first_up_to_a_limit_without_those_set_aside(pipeline: Pipeline, owner: Engine) -> None:
    batches = [pipeline.submit([item(f"mentor-{number}", notes=SECRET)]) for number in (1, 2, 3)]
    pipeline.drain()
    # A pending item would hide the younger ones behind it, because its notes can't be erased yet.
    pending = pipeline.submit([item("mentor-4", notes=SECRET)])
    for batch_id, days in zip([*batches, pending], (31, 33, 32, 40), strict=True):
        make_older(owner, days, batch_id)

    def found(most: int, *aside: UUID) -> set[str]:
        with pipeline.engine.begin() as connection:
            due = batches_with_old_notes(
                connection, after=timedelta(days=30), aside=list(map(str, aside)), max_items=most, max_batches=9
            )
        return {each.batch_id for each in due}

    first, second, last = (str(batches[index]) for index in (1, 2, 0))
    assert [found(most) for most in (1, 2, 3, 4)] == [{first}, {first, second}, {first, second, last}, {first, second, last}]
    assert found(9, batches[2]) == {first, last}


def test_items_of_a_due_batch_keep_their_notes_while_they_are_young_or_pending_or_in_doubt(
    pipeline: Pipeline, owner: Engine
) -> None:
    batch_id = pipeline.submit([item(mentor, notes=f"of {mentor}") for mentor in ("mentor-1", "mentor-2", "nobody", "no one")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(2)]))
    make_older(owner, 31, batch_id)
    of_batch = {"batch_id": batch_id, "organization": ORGANIZATION}
    with owner.begin() as connection:
        connection.execute(
            text("UPDATE orchestrator.batch_item SET attempt_at = now() WHERE batch_id = :batch_id AND position = 1"), of_batch
        )
        connection.execute(
            text(
                "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
                " VALUES (:batch_id, 3, :organization, 1, 'asked', now())"
            ),
            of_batch,
        )
    assert purge(Purger(RETAIN), pipeline.engine) == Purged(notes=1)
    kept = [view.values.notes for view in pipeline.status(batch_id).items]
    assert kept == [None, "of mentor-2", "of nobody", "of no one"]


def test_the_oldest_activities_of_purged_batches_lose_their_notes_first(pipeline: Pipeline, owner: Engine) -> None:
    batches = [pipeline.submit([item(f"mentor-{number}", notes=f"note {number}")]) for number in (1, 2, 3, 4)]
    pipeline.drain()
    for batch_id in (batches[0], batches[1], batches[3]):
        pipeline.call(delete_batch, ADMIN, batch_id)
    purge(Purger(PurgePolicy(timedelta(0), timedelta(days=7))), pipeline.engine)
    # The third batch is not purged, and its item is erased together with its activity. The fourth one is too young.
    for batch_id, days in zip(batches, (31, 32, 33, 29), strict=True):
        make_older(owner, days, batch_id)
    left: list[list[int]] = []
    for _ in range(3):
        transact(
            pipeline.engine,
            lambda connection: erase_old_notes_of_purged(connection, after=timedelta(days=30), max_items=1),
        )
        left.append([number for number in (1, 2, 3, 4) if holders(pipeline, f"note {number}")])
    assert left == [[1, 3, 4], [3, 4], [3, 4]]


def with_notes_in_history(pipeline: Pipeline) -> UUID:
    batch_id = pipeline.submit([item("nobody", notes=SECRET)])
    pipeline.drain()
    correction = CorrectedItem(DerivedIds(batch_id).item_id(0), {"mentor_id": "mentor-20"})
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[correction]))
    pipeline.drain()
    return batch_id


def test_the_retention_waits_for_pending_items(pipeline: Pipeline, owner: Engine, settings: Settings) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes=SECRET)])
    make_older(owner, 31, batch_id)
    assert not purge(Purger(RETAIN), pipeline.engine)
    pipeline.drain()
    assert purge(Purger(RETAIN), pipeline.engine) == Purged(notes=1)
    assert holders(pipeline) == []
    assert verify(pipeline.engine, settings).breaches == []


def test_a_part_keeps_no_notes_once_its_batch_is_whole(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    pipeline.queues[Topic.BATCHES] += [submitted(batch_id, [upstream_item(0, notes=SECRET)])]
    pipeline.drain()
    assert holders(pipeline) == ["orchestrator.batch_item", "registration.activity"]
    assert erase(pipeline, batch_id)
    assert holders(pipeline) == []


def test_what_settings_say() -> None:
    assert PurgePolicy.of(Settings()).notes_after is None
    assert PurgePolicy.of(Settings(notes_retention_days=400)).notes_after == timedelta(days=400)
