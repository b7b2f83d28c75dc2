"""The judge finds what it claims to find: a consistent history with its tables is green, and each corruption of them is found under its own
rule."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.history import (
    GONE,
    Call,
    Closing,
    Counts,
    Ending,
    Erasure,
    Forgetting,
    History,
    Observation,
    Operation,
    Submission,
    Values,
)
from tests.chaos.judge import Rule, Verdict, judge
from tests.chaos.leavers import CLOCKS_S, hasty_findings, left_findings, with_their_ids
from tests.chaos.monitor import Sample, leaks
from tests.chaos.notes import NotedItem, note_findings
from tests.chaos.receipts import Receipt, log_findings, receipt_findings
from tests.chaos.receiver import Receiver, delivery_findings
from tests.chaos.tables import ActivityRow, BatchRow, ItemRow, Periods, Totals
from tests.support.pipeline import COORDINATOR

FOUND_BY_OTHERS = {
    Rule.NOTES_LEFT,
    Rule.NOTES_LOST,
    Rule.FORGOTTEN_LEFT,
    Rule.VERIFY,
    Rule.TOPICS,
    Rule.TWO_CONTENTS,
    Rule.DELIVERY,
    Rule.LOGS,
    Rule.RECEIPT,
    Rule.LEAK,
    Rule.LEFT_BEHIND,
    Rule.SUPERVISOR,
}


NOTHING = Totals(0, 0, 0, 0)


@dataclass
class World:
    """What the clients say, and what the tables contain."""

    history: History
    batches: dict[str, BatchRow]
    unattached: Totals = NOTHING
    """Rows that belong to no batch."""
    ends: dict[str, set[tuple[str, Counts]]] | None = None
    """The announced completions, by label. None means those of the tables."""
    periods: Periods = Periods()  # noqa: RUF009 - is frozen

    def verdict(self) -> Verdict:
        batches = list(self.batches.values())
        activities = [activity for batch in batches for item in batch.items for activity in item.activities]
        totals = Totals(
            sum(len(batch.items) for batch in batches) + self.unattached.items,
            sum(len(item.outcomes) for batch in batches for item in batch.items) + self.unattached.outcomes,
            len(activities) + self.unattached.activities,
            sum(activity.audits + activity.revocation_audits for activity in activities) + self.unattached.audits,
        )
        ends = self.ends or self.ends_of_tables()
        return judge(self.history, batches, totals, {(f"id of {label}", 0): told for label, told in ends.items()}, self.periods)

    def ends_of_tables(self) -> dict[str, set[tuple[str, Counts]]]:
        return {label: {(batch.status, batch.counts)} for label, batch in self.batches.items()}

    def call(self, label: str, operation: Operation, outcome: Ending = Ending.OK, **told: object) -> None:
        self.history.add(Call(label=label, operation=operation, outcome=outcome, began_s=10, ended_s=11, **told))  # type: ignore[arg-type]

    def see(self, label: str, status: str, counts: Counts | None, *, client: int = 0, at_s: float = 20) -> None:
        self.history.saw(Observation(client, label, at_s, status, counts))

    def submitted(self, label: str, *items: ItemRow, deleted: bool = False) -> None:
        """Accepted by HTTP, and completed."""
        self.history.submissions[label] = Submission(label, tuple(item.values for item in items))
        self.call(label, Operation.SUBMIT, batch_id=f"id of {label}")
        self.batches[label] = row(label, *items, deleted=deleted)


def values(mentor: str, minutes: int = 60) -> Values:
    return Values(mentor, "visit", "2026-03-25", minutes)


def success(position: int, asked: Values, attempt: int = 1) -> ItemRow:
    activity = f"activity of {asked.mentor_id}"
    outcomes: dict[int, tuple[str, str | None]] = dict.fromkeys(range(1, attempt), ("failed", None))
    records = [ActivityRow(activity, asked, COORDINATOR, 1)]
    return ItemRow(position, asked, "success", attempt, activity, None, outcomes | {attempt: ("success", activity)}, records)


def revoked(position: int, asked: Values) -> ItemRow:
    item = success(position, asked)
    [activity] = item.activities
    return replace(item, is_revoked=True, activities=[replace(activity, is_revoked=True, revocation_audits=1)])


def unsuccessful(position: int, asked: Values, status: str, code: str | None = None) -> ItemRow:
    return ItemRow(position, asked, status, 1, None, code, {1: (status, None)})


def row(label: str, *items: ItemRow, deleted: bool = False) -> BatchRow:
    states = [item.status for item in items]
    counts = Counts(len(items), *(states.count(status) for status in ("pending", "success", "failed", "cancelled")))
    if counts.cancelled:
        status = "cancelled"
    elif not counts.failed:
        status = "completed"
    else:
        status = "partial" if counts.completed else "failed"
    taken_back = sum(item.is_revoked for item in items)
    return BatchRow(f"id of {label}", label, status, counts, deleted, True, 0, list(items), taken_back)


@pytest.fixture
def world() -> World:
    """Everything that can happen, and all of it right."""
    world = World(History(), {})
    ghost = values("ghost-1")
    world.submitted("plain", success(0, values("a")), unsuccessful(1, ghost, "failed", "mentor_not_found"))
    world.see("plain", "processing", Counts(2, 1, 1, 0, 0))
    world.see("plain", "partial", Counts(2, 0, 1, 1, 0))
    world.call("plain", Operation.DISMISS)
    world.batches["plain"].dismissals = 1

    world.submitted("corrected", success(0, values("b")), success(1, values("c"), attempt=2))
    world.history.submissions["corrected"] = Submission("corrected", (values("b"), ghost))
    world.call("corrected", Operation.RETRY, retried=1, corrections={1: values("c")})

    world.submitted("cancelled", success(0, values("d")), unsuccessful(1, values("e"), "cancelled"))
    world.call("cancelled", Operation.CANCEL, counts=Counts(2, 0, 1, 0, 1))

    world.submitted("deleted", success(0, values("f")), deleted=True)
    world.call("deleted", Operation.DELETE)
    world.see("deleted", GONE, None)

    world.submitted(
        "undone", revoked(0, values("h")), success(1, values("i")), unsuccessful(2, ghost, "failed", "mentor_not_found")
    )
    world.call("undone", Operation.REVOKE, revoked=1)
    world.call("undone", Operation.REVOKE, revoked=0)

    # Closed through the day of all items, and reopened; the second call was abandoned and repeated.
    closings = (("2026-03-25", Ending.OK), (None, Ending.UNKNOWN), (None, Ending.OK), ("2026-04-01", Ending.FAILED))
    world.history.closings += [Closing(day, outcome) for day, outcome in closings]
    world.periods = Periods(["2026-03-25", None])

    fought_for = values("fought-for")
    world.history.contested.add(fought_for.identity)
    world.submitted("winner", success(0, fought_for))
    world.submitted("loser", unsuccessful(0, fought_for, "failed", "duplicate_activity"))
    shared = values("shared")
    world.history.contested.add(shared.identity)
    world.submitted("overriding", success(0, replace(shared, override_duplicates=True)))
    world.submitted("overridden", unsuccessful(0, shared, "failed", "duplicate_activity"))

    world.history.submissions["upstream"] = Submission("upstream", (values("g"),), "id of upstream")
    world.call("upstream", Operation.UPSTREAM, Ending.UNKNOWN)
    world.call("upstream", Operation.UPSTREAM)
    world.batches["upstream"] = row("upstream", success(0, values("g")))

    for label, outcome in (("refused", Ending.FAILED), ("never", Ending.UNKNOWN), ("after all", Ending.UNKNOWN)):
        world.history.submissions[label] = Submission(label, (values(label),))
        world.call(label, Operation.SUBMIT, outcome)
    world.batches["after all"] = row("after all", success(0, values("after all")))
    return world


def test_a_consistent_history_is_green(world: World) -> None:
    verdict = world.verdict()
    assert not verdict.findings
    assert verdict.settled == {
        (Operation.SUBMIT, "done"): 1,
        (Operation.SUBMIT, "not done"): 1,
        (Operation.UPSTREAM, "done"): 1,
    }


def test_a_retry_cancel_or_delete_with_an_unknown_outcome_may_be_done_or_not(world: World) -> None:
    """The tables are once as if each had been done, and once as if not."""
    for label in ("corrected", "cancelled", "deleted"):
        world.history.calls[label] = [
            call if call.operation is Operation.SUBMIT else replace(call, outcome=Ending.UNKNOWN, retried=None, counts=None)
            for call in world.history.calls[label]
        ]
    done = world.verdict()
    assert not done.findings
    assert {done.settled[operation, "done"] for operation in (Operation.RETRY, Operation.CANCEL, Operation.DELETE)} == {1}
    world.history.observations["deleted"].clear()
    world.batches["deleted"].is_deleted = False
    world.batches["corrected"] = row(
        "corrected", success(0, values("b")), unsuccessful(1, values("ghost-1"), "failed", "mentor_not_found")
    )
    world.batches["cancelled"] = row("cancelled", success(0, values("d")), success(1, values("e")))
    not_done = world.verdict()
    assert not not_done.findings
    assert {not_done.settled[operation, "not done"] for operation in (Operation.RETRY, Operation.CANCEL, Operation.DELETE)} == {1}


def an_upstream_batch_lost_part(world: World) -> None:
    world.call("upstream", Operation.UPSTREAM, part=2)
    del world.batches["upstream"]


def change(label: str, **changes: object) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        for name, value in changes.items():
            setattr(world.batches[label], name, value)

    return corrupt


def change_item(label: str, position: int, /, **changes: object) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        for name, value in changes.items():
            setattr(world.batches[label].items[position], name, value)

    return corrupt


def another_activity(label: str, position: int, *, other: bool = False) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        item = world.batches[label].items[position]
        item.activities.append(ActivityRow("another" if other else "activity of a", item.values, COORDINATOR, 1))

    return corrupt


def change_activity(**changes: object) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        for name, value in changes.items():
            setattr(world.batches["plain"].items[0].activities[0], name, value)

    return corrupt


def whole(label: str, *items: ItemRow) -> Callable[[World], None]:
    """Consistent in itself, but not what was requested."""
    return lambda world: world.batches.__setitem__(label, row(label, *items))


def never_called(label: str, operation: Operation) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        world.history.calls[label] = [call for call in world.history.calls[label] if call.operation is not operation]

    return corrupt


def announced(label: str, *ends: tuple[str, Counts]) -> Callable[[World], None]:
    return lambda world: setattr(world, "ends", world.ends_of_tables() | {label: set(ends)})


def called_in_vain(label: str, operation: Operation) -> Callable[[World], None]:
    """The tables are as if the call had been carried out, but it was refused."""

    def corrupt(world: World) -> None:
        world.history.calls[label] = [
            replace(call, outcome=Ending.FAILED) if call.operation is operation else call for call in world.history.calls[label]
        ]

    return corrupt


def retried_in_doubt(*, attempt: int, key: str | None = None) -> Callable[[World], None]:
    """A retry, sent twice if it has a key, has an unknown outcome. One item has reached this attempt."""

    def corrupt(world: World) -> None:
        world.history.calls["corrected"] = [
            call for call in world.history.calls["corrected"] if call.operation is not Operation.RETRY
        ]
        for _ in range(1 if key is None else 2):
            world.call("corrected", Operation.RETRY, Ending.UNKNOWN, key=key, corrections={1: values("c")})
        world.batches["corrected"].items[1] = success(1, values("c"), attempt=attempt)

    return corrupt


def a_key_that_was_answered(*, attempt: int) -> Callable[[World], None]:
    """One retry was sent three times. Two responses were the same, and one did not arrive."""

    def corrupt(world: World) -> None:
        retried_in_doubt(attempt=attempt, key="k")(world)
        for _ in range(2):
            world.call("corrected", Operation.RETRY, key="k", retried=1, corrections={1: values("c")})

    return corrupt


def calls_in_vain(world: World) -> None:
    for operation in (Operation.CANCEL, Operation.DELETE, Operation.RETRY):
        world.call("plain", operation, Ending.FAILED)


def a_duplicate_of_what_can_not_be(world: World) -> None:
    """A mentor who does not exist, requested more than once."""
    world.history.contested.add(GHOST.identity)
    world.batches["plain"].items[1].error_code = "duplicate_activity"


def all_fighters(*ends: tuple[str, str | None]) -> Callable[[World], None]:
    """The outcomes of the items that competed for one record."""

    def corrupt(world: World) -> None:
        for label, (status, code) in zip(("winner", "loser"), ends, strict=True):
            world.batches[label] = row(label, unsuccessful(0, values("fought-for"), status, code))
            world.call(label, Operation.CANCEL, Ending.UNKNOWN)

    return corrupt


def a_part_that_may_not_have_come(world: World) -> None:
    world.call("upstream", Operation.UPSTREAM, Ending.UNKNOWN, part=2)
    del world.batches["upstream"]


def seen(label: str, status: str, *counts: int, client: int = 7) -> Callable[[World], None]:
    return lambda world: world.see(label, status, Counts(*counts), client=client)


def seen_in_turn(*completed: int) -> Callable[[World], None]:
    """One client sees these numbers of completed items, of three."""

    def corrupt(world: World) -> None:
        for number in completed:
            world.see("plain", "processing", Counts(3, 3 - number, number, 0, 0), client=7)

    return corrupt


def revoked_in_doubt(*, key: str | None = None, done: bool = True) -> Callable[[World], None]:
    """A revoke, sent twice if it has a key, has an unknown outcome."""

    def corrupt(world: World) -> None:
        world.history.calls["undone"] = [call for call in world.history.calls["undone"] if call.operation is not Operation.REVOKE]
        for _ in range(1 if key is None else 2):
            world.call("undone", Operation.REVOKE, Ending.UNKNOWN, key=key)
        if not done:
            items = world.batches["undone"].items
            world.batches["undone"] = row("undone", success(0, values("h")), *items[1:])

    return corrupt


def change_revoked_activity(**changes: object) -> Callable[[World], None]:
    def corrupt(world: World) -> None:
        for name, value in changes.items():
            setattr(world.batches["undone"].items[0].activities[0], name, value)

    return corrupt


def a_revoke_that_was_answered_twice(world: World) -> None:
    world.history.calls["undone"] = [call for call in world.history.calls["undone"] if call.operation is not Operation.REVOKE]
    for _ in range(2):
        world.call("undone", Operation.REVOKE, key="k", revoked=1)


def won_again(world: World) -> None:
    """The winner's record was revoked, and another batch has the record now."""
    world.batches["winner"] = row("winner", revoked(0, values("fought-for")))
    world.call("winner", Operation.REVOKE, revoked=1)
    world.batches["loser"] = row("loser", success(0, values("fought-for")))


