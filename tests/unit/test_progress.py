"""Progress is measured, and never invented (docs/http.md)."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.batches.model import BatchView, Measurement, Progress
from orchestrator.batches.states import BatchStatus, Counts

BEGAN = datetime(2026, 3, 26, 10, tzinfo=UTC)


def progress(
    counts: Counts,
    *,
    pending_then: int,
    after: timedelta = timedelta(seconds=10),
    status: BatchStatus = BatchStatus.PROCESSING,
) -> Progress | None:
    batch = BatchView(
        batch_id=UUID(int=1),
        organization_id="org-01",
        coordinator_id="coord-1",
        submitted_by="coord-1",
        channel="api",
        label=None,
        status=status,
        counts=counts,
        retry_number=0,
        version=1,
        edit_version=1,
        submitted_at=BEGAN,
        changed_at=BEGAN,
        completed_at=None,
        cancelled_at=None,
        cancelled_by=None,
        cancellation_reason=None,
        trace_id="0" * 32,
        measurement=Measurement(BEGAN, pending_then, BEGAN + after),
    )
    return batch.progress


def test_speed_and_end_follow_from_the_handled_items_and_the_time() -> None:
    measured = progress(Counts(pending=60, completed=30, failed=10), pending_then=100)
    assert measured == Progress(40.0, 4.0, BEGAN + timedelta(seconds=10 + 15))


def test_a_retry_is_measured_by_its_own_items() -> None:
    # Ten of a thousand were tried again, and five of them are decided.
    measured = progress(Counts(pending=5, completed=995), pending_then=10)
    assert measured == Progress(99.5, 0.5, BEGAN + timedelta(seconds=10 + 10))


def test_a_stuck_batch_gets_slower_and_its_end_later() -> None:
    sooner = progress(Counts(pending=1, completed=1), pending_then=2)
    later = progress(Counts(pending=1, completed=1), pending_then=2, after=timedelta(minutes=10))
    assert sooner is not None
    assert later is not None
    assert later.items_per_second < sooner.items_per_second
    assert later.estimated_completion_at > BEGAN + timedelta(minutes=10)


@pytest.mark.parametrize("status", [status for status in BatchStatus if status is not BatchStatus.PROCESSING])
def test_only_a_processing_batch_has_progress(status: BatchStatus) -> None:
    assert progress(Counts(pending=1, completed=1), pending_then=2, status=status) is None


def test_before_the_first_result_there_is_nothing_to_measure() -> None:
    assert progress(Counts(pending=5, completed=5), pending_then=5) is None
    # A retry by a version that does not store the numbers for this.
    assert progress(Counts(pending=7, completed=3), pending_then=5) is None
    assert progress(Counts(pending=1, completed=1), pending_then=2, after=timedelta()) is None
    # The end would be beyond the calendar.
    assert progress(Counts(pending=999_999, completed=1), pending_then=1_000_000, after=timedelta(days=30)) is None


@given(
    pending=st.integers(1, 10_000),
    completed=st.integers(0, 10_000),
    failed=st.integers(0, 10_000),
    handled=st.integers(1, 10_000),
    microseconds=st.integers(1, 10**12),
)
def test_progress_never_says_that_all_is_done(pending: int, completed: int, failed: int, handled: int, microseconds: int) -> None:
    after = timedelta(microseconds=microseconds)
    measured = progress(Counts(pending=pending, completed=completed, failed=failed), pending_then=pending + handled, after=after)
    assert measured is not None
    assert 0 <= measured.percent < 100
    assert measured.items_per_second > 0
    assert measured.estimated_completion_at >= BEGAN + after
