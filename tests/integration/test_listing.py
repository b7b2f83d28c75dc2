"""Which batches a listing returns, and how many it counts: with each filter alone, for one organization among several."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from orchestrator.batches.model import BatchFilter, BatchView
from orchestrator.batches.operations import delete_batch
from orchestrator.batches.states import BatchStatus
from orchestrator.storage.backlog import Backlog, read_backlog
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def listed(pipeline: Pipeline, wanted: BatchFilter, organization: str = ORGANIZATION) -> tuple[list[UUID], int]:
    """With the workers' role, which sees every organization. So the statement itself has to select."""
    with pipeline.engine.begin() as connection:
        page = PostgresActivityRepository(connection).list_batches(organization, wanted)
    return [batch.batch_id for batch in page.batches], page.total


def write(pipeline: Pipeline, batch_id: UUID, **columns: object) -> None:
    with pipeline.engine.begin() as connection:
        settings = ", ".join(f"{name} = :{name}" for name in columns)
        connection.execute(text(f"UPDATE orchestrator.batch SET {settings} WHERE batch_id = :id"), {"id": batch_id, **columns})


def four(pipeline: Pipeline) -> tuple[UUID, UUID, UUID, UUID]:
    """Four batches, submitted an hour apart, the last by another coordinator. Others are deleted, or of another organization."""
    failed = pipeline.submit([item("nobody"), item("no one")], label="Alpha")
    partial = pipeline.submit([*mentors(1), item("nobody")], label="Beta")
    deleted, foreign = pipeline.submit(mentors(1, first=5), label="Alpha"), pipeline.submit(mentors(1, first=6), label="Alpha")
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, deleted)
    running, others = pipeline.submit(mentors(1, first=7), label="alphabet"), pipeline.submit(mentors(1, first=8))
    write(pipeline, foreign, organization_id="org-other")
    write(pipeline, others, coordinator_id="coord-2")
    for hours, batch_id in enumerate((failed, partial, running, others)):
        write(pipeline, batch_id, submitted_at=NOON + timedelta(hours=hours))
    return failed, partial, running, others


def test_each_filter_selects_and_counts(pipeline: Pipeline) -> None:
    failed, partial, running, others = four(pipeline)
    hour = timedelta(hours=1)
    cases: Mapping[BatchFilter, list[UUID]] = {
        BatchFilter(): [others, running, partial, failed],
        BatchFilter(statuses=(BatchStatus.PROCESSING,)): [others, running],
        BatchFilter(statuses=(BatchStatus.CANCELLED,)): [],
        BatchFilter(statuses=(BatchStatus.PROCESSING, BatchStatus.FAILED)): [others, running, failed],
        BatchFilter(needs_attention=True): [partial, failed],
        BatchFilter(needs_attention=True, statuses=(BatchStatus.PARTIAL, BatchStatus.COMPLETED)): [partial],
        BatchFilter(coordinator_id=COORDINATOR): [running, partial, failed],
        BatchFilter(coordinator_id="coord-2"): [others],
        BatchFilter(label_contains="ALPHA"): [running, failed],
        BatchFilter(label_contains="a"): [running, partial, failed],
        BatchFilter(submitted_from=NOON + hour): [others, running, partial],
        BatchFilter(submitted_from=NOON + hour + MOMENT): [others, running],
        BatchFilter(submitted_to=NOON + hour): [failed],
        BatchFilter(submitted_to=NOON + hour + MOMENT): [partial, failed],
        BatchFilter(submitted_from=NOON + hour, submitted_to=NOON + 2 * hour, label_contains="b"): [partial],
        BatchFilter(statuses=(BatchStatus.PROCESSING,), coordinator_id=COORDINATOR, label_contains="alpha"): [running],
    }
    for wanted, expected in cases.items():
        assert listed(pipeline, wanted) == (expected, len(expected)), wanted
        # A page has fewer, but the count is that of all. The same holds for a page behind the last one.
        assert listed(pipeline, replace(wanted, limit=1)) == (expected[:1], len(expected)), wanted
        assert listed(pipeline, replace(wanted, limit=1, page=2)) == (expected[1:2], len(expected)), wanted
        assert listed(pipeline, replace(wanted, page=9)) == ([], len(expected)), wanted
    assert listed(pipeline, BatchFilter(), "org-nobody") == ([], 0)
    assert listed(pipeline, BatchFilter(), "org-other")[1] == 1


def test_batches_with_the_same_time_are_on_one_page_each(pipeline: Pipeline) -> None:
    batches = sorted((pipeline.submit(mentors(1, first=number)) for number in range(1, 8)), reverse=True)
    for batch_id in sorted(batches, key=lambda each: each.int % 7):
        write(pipeline, batch_id, submitted_at=NOON)
    found, after = [], None
    with pipeline.engine.begin() as connection:
        # An index has this order. The statement must not rely on its use.
        for scan in ("indexscan", "indexonlyscan", "bitmapscan"):
            connection.execute(text(f"SET LOCAL enable_{scan} = off"))
        repository = PostgresActivityRepository(connection)
        for _ in range(4):
            page = repository.list_batches(ORGANIZATION, BatchFilter(limit=2, after=after))
            found += [batch.batch_id for batch in page.batches]
            after = page.next_after
    assert (found, after) == (batches, None)
    assert [batch_id for page in range(1, 5) for batch_id in listed(pipeline, BatchFilter(limit=2, page=page))[0]] == batches
    assert listed(pipeline, BatchFilter())[0] == batches


def test_each_batch_is_shown_with_its_own_errors(pipeline: Pipeline) -> None:
    failed, partial, *_ = four(pipeline)
    page = pipeline.call(lambda repository, _: repository.list_batches(ORGANIZATION, BatchFilter()), ADMIN)
    found: dict[UUID, BatchView] = {batch.batch_id: batch for batch in page.batches}
    assert {batch_id: dict(batch.errors_by_code) for batch_id, batch in found.items() if batch.errors_by_code} == {
        failed: {"mentor_not_found": 2},
        partial: {"mentor_not_found": 1},
    }
    assert [pipeline.status(batch_id).batch.errors_by_code for batch_id in (failed, partial)] == [
        {"mentor_not_found": 2},
        {"mentor_not_found": 1},
    ]


def test_coordinators_are_known_in_their_organization(pipeline: Pipeline) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(text("INSERT INTO registration.coordinator VALUES ('org-other', 'coord-2', 'Other', 'coordinator')"))
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES (:org, 'coord, \"3\"', 'Odd', 'coordinator')"),
            {"org": ORGANIZATION},
        )
        repository = PostgresActivityRepository(connection)
        asked = {COORDINATOR, "coord-2", "nobody", 'coord, "3"'}
        assert repository.known_coordinators(ORGANIZATION, asked) == {COORDINATOR, 'coord, "3"'}
        assert repository.known_coordinators(ORGANIZATION, {COORDINATOR}) == {COORDINATOR}
        assert repository.clock_and_coordinators("org-other", asked)[1] == {"coord-2"}


def test_the_backlog_counts_waiting_items_and_how_many_were_folded(pipeline: Pipeline) -> None:
    assert transact(pipeline.api, read_backlog) == Backlog(0, 0)
    pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain()
    before = transact(pipeline.api, read_backlog)
    pipeline.submit(mentors(2, first=20))
    after = transact(pipeline.api, read_backlog)
    assert (before.pending, after.pending) == (0, 2)
    assert before.folded == after.folded
    pipeline.drain()
    assert transact(pipeline.api, read_backlog).pending == 0