def lost_and_revoked(world: World) -> None:
    """A duplicate was refused, and the other record was revoked later."""
    world.batches["winner"] = row("winner", revoked(0, values("fought-for")))
    world.call("winner", Operation.REVOKE, revoked=1)


def closed(*changes: str | None, late: Sequence[str] = ()) -> Callable[[World], None]:
    return lambda world: setattr(world, "periods", Periods(changes, late))


def never_closed(world: World) -> None:
    world.history.closings.clear()
    world.periods = Periods()
    world.batches["deleted"] = row("deleted", unsuccessful(0, values("f"), "failed", "period_closed"), deleted=True)


GHOST = values("ghost-1")

# Each differs from the request in one field.
OTHER_VALUES = [
    replace(values("a"), mentor_id="b"),
    replace(values("a"), activity_type="call"),
    replace(values("a"), activity_date="2026-03-24"),
    replace(values("a"), duration_minutes=61),
]

CORRUPTIONS: list[tuple[Rule, Callable[[World], None]]] = [
    (Rule.INVENTED, lambda world: world.batches.__setitem__("?", row("?", success(0, values("z"))))),
    (Rule.LOST, lambda world: world.batches.__delitem__("plain")),
    (Rule.LOST, an_upstream_batch_lost_part),
    (Rule.DOUBLED, lambda world: world.batches.__setitem__("again", replace(world.batches["plain"], batch_id="id of again"))),
    (Rule.REFUSED_AND_DONE, whole("refused", success(0, values("refused")))),
    (Rule.OTHER_ID, change("plain", batch_id="another")),
    (Rule.OTHER_ID, change("upstream", batch_id="another")),
    (Rule.STUCK, change("plain", status="processing")),
    (Rule.STUCK, change("plain", is_completed=False)),
    (Rule.COUNTS, change("plain", counts=Counts(2, 0, 0, 2, 0))),
    (Rule.STATUS, change("plain", status="completed")),
    (Rule.ITEMS, whole("plain", success(0, values("a")))),
    (Rule.VALUES, change_item("plain", 1, values=values("ghost-2"))),
    (Rule.WRONG_SUCCESS, whole("plain", success(0, values("a")), success(1, GHOST))),
    (Rule.WRONG_ERROR, change_item("plain", 1, error_code="internal_error")),
    (Rule.WRONG_ERROR, whole("deleted", unsuccessful(0, values("f"), "failed", "duplicate_activity"))),
    (Rule.WRONG_CANCEL, whole("plain", success(0, values("a")), unsuccessful(1, GHOST, "cancelled"))),
    (Rule.WRONG_CANCEL, never_called("cancelled", Operation.CANCEL)),
    (Rule.CANCEL_NOT_FINAL, whole("cancelled", success(0, values("d")), success(1, values("e")))),
    (Rule.WRONG_DELETE, never_called("deleted", Operation.DELETE)),
    (Rule.DELETE_LOST, change("deleted", is_deleted=False)),
    (Rule.ACTIVITY_LOST, change_item("plain", 0, activities=[])),
    (Rule.ACTIVITY_DOUBLED, another_activity("plain", 0)),
    (Rule.ACTIVITY_DOUBLED, another_activity("plain", 0, other=True)),
    (Rule.ACTIVITY_TOO_MANY, another_activity("plain", 1)),
    (Rule.ACTIVITY_TOO_MANY, another_activity("cancelled", 1)),
    (Rule.ACTIVITY_VALUES, change_activity(values=values("b"))),
    (Rule.ACTIVITY_VALUES, change_activity(registered_by="a")),
    (Rule.AUDIT, change_activity(audits=2)),
    (Rule.OUTCOMES, change_item("corrected", 1, outcomes={2: ("success", "activity of c")})),
    (Rule.RAN_AGAIN, change_item("corrected", 1, outcomes=dict.fromkeys((1, 2), ("success", "activity of c")))),
    (Rule.NOT_FOLDED, change_item("plain", 1, outcomes={1: ("cancelled", None)})),
    (Rule.RETRIES, whole("corrected", success(0, values("b")), unsuccessful(1, GHOST, "failed", "mentor_not_found"))),
    (Rule.RETRIES, never_called("corrected", Operation.RETRY)),
    (Rule.NOT_FOUND, lambda world: world.see("plain", GONE, None)),
    (Rule.END_NOT_ANNOUNCED, announced("plain")),
    (Rule.END_NOT_ANNOUNCED, announced("plain", ("partial", Counts(2, 0, 2, 0, 0)))),
    (Rule.END_NOT_ANNOUNCED, announced("plain", ("failed", Counts(2, 0, 1, 1, 0)), ("partial", Counts(2, 0, 1, 1, 0)))),
    (Rule.SUM, lambda world: world.see("plain", "processing", Counts(2, 0, 1, 0, 0))),
    (Rule.EARLY_END, lambda world: world.see("plain", "partial", Counts(2, 1, 1, 0, 0))),
    (Rule.WENT_BACK, lambda world: world.see("plain", "partial", Counts(2, 0, 0, 2, 0))),
    (Rule.FIGHT, whole("loser", success(0, values("fought-for")))),
    (Rule.WRONG_ERROR, change_item("loser", 0, values=replace(values("fought-for"), override_duplicates=True))),
    (Rule.WRONG_DISMISSAL, change("plain", dismissals=2)),
    (Rule.TEMPLATE, lambda world: world.history.wrong_templates.append("one")),
    (Rule.FIGHT, lambda world: world.batches.__delitem__("winner")),
    (Rule.SERVER_ERROR, lambda world: world.history.server_errors.append("GET")),
    *(
        (Rule.UNATTACHED, lambda world, place=place: setattr(world, "unattached", Totals(*(int(n == place) for n in range(4)))))
        for place in range(4)
    ),
    # Histories that differ in one thing.
    (Rule.OTHER_ID, lambda world: world.call("plain", Operation.SUBMIT, batch_id="another")),
    (Rule.ITEMS, change_item("plain", 1, position=2)),
    (Rule.ITEMS, change_item("plain", 1, position=0)),
    *((Rule.COUNTS, change("plain", counts=Counts(*each))) for each in ((3, 0, 1, 1, 0), (2, 1, 1, 1, 0), (2, 0, 1, 1, 1))),
    *((Rule.STATUS, change("plain", status=status)) for status in ("completed", "failed", "cancelled")),
    (Rule.STATUS, change("deleted", status="partial")),
    (Rule.STATUS, change("loser", status="partial")),
    (Rule.STATUS, change("cancelled", status="completed")),
    (Rule.END_NOT_ANNOUNCED, change("corrected", retry_number=1)),
    (Rule.END_NOT_ANNOUNCED, change("corrected", batch_id="id of plain")),
    (Rule.VALUES, called_in_vain("corrected", Operation.RETRY)),
    *((Rule.VALUES, change_item("plain", 0, values=other)) for other in OTHER_VALUES),
    (Rule.WRONG_ERROR, change_item("plain", 1, error_code=None)),
    (Rule.WRONG_ERROR, a_duplicate_of_what_can_not_be),
    (Rule.WRONG_CANCEL, change_item("plain", 1, status="cancelled")),
    (Rule.WRONG_CANCEL, change("plain", status="cancelled")),
    (Rule.WRONG_CANCEL, called_in_vain("cancelled", Operation.CANCEL)),
    (Rule.CANCEL_NOT_FINAL, lambda world: world.call("cancelled", Operation.CANCEL, counts=Counts(2, 0, 0, 0, 2))),
    (Rule.CANCEL_NOT_FINAL, change("cancelled", status="partial")),
    (Rule.WRONG_DELETE, called_in_vain("deleted", Operation.DELETE)),
    (Rule.ACTIVITY_DOUBLED, change_item("plain", 0, activity_id="another")),
    (Rule.ACTIVITY_TOO_MANY, change_item("plain", 1, activity_id="another")),
    *((Rule.ACTIVITY_VALUES, change_activity(values=other)) for other in OTHER_VALUES),
    (Rule.AUDIT, change_activity(audits=0)),
    (Rule.OUTCOMES, change_item("plain", 0, outcomes={})),
    (Rule.OUTCOMES, change_item("plain", 0, outcomes=dict.fromkeys((1, 2), ("success", "activity of a")))),
    (Rule.RAN_AGAIN, change_item("corrected", 1, outcomes={1: ("cancelled", None), 2: ("success", "activity of c")})),
    (Rule.NOT_FOLDED, change_item("plain", 0, outcomes={1: ("success", "another")})),
    (Rule.RETRIES, retried_in_doubt(attempt=4)),
    (Rule.RETRIES, retried_in_doubt(attempt=4, key="one key, sent twice")),
    (Rule.RETRIES, a_key_that_was_answered(attempt=1)),
    (Rule.RETRIES, a_key_that_was_answered(attempt=3)),
    (Rule.NOT_FOUND, lambda world: world.see("deleted", GONE, None, at_s=9)),
    *(
        (Rule.SUM, seen("plain", "processing", *each))
        for each in ((3, 0, 1, 1, 0), (2, 1, 1, 1, 0), (2, 0, 2, 1, 0), (2, 0, 1, 2, 0))
    ),
    (Rule.SUM, seen("plain", "processing", 2, 0, 1, 1, 1)),
    *((Rule.EARLY_END, seen("plain", status, 2, 1, 1, 0, 0)) for status in ("completed", "failed", "cancelled")),
    (Rule.WENT_BACK, seen_in_turn(2, 1)),
    (Rule.WENT_BACK, seen_in_turn(1, 2, 1)),
    (Rule.FIGHT, all_fighters(("failed", "duplicate_activity"), ("cancelled", None))),
    (Rule.REVOKED, never_called("undone", Operation.REVOKE)),
    (Rule.REVOKED, called_in_vain("undone", Operation.REVOKE)),
    (Rule.REVOKED, lambda world: world.call("undone", Operation.REVOKE, revoked=1)),
    (Rule.REVOKED, lambda world: world.call("plain", Operation.REVOKE, revoked=1)),
    (Rule.REVOKED_DIFFERS, change("undone", revoked=0)),
    (Rule.REVOKED_DIFFERS, change("plain", revoked=1)),
    (Rule.REVOKED_DIFFERS, change_revoked_activity(is_revoked=False)),
    (Rule.REVOKED_DIFFERS, change_revoked_activity(revocation_audits=0)),
    (Rule.REVOKED_DIFFERS, change_revoked_activity(revocation_audits=2)),
    (Rule.REVOKED_DIFFERS, change_item("undone", 0, activities=[])),
    (Rule.REVOKED_DIFFERS, change_activity(is_revoked=True)),
    (Rule.REVOKED_DIFFERS, change_activity(revocation_audits=1)),
    (Rule.PERIODS, closed("2026-03-25", "2026-03-24")),
    (Rule.PERIODS, closed("2026-03-25", "2026-04-01")),
    (Rule.PERIODS, closed(None)),
    (Rule.IN_CLOSED_PERIOD, closed("2026-03-25", None, late=["an activity"])),
    (Rule.WRONG_ERROR, never_closed),
    (Rule.WRONG_ERROR, change_item("plain", 1, error_code="period_closed")),
    (
        Rule.WRONG_ERROR,
        change_item("plain", 1, error_code="period_closed", values=replace(values("a"), activity_date="2026-03-26")),
    ),
]

