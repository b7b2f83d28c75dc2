"""What may go wrong with a world that the judge finds consistent, and what only looks like it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.chaos.history import GONE, Counts, Ending, Operation
from tests.chaos.judge import Rule
from tests.chaos.judged_world import World, revoked, row, success, unsuccessful, values
from tests.chaos.tables import ActivityRow, ItemRow, Periods, Totals
from tests.support.pipeline import COORDINATOR


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
