"""The judge finds what it claims to find: a consistent history with its tables is green, and each corruption of them is found under its own
rule."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.corrupted_histories import CORRUPTIONS, FAIR, a_key_that_was_answered, retried_in_doubt
from tests.chaos.history import GONE, Closing, Counts, Ending, Erasure, Forgetting, History, Operation, Submission, Values
from tests.chaos.judge import Rule
from tests.chaos.judged_world import World, revoked, row, success, unsuccessful, values
from tests.chaos.leavers import CLOCKS_S, hasty_findings, left_findings, with_their_ids
from tests.chaos.monitor import Sample, leaks
from tests.chaos.notes import NotedItem, note_findings
from tests.chaos.receipts import Receipt, log_findings, receipt_findings
from tests.chaos.receiver import Receiver, delivery_findings
from tests.chaos.tables import ActivityRow, BatchRow, ItemRow, Periods
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
    Rule.NO_MORE_FAULTS,
}


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


def life(grows_mb: float = 0.0, grows_descriptors: float = 0.0, *, lives_s: int = 180) -> list[Sample]:
    """A process that grows steadily."""
    return [
        Sample(at, "api", 1, 40 + at, 100 + grows_mb * at / lives_s, int(30 + grows_descriptors * at / lives_s), 8)
        for at in range(0, lives_s, 2)
    ]


def test_growth_is_a_leak() -> None:
    assert not list(leaks(life()))
    assert [leak.split(" of ")[0] for leak in leaks(life(grows_mb=100))] == ["memory_mb"]
    assert [leak.split(" of ")[0] for leak in leaks(life(grows_descriptors=60))] == ["descriptors"]


def test_a_process_that_still_fills_up_has_no_leak_unless_it_takes_too_much() -> None:
    assert not list(leaks(life(grows_mb=100), fills_for_s=1_000))
    assert not list(leaks(life(grows_mb=20, lives_s=4_000), fills_for_s=1_000))
    assert [leak.split(" of ")[0] for leak in leaks(life(grows_mb=140, lives_s=4_000), fills_for_s=1_000)] == ["memory_mb"]
    assert list(leaks(life(grows_mb=160), fills_for_s=1_000)) == ["memory_mb of api reached 258, more than 256"]
    assert list(leaks(life(grows_descriptors=490), fills_for_s=1_000)) == ["descriptors of api reached 514, more than 512"]