# What may happen, although it looks like a violation.
FAIR: dict[str, Callable[[World], None]] = {
    "calls that were refused": calls_in_vain,
    "a call that was refused, and one that was not answered": lambda world: world.call(
        "after all", Operation.SUBMIT, Ending.FAILED
    ),
    "a part that may not have come": a_part_that_may_not_have_come,
    "none of the competing items has the record, and none failed as a duplicate": all_fighters(
        ("cancelled", None), ("cancelled", None)
    ),
    "two answers under one key": a_key_that_was_answered(attempt=2),
    "as many new attempts as a retry in doubt can have begun": retried_in_doubt(attempt=3),
    "a retry in doubt under a key, sent twice": retried_in_doubt(attempt=3, key="k"),
    "one client sees later what another has seen": seen("plain", "processing", 2, 2, 0, 0, 0),
    "a waiting batch has a pending item": seen("plain", "pending", 2, 2, 0, 0, 0),
    "the number of completed items grows": seen_in_turn(0, 0, 1, 3),
    "a revoke in doubt was carried out": revoked_in_doubt(),
    "a revoke in doubt was not": revoked_in_doubt(done=False),
    "a revoke in doubt under a key, sent twice": revoked_in_doubt(key="k"),
    "two answers under one key of a revoke": a_revoke_that_was_answered_twice,
    "the period was closed when the item was decided": whole(
        "after all", unsuccessful(0, values("after all"), "failed", "period_closed")
    ),
    "the contested record was revoked and registered again": won_again,
    "the record that a duplicate conflicted with was revoked": lost_and_revoked,
}


