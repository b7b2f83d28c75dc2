"""What each operation publishes and returns: every field, for a batch whose fields all differ."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

import pytest

from orchestrator.batches.errors import ConflictError, ForbiddenError, InvalidRequestError, KeyReusedError, PreconditionError
from orchestrator.batches.model import CorrectedItem, Idempotency, ItemValues, NewItem, RetryRequest, Role, Submitted
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    get_item,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from schemas.envelope import Topic
from schemas.events import MAX_PART_ITEMS
from schemas.ids import DerivedIds
from schemas.mistakes import MOST_MISTAKES
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, item, mentors
from tests.support.told import SENDER, TRACE, failing, finish, published, submit, the_batch

# --- Submission -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("override", [False, True])
def test_a_submission_is_published_completely_and_without_its_notes(flow: MemoryFlow, override: bool) -> None:
    first = NewItem(ItemValues("mentor-1", "visit", date(2026, 3, 25), 60, "a private note", override), "row 1")
    second = NewItem(ItemValues("mentor-2", "call", date(2026, 3, 24), 61, None, override))
    batch_id = submit(flow, the_batch(first, second, override=override))
    assert published(flow, Topic.BATCHES) == [
        (
            "BatchSubmitted",
            {
                "batch_id": str(batch_id),
                "organization_id": ORGANIZATION,
                "coordinator_id": COORDINATOR,
                "label": "the label",
                "override_duplicates": override,
                "part": 1,
                "parts": 1,
                "total_items": 2,
                "submitted_by": "the-sender",
                "channel": "the-channel",
                "items": [
                    {
                        "position": 0,
                        "mentor_id": "mentor-1",
                        "activity_type": "visit",
                        "activity_date": "2026-03-25",
                        "duration_minutes": 60,
                        "client_reference": "row 1",
                    },
                    {
                        "position": 1,
                        "mentor_id": "mentor-2",
                        "activity_type": "call",
                        "activity_date": "2026-03-24",
                        "duration_minutes": 61,
                    },
                ],
            },
        )
    ]


def test_a_submission_returns_what_is_read_afterwards(flow: MemoryFlow) -> None:
    batch = the_batch(*mentors(3), override=True)
    submitted = flow.call(submit_bulk_registration, SENDER, batch)
    view = flow.status(batch.batch_id).batch
    assert submitted == Submitted(view, replayed=False)
    assert (view.coordinator_id, view.submitted_by, view.channel) == (COORDINATOR, "the-sender", "the-channel")
    assert (view.label, view.trace_id, view.counts.pending) == ("the label", TRACE, 3)


def test_a_caller_who_may_not_submit_is_refused_before_the_coordinator_is_looked_up(flow: MemoryFlow) -> None:
    """Otherwise a coordinator or an auditor could find out which coordinators exist."""
    unknown = replace(the_batch(*mentors(1)), coordinator_id="nobody")
    codes = []
    for actor in (replace(SENDER, role=Role.AUDITOR), COORDINATOR_ACTOR, SENDER):
        with pytest.raises((ForbiddenError, InvalidRequestError)) as refused:
            flow.call(submit_bulk_registration, actor, unknown)
        codes.append(refused.value.code)
    assert codes == ["role_may_not", "not_your_coordinator_id", "coordinator_unknown"]


# --- Retry ------------------------------------------------------------------------------------------------------------------------


def test_a_retry_is_published_in_order_with_its_corrections_and_without_notes(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(4)))
    finish(flow)
    ids = DerivedIds(batch_id)
    request = RetryRequest(
        item_ids=[ids.item_id(3), ids.item_id(0)],
        corrections=[
            CorrectedItem(ids.item_id(2), {"mentor_id": "mentor-3", "notes": "a private note", "duration_minutes": 60}),
            CorrectedItem(ids.item_id(1), {"notes": "another"}),
        ],
    )
    retried = flow.call(retry_failed_items, SENDER, batch_id, request)
    assert (retried.retried, retried.replayed, retried.batch.counts.pending, retried.batch.retry_number) == (4, False, 4, 1)
    expected = {
        "batch_id": str(batch_id),
        "organization_id": ORGANIZATION,
        "retry_number": 1,
        "part": 1,
        "retried_by": "the-sender",
        "items": [
            {"position": 0, "attempt": 2},
            {"position": 1, "attempt": 2},
            # The duration was 60 before, so this is no correction.
            {"position": 2, "attempt": 2, "correction": {"mentor_id": "mentor-3"}},
            {"position": 3, "attempt": 2},
        ],
    }
    assert published(flow, Topic.BATCHES)[:1] == [("BatchRetryRequested", expected)]


def test_corrected_and_retryable_items_are_retried_in_one_order(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(3)))
    flow.give_up(batch_id)
    published(flow, Topic.BATCHES)
    corrections = [CorrectedItem(DerivedIds(batch_id).item_id(2), {"mentor_id": "mentor-1"})]
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(only_retryable=True, corrections=corrections))
    [(_, data)] = published(flow, Topic.BATCHES)
    assert [each["position"] for each in data["items"]] == [0, 1, 2]


@pytest.mark.parametrize(("count", "sizes"), [(MAX_PART_ITEMS, [500]), (MAX_PART_ITEMS + 1, [500, 1])])
def test_a_retry_is_published_in_parts_of_500(flow: MemoryFlow, count: int, sizes: list[int]) -> None:
    batch_id = submit(flow, the_batch(*failing(count)))
    finish(flow)
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    parts = [data for _, data in published(flow, Topic.BATCHES)]
    assert [(data["part"], len(data["items"])) for data in parts] == list(enumerate(sizes, start=1))
    assert [each["position"] for data in parts for each in data["items"]] == list(range(count))


def test_the_completion_of_a_retry_is_announced_with_its_counts(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(item("mentor-1"), *failing(2)))
    flow.drain()
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(1)]))
    flow.drain()
    moments = []
    for retry_number, (kind, data) in enumerate(published(flow, Topic.LIFECYCLE)):
        moments.append(data.pop("completed_at"))
        assert (kind, data) == (
            "BatchCompleted",
            {
                "batch_id": str(batch_id),
                "organization_id": ORGANIZATION,
                "status": "partial",
                "total_items": 3,
                "pending": 0,
                "completed": 1,
                "failed": 2,
                "cancelled": 0,
                "retry_number": retry_number,
            },
        )
    assert len(moments) == 2
    shown = flow.status(batch_id).batch.completed_at
    assert shown is not None
    assert moments[0] < moments[1] == shown.isoformat(timespec="microseconds").replace("+00:00", "Z")


def test_a_correction_selects_only_its_item_and_an_empty_selection_selects_none(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(2)))
    finish(flow)
    second = DerivedIds(batch_id).item_id(1)
    correction = RetryRequest(corrections=[CorrectedItem(second, {"mentor_id": "mentor-1"})])
    assert flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[])).retried == 0
    assert published(flow, Topic.BATCHES) == []
    assert flow.call(retry_failed_items, ADMIN, batch_id, correction).retried == 1
    assert [one.attempt for one in flow.status(batch_id).items] == [1, 2]
    flow.drain()
    assert flow.status(batch_id).items[1].status == "success"
    # The same call again, as after a lost acknowledgement.
    assert flow.call(retry_failed_items, ADMIN, batch_id, correction).retried == 0
    assert [one.attempt for one in flow.status(batch_id).items] == [1, 2]


def test_a_correction_to_the_present_value_is_none(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(1)))
    finish(flow)
    item_id = DerivedIds(batch_id).item_id(0)
    same = RetryRequest(corrections=[CorrectedItem(item_id, {"mentor_id": "nobody-0", "notes": None})])
    assert flow.call(retry_failed_items, ADMIN, batch_id, same).retried == 1
    [before] = flow.call(get_item, ADMIN, batch_id, item_id)[1]
    assert before.correction is None


def test_a_pending_item_is_not_retried(flow: MemoryFlow) -> None:
    """Nor is it reported as if an earlier retry had begun it."""
    batch_id = submit(flow, the_batch(*mentors(1)))
    with pytest.raises(ConflictError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(0)]))
    assert refused.value.code == "item_not_failed"


def test_items_that_would_become_equal_are_each_named(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(4)))
    finish(flow)
    ids = DerivedIds(batch_id)
    # The last two would become equal. The second would become what the first is, which is retried without a change.
    corrections = [
        CorrectedItem(ids.item_id(3), {"mentor_id": "mentor-9"}),
        CorrectedItem(ids.item_id(2), {"mentor_id": "mentor-9"}),
        CorrectedItem(ids.item_id(1), {"mentor_id": "nobody-0"}),
    ]
    with pytest.raises(InvalidRequestError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[ids.item_id(0)], corrections=corrections))
    assert {(one.pointer, one.code, one.detail.split(" would")[0]) for one in refused.value.mistakes} == {
        ("/corrections/2/mentor_id", "duplicate_mentor", "The items at positions 1 and 0"),
        ("/corrections/1/mentor_id", "duplicate_mentor", "The items at positions 2 and 3"),
        ("/corrections/0/mentor_id", "duplicate_mentor", "The items at positions 3 and 2"),
    }
    assert {one.attempt for one in flow.status(batch_id).items} == {1}


@pytest.mark.parametrize("count", [MOST_MISTAKES, MOST_MISTAKES + 1])
def test_more_mistakes_than_are_listed_are_mentioned(flow: MemoryFlow, count: int) -> None:
    batch_id = submit(flow, the_batch(*mentors(count), *failing(count)))
    finish(flow)
    corrections = [
        CorrectedItem(DerivedIds(batch_id).item_id(count + number), {"mentor_id": f"mentor-{number + 1}"})
        for number in range(count)
    ]
    with pytest.raises(InvalidRequestError) as refused:
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=corrections))
    assert len(refused.value.mistakes) == count


def test_a_key_returns_its_first_result_whatever_has_become_of_the_batch(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(2)))
    finish(flow)
    key = Idempotency("key", b"retry")
    assert flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), key).retried == 2
    flow.call(cancel_batch, ADMIN, batch_id, None)
    again = flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), Idempotency("key", b"retry"))
    assert (again.retried, again.replayed, again.batch.status) == (2, True, "cancelled")
    with pytest.raises(ConflictError):
        flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(), Idempotency("another", b"retry"))


@pytest.mark.parametrize("use", ["retry", "cancel", "relabel"])
def test_the_key_of_a_submission_does_not_fit_another_operation(flow: MemoryFlow, use: str) -> None:
    key, batch = Idempotency("key", b"the same bytes"), the_batch(*failing(1))
    flow.call(submit_bulk_registration, ADMIN, batch, key)
    finish(flow)
    calls: dict[str, Callable[[], object]] = {
        "retry": lambda: flow.call(retry_failed_items, ADMIN, batch.batch_id, RetryRequest(), key),
        "cancel": lambda: flow.call(cancel_batch, ADMIN, batch.batch_id, None, idempotency=key),
        "relabel": lambda: flow.call(relabel_batch, ADMIN, batch.batch_id, "new", idempotency=key),
    }
    before = flow.status(batch.batch_id).batch
    with pytest.raises(KeyReusedError):
        calls[use]()
    assert flow.status(batch.batch_id).batch == before


# --- Cancel -----------------------------------------------------------------------------------------------------------------------


def test_a_cancel_is_published_with_its_counts_and_the_attempts_that_it_ends(flow: MemoryFlow) -> None:
    # Afterwards: 0 and 1 pending, 2 registered, 3 pending in its second attempt, 4 pending, 5 failed.
    batch_id = submit(flow, the_batch(*mentors(3), item("nobody-3"), item("mentor-5"), item("nobody-5")))
    flow.register(batch_id, 2, 3, 5)
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[DerivedIds(batch_id).item_id(3)]))
    published(flow, Topic.BATCHES, Topic.LIFECYCLE)
    cancelled = flow.call(cancel_batch, SENDER, batch_id, "wrong week")
    counts = {"total_items": 6, "pending": 0, "completed": 1, "failed": 1, "cancelled": 4}
    expected = {
        "batch_id": str(batch_id),
        "organization_id": ORGANIZATION,
        "part": 1,
        "reason": "wrong week",
        "cancelled_by": "the-sender",
        **counts,
        "cancelled_positions": [[0, 1, 1], [3, 3, 2], [4, 4, 1]],
    }
    assert published(flow, Topic.BATCHES) == [("BatchCancelled", expected)]
    [(kind, ended)] = published(flow, Topic.LIFECYCLE)
    assert (kind, ended["status"], ended["retry_number"]) == ("BatchCompleted", "cancelled", 1)
    assert {name: ended[name] for name in counts} == counts
    batch = cancelled.batch
    assert batch == flow.status(batch_id).batch
    assert (batch.cancelled_by, batch.cancellation_reason, batch.cancelled_at) == ("the-sender", "wrong week", batch.completed_at)
    assert (batch.counts.as_event(), cancelled.replayed) == (counts, False)


def test_only_a_replayed_cancel_says_so(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*mentors(1)))
    # The transaction of the first call is run again, because the acknowledgement of its commit was lost.
    first = Idempotency("key", b"cancel")
    keys = first, first, Idempotency("key", b"cancel"), None
    answers = [flow.call(cancel_batch, ADMIN, batch_id, None, idempotency=each) for each in keys]
    assert [answer.replayed for answer in answers] == [False, False, True, False]


# --- Edits ------------------------------------------------------------------------------------------------------------------------


def test_an_edited_label_and_a_delete_are_published_with_their_new_version(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*mentors(1)))
    finish(flow)
    version = flow.status(batch_id).batch.version
    about = {"batch_id": str(batch_id), "organization_id": ORGANIZATION}
    assert flow.call(relabel_batch, ADMIN, batch_id, "the label").version == version, "the same label must not be an edit"
    relabelled = flow.call(relabel_batch, ADMIN, batch_id, "another")
    assert (relabelled.label, relabelled.version) == ("another", version + 1)
    flow.call(delete_batch, ADMIN, batch_id)
    assert published(flow, Topic.BATCHES) == [
        ("BatchRelabelled", about | {"label": "another", "version": version + 1}),
        ("BatchDeleted", about | {"version": version + 2}),
    ]
    flow.call(delete_batch, ADMIN, batch_id)
    assert published(flow, Topic.BATCHES) == [], "a second delete must change nothing"


def test_a_batch_that_was_edited_meanwhile_is_neither_edited_nor_cancelled_nor_deleted(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*mentors(2)))
    seen = {flow.status(batch_id).batch.edit_version}
    edited = flow.call(relabel_batch, ADMIN, batch_id, "new", edit_versions=seen)
    now = {edited.edit_version}
    calls: Sequence[Callable[[set[int]], object]] = (
        lambda versions: flow.call(relabel_batch, ADMIN, batch_id, "newer", edit_versions=versions),
        lambda versions: flow.call(cancel_batch, ADMIN, batch_id, None, edit_versions=versions),
    )
    for call in calls:
        with pytest.raises(PreconditionError) as refused:
            call(seen)
        assert refused.value.code == "changed_since"
    assert flow.status(batch_id).batch == edited
    # A change that has already been made succeeds, whatever the caller has seen. It may be a repetition of this very call.
    assert flow.call(relabel_batch, ADMIN, batch_id, "new", edit_versions=seen).label == "new"
    flow.call(cancel_batch, ADMIN, batch_id, None, edit_versions=now)
    assert flow.call(cancel_batch, ADMIN, batch_id, None, edit_versions=seen).batch.status == "cancelled"
    with pytest.raises(PreconditionError):
        flow.call(delete_batch, ADMIN, batch_id, edit_versions=seen)
    flow.call(delete_batch, ADMIN, batch_id, edit_versions={flow.status(batch_id).batch.edit_version})


def test_a_key_of_an_edit_belongs_to_one_edit(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*mentors(1)))
    first = Idempotency("key", b"first")
    for label, key in (("new", first), ("newer", None)):
        flow.call(relabel_batch, ADMIN, batch_id, label, idempotency=key)
    assert flow.call(relabel_batch, ADMIN, batch_id, "new", idempotency=first).label == "newer", (
        "the repetition must not be done again"
    )
    with pytest.raises(KeyReusedError):
        flow.call(relabel_batch, ADMIN, batch_id, "newest", idempotency=Idempotency("key", b"second"))