@pytest.mark.parametrize("happened", FAIR.values(), ids=FAIR)
def test_an_allowed_history_is_no_finding(world: World, happened: Callable[[World], None]) -> None:
    happened(world)
    assert world.verdict().findings == []


def test_the_judged_rows_are_counted(world: World) -> None:
    assert world.verdict().judged == {"batches": 11, "items": 16, "activities": 11, "changes of the period": 2}


@pytest.mark.parametrize(("attempt", "key", "became"), [(1, None, "not done"), (2, None, "done"), (1, "k", "not done")])
def test_the_outcome_of_a_retry_in_doubt_is_reported(world: World, attempt: int, key: str | None, became: str) -> None:
    retried_in_doubt(attempt=attempt, key=key)(world)
    settled = world.verdict().settled
    assert {end: settled[Operation.RETRY, end] for end in ("done", "not done") if settled[Operation.RETRY, end]} == {
        became: 1 if key is None else 2
    }


def test_a_retry_in_doubt_was_done_if_another_with_its_key_got_a_response(world: World) -> None:
    a_key_that_was_answered(attempt=2)(world)
    settled = world.verdict().settled
    assert (settled[Operation.RETRY, "done"], settled[Operation.RETRY, "not done"]) == (2, 0)


@pytest.mark.parametrize(
    ("rule", "corrupt"), CORRUPTIONS, ids=[f"{rule.name.lower()}-{n}" for n, (rule, _) in enumerate(CORRUPTIONS)]
)
def test_each_corruption_is_found(world: World, rule: Rule, corrupt: Callable[[World], None]) -> None:
    corrupt(world)
    assert rule in {finding.rule for finding in world.verdict().findings}


def test_each_rule_has_a_corruption() -> None:
    assert {rule for rule, _ in CORRUPTIONS} == set(Rule) - FOUND_BY_OTHERS


def differing(kind: str, log: int = 1) -> dict[str, object]:
    return {"kind": kind, "organization_id": "org-01", "log": log, "detail": "somewhere"}


@pytest.mark.parametrize(
    ("answer", "replaced", "findings"),
    [
        ({"leaves": 3, "findings": []}, None, 0),
        ({"leaves": 5, "findings": [differing("two_heads"), differing("log_cut_off")]}, 1, 0),
        ({"leaves": 5, "findings": [differing("two_heads")]}, None, 1),
        ({"leaves": 5, "findings": [differing("two_heads", log=2)]}, 1, 1),
        ({"leaves": 5, "findings": [differing("audit_changed")]}, 1, 1),
        ({"leaves": 2, "findings": []}, None, 1),
        ({"error": "no broker"}, None, 1),
    ],
)
def test_only_a_replaced_log_may_have_forked(answer: dict[str, object], replaced: int | None, findings: int) -> None:
    assert [each.rule for each in log_findings(answer, audits=3, replaced=replaced)] == [Rule.LOGS] * findings


def test_a_receipt_holds_and_shows_what_happened() -> None:
    happened = {("registered", "a"), ("revoked", "a"), ("registered", "b")}
    records = [{"change": change, "activity_id": activity_id} for change, activity_id in happened]

    def found(**verified: object) -> list[Rule]:
        return [each.rule for each in receipt_findings([Receipt("1", {"holds": True, "records": records} | verified, happened)])]

    assert not found()
    assert found(holds=False) == [Rule.RECEIPT]
    assert found(records=records[1:]) == [Rule.RECEIPT]
    assert found(records=[*records, {"change": "registered", "activity_id": "c"}]) == [Rule.RECEIPT]
    assert [each.rule for each in receipt_findings([Receipt("1", {"error": "no file"}, happened)])] == [Rule.RECEIPT]


COMPLETED = ("completed", Counts(1, 0, 1, 0, 0))


def told(batch_id: str, published_at: str = "10:00", *, completed_at: str = "10:00") -> bytes:
    data = {"batch_id": batch_id, "retry_number": 0, "completed_at": completed_at}
    return json.dumps({"timestamp": published_at, "data": data}).encode()


@pytest.mark.parametrize(
    ("bodies", "told_twice", "findings"),
    [
        ({"1": {told("a")}, "2": {told("b")}}, set(), 0),
        ({"1": {told("a")}}, set(), 1),
        ({"1": {told("a")}, "2": {told("b")}, "3": {told("b")}}, set(), 1),
        ({"1": {told("a")}, "2": {told("b")}, "3": {told("c")}}, set(), 1),
        ({"1": {told("a"), told("a", "11:00")}, "2": {told("b")}}, set(), 1),
        ({"1": {told("a"), told("b")}}, set(), 1),
        # A database that has forgotten the end of b was restored.
        ({"1": {told("a"), told("a", "11:00")}, "2": {told("b"), told("b", completed_at="11:00")}}, {"b"}, 0),
        ({"1": {told("a"), told("a", completed_at="11:00")}, "2": {told("b")}}, {"b"}, 1),
    ],
)
def test_each_end_arrives_under_one_id(bodies: dict[str, set[bytes]], told_twice: set[str], findings: int) -> None:
    receiver = Receiver("seed")
    receiver.bodies.update(bodies)
    found = delivery_findings(receiver, {("a", 0): {COMPLETED}, ("b", 0): {COMPLETED}}, told_twice)
    assert [each.rule for each in found] == [Rule.DELIVERY] * findings


def test_a_wrong_signature_is_found() -> None:
    receiver = Receiver("seed")
    receiver.secret = "whsec_" + "a" * 32
    receiver.is_healthy = True
    headers = {"Webhook-Id": "1", "Webhook-Timestamp": "1774519200", "Webhook-Signature": "v1,bm9uZQ=="}
    assert receiver.receive(headers, told("a")) == 204
    assert not receiver.bodies
    assert [each.rule for each in delivery_findings(receiver, {}, set())] == [Rule.DELIVERY]


@pytest.mark.parametrize(
    ("outcomes", "has_notes", "has_copies", "found"),
    [
        ([], True, True, []),
        ([], False, False, [Rule.NOTES_LOST]),
        ([Ending.OK], False, False, []),
        ([Ending.OK], True, False, [Rule.NOTES_LEFT]),
        ([Ending.OK], False, True, [Rule.NOTES_LEFT]),
        ([Ending.UNKNOWN], True, True, []),
        ([Ending.UNKNOWN], False, False, []),
        ([Ending.UNKNOWN, Ending.OK], True, True, [Rule.NOTES_LEFT]),
        ([Ending.FAILED], True, True, []),
        ([Ending.FAILED], False, False, [Rule.NOTES_LOST]),
    ],
)
def test_notes_are_there_until_they_are_erased(
    outcomes: Sequence[Ending], has_notes: bool, has_copies: bool, found: Sequence[Rule]
) -> None:
    history = History()
    history.erasures += [Erasure("a", 0, outcome) for outcome in outcomes]
    items = [NotedItem("id of a", "a", 0, has_notes, has_copies)]
    assert [each.rule for each in note_findings(history, items, set())] == found


@pytest.mark.parametrize(
    ("outcome", "named", "found"),
    [
        (Ending.OK, {}, []),
        (Ending.OK, {7: {"registration.audit"}}, [Rule.FORGOTTEN_LEFT]),
        (Ending.OK, {17: {"registration.audit"}}, []),
        (Ending.UNKNOWN, {7: {"registration.audit"}}, []),
    ],
)
def test_nobody_is_named_who_was_forgotten(outcome: Ending, named: dict[int, set[str]], found: Sequence[Rule]) -> None:
    history = History()
    history.forgettings.append(Forgetting("leaver-7", 7, "a", outcome))
    assert [each.rule for each in left_findings(history, named)] == found


@pytest.mark.parametrize(("done_s", "found"), [(None, []), (60, [Rule.FORGOTTEN_LEFT]), (-60, []), (CLOCKS_S / 2, [])])
def test_nobody_is_unknown_before_the_request_is_done(done_s: float | None, found: Sequence[Rule]) -> None:
    history, at = History(), datetime.now(UTC)
    history.forgettings += [Forgetting("leaver-7", 7, "a", Ending.OK, unknown_at=at), Forgetting("leaver-8", 8, "b", Ending.OK)]
    done = {} if done_s is None else {7: at + timedelta(seconds=done_s)}
    assert [each.rule for each in hasty_findings(history, done)] == found


def test_the_records_of_people_who_were_forgotten_are_judged_by_what_was_submitted() -> None:
    [batch] = with_their_ids([one("forgotten-1", "mentor-1")], {"forgotten-1": "leaver-7"})
    assert [item.values.mentor_id for item in batch.items] == ["leaver-7", "mentor-1"]
    assert [each.values.mentor_id for item in batch.items for each in item.activities] == ["leaver-7", "mentor-1"]


def one(*mentors: str) -> BatchRow:
    """A batch with a record for each."""
    items = []
    for position, mentor in enumerate(mentors):
        values = Values(mentor, "visit", "2020-01-01", 60)
        row = ItemRow(position, values, "success", 1, str(position), None)
        row.activities.append(ActivityRow(str(position), values, COORDINATOR, 1))
        items.append(row)
    return BatchRow("id", "a", "completed", Counts(len(items), 0, len(items), 0, 0), False, True, 0, items)


def test_a_restored_database_gets_forgotten_batches_back_without_notes() -> None:
    assert not list(note_findings(History(), [NotedItem("id of a", "a", 0, False, False)], {"id of a"}))


def life(grows_mb: float = 0.0, grows_descriptors: float = 0.0) -> list[Sample]:
    """A process over three minutes."""
    return [
        Sample(at, "api", 1, 40 + at, 100 + grows_mb * at / 180, int(30 + grows_descriptors * at / 180), 8)
        for at in range(0, 180, 2)
    ]


def test_growth_is_a_leak() -> None:
    assert not list(leaks(life()))
    assert [leak.split(" of ")[0] for leak in leaks(life(grows_mb=100))] == ["memory_mb"]
    assert [leak.split(" of ")[0] for leak in leaks(life(grows_descriptors=60))] == ["descriptors"]
