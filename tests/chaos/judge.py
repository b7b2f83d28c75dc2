"""The verdict: compares what the clients were told with what the tables contain, after everything has recovered and come to rest.

Uses none of the product's own checks (`bulkreg verify` is a second witness) and shares no code with them.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum

from tests.chaos.history import GONE, Call, Counts, Ending, Ends, History, Operation, Submission, Values
from tests.chaos.tables import BatchRow, ItemRow, Periods, Totals
from tests.chaos.work import ACTIVE, expected_error
from tests.support.pipeline import COORDINATOR

DUPLICATE = "duplicate_activity"
PERIOD_CLOSED = "period_closed"
BEFORE_THE_PERIOD = frozenset({"mentor_not_found", "activity_type_unknown"})
"""The rules that come before that of the period."""


class Rule(StrEnum):
    """What must not happen."""

    INVENTED = "a batch that was not requested"
    LOST = "accepted, but missing"
    DOUBLED = "one submission, two batches"
    REFUSED_AND_DONE = "refused, but stored"
    OTHER_ID = "another id than was returned or chosen"
    STUCK = "not ended, although everything has recovered"
    COUNTS = "the counts differ from the items"
    STATUS = "the status does not follow from the counts"
    ITEMS = "too many or too few items"
    VALUES = "an item with values that were not requested"
    WRONG_SUCCESS = "an item succeeded although it breaks a rule"
    WRONG_ERROR = "an item failed for a wrong reason"
    WRONG_CANCEL = "cancelled without a request"
    CANCEL_NOT_FINAL = "other counts than the cancel returned"
    WRONG_DELETE = "deleted without a request"
    DELETE_LOST = "deleted, but still visible"
    ACTIVITY_LOST = "a success without its record"
    ACTIVITY_DOUBLED = "a success with two records"
    ACTIVITY_TOO_MANY = "a record for an item that has not succeeded"
    ACTIVITY_VALUES = "a record with other values"
    AUDIT = "not exactly one audit row for a record"
    OUTCOMES = "not exactly one outcome for each attempt"
    RAN_AGAIN = "an attempt after a success"
    NOT_FOLDED = "the item differs from its outcome"
    RETRIES = "other new attempts than the retries returned"
    WRONG_DISMISSAL = "dismissed more often than requested"
    TEMPLATE = "a template that differs from what its only user has saved"
    REVOKED = "other revocations than the revokes returned"
    REVOKED_DIFFERS = "batch, item, activity and audit differ in the revocations"
    NOT_FOUND = "404 for a batch that exists"
    SUM = "a response whose counts don't add up"
    END_NOT_ANNOUNCED = "the completion was not announced, or with other values"
    EARLY_END = "a response with an ended batch and pending items"
    WENT_BACK = "an item that a client saw registered and that is not registered any more"
    FIGHT = "of the items that compete for one record, not exactly one has it"
    PERIODS = "other changes of the closed period than the calls returned"
    IN_CLOSED_PERIOD = "a record that was registered or revoked while its period was closed"
    SERVER_ERROR = "a response with status 500"
    UNATTACHED = "rows that belong to no batch or item"
    NOTES_LEFT = "notes that were erased, and are there"
    NOTES_LOST = "notes that nobody erased, and that are gone"
    FORGOTTEN_LEFT = "a person who was forgotten, and is named"
    # Found by others than the judge: by `bulkreg verify`, `replay` and `receipts`, by the receiver, and by the monitor of the processes.
    VERIFY = "a breach that `bulkreg verify` found"
    TOPICS = "the topics and the tables differ"
    TWO_CONTENTS = "one event id with two contents"
    DELIVERY = "a webhook that was not told of an end, or not once under one id"
    LOGS = "a log of receipts that differs from the tables or from its published checkpoints"
    RECEIPT = "a receipt that does not hold, or does not show what happened"
    LEAK = "growing memory, descriptors or threads"
    LEFT_BEHIND = "a process that is left behind"
    SUPERVISOR = "the supervisor has ended"
    # Not about the product.
    NO_MORE_FAULTS = "the run could not cause its faults to the end"


Broken = Iterator[tuple[Rule, str]]
"""Rules, each with a detail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not happen, and where it happened."""

    rule: Rule
    label: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.label}: {self.detail}"


@dataclass(slots=True)
class Verdict:
    """Green if there are no findings."""

    findings: list[Finding] = field(default_factory=list)
    settled: Counter[tuple[Operation, str]] = field(default_factory=Counter)
    """What became of the calls with an unknown outcome, by kind: `done` or `not done`."""
    judged: Counter[str] = field(default_factory=Counter)


def judge(history: History, batches: Iterable[BatchRow], totals: Totals, ends: Ends, periods: Periods = Periods()) -> Verdict:
    """Checks every submission, call, batch, item, activity, announced completion and closed period."""
    verdict = Verdict()
    found: dict[str, list[str]] = defaultdict(list)
    fought_for: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    seen = Totals(0, 0, 0, 0)
    for batch in batches:
        submission = history.submissions.get(batch.label or "")
        if submission is None:
            verdict.findings.append(Finding(Rule.INVENTED, str(batch.label), f"batch {batch.batch_id}: it was not requested"))
            continue
        found[submission.label].append(batch.batch_id)
        of_batch = _Batch(submission, batch, history, ends.get((batch.batch_id, batch.retry_number), set()))
        verdict.findings += of_batch.findings()
        verdict.settled += of_batch.settled()
        for item in batch.items:
            if item.values.identity in history.contested:
                fought_for[item.values.identity].append(_end_of_fight(item))
        seen = _plus(seen, batch)
        verdict.judged["batches"] += 1
        verdict.judged["items"] += len(batch.items)
        verdict.judged["activities"] += sum(len(item.activities) for item in batch.items)
    for submission in history.submissions.values():
        verdict.findings += _existence(submission, history.calls[submission.label], found[submission.label])
        if not found[submission.label]:
            verdict.settled += _settled(history.calls[submission.label], lambda _: False)
    verdict.findings += _fights(fought_for)
    verdict.findings += [Finding(Rule.TEMPLATE, "templates", detail) for detail in history.wrong_templates]
    verdict.findings += _periods(history, periods)
    verdict.judged["changes of the period"] = len(periods.changes)
    verdict.findings += [Finding(Rule.SERVER_ERROR, "the API", detail) for detail in history.server_errors]
    if seen != totals:
        verdict.findings.append(Finding(Rule.UNATTACHED, "whole tables", f"{totals} rows, but the batches have only {seen}"))
    return verdict


def _plus(seen: Totals, batch: BatchRow) -> Totals:
    return Totals(
        seen.items + len(batch.items),
        seen.outcomes + sum(len(item.outcomes) for item in batch.items),
        seen.activities + sum(len(item.activities) for item in batch.items),
        seen.audits + sum(one.audits + one.revocation_audits for item in batch.items for one in item.activities),
    )


def _existence(submission: Submission, calls: Sequence[Call], batch_ids: Sequence[str]) -> Iterator[Finding]:
    """An accepted batch exists once, a refused one does not exist, and an unknown one may or may not exist."""
    made = [call for call in calls if call.operation in (Operation.SUBMIT, Operation.UPSTREAM)]
    answered = {call.batch_id for call in made if call.outcome is Ending.OK and call.batch_id is not None}
    is_accepted = _is_accepted(submission, made)
    if len(batch_ids) > 1:
        yield Finding(Rule.DOUBLED, submission.label, f"batches {batch_ids}")
    if is_accepted and not batch_ids:
        yield Finding(Rule.LOST, submission.label, f"accepted as {answered or submission.batch_id}, but missing")
    if batch_ids and all(call.outcome is Ending.FAILED for call in made):
        yield Finding(Rule.REFUSED_AND_DONE, submission.label, f"batches {batch_ids}")
    expected = answered or ({submission.batch_id} if submission.batch_id else set(batch_ids))
    if batch_ids and set(batch_ids) != expected:
        yield Finding(Rule.OTHER_ID, submission.label, f"expected {expected}, found {batch_ids}")


def _is_accepted(submission: Submission, made: Sequence[Call]) -> bool:
    """Over HTTP, one call got a response. From upstream, all parts that were sent were acknowledged."""
    done = [call for call in made if call.outcome is Ending.OK]
    if submission.batch_id is None:
        return bool(done)
    return bool(done) and {call.part for call in done} == {call.part for call in made}


BESIDE = "registered, beside others if need be"


def _end_of_fight(item: ItemRow) -> str:
    if item.is_revoked:
        return "revoked"
    return BESIDE if item.status == "success" and item.values.override_duplicates else item.error_code or item.status


def _fights(fought_for: Mapping[tuple[str, str, str], Sequence[str]]) -> Iterator[Finding]:
    """If several batches requested the same activity, one has it, unless it was revoked; and no item failed as a duplicate without another
    activity."""
    for identity, ends in fought_for.items():
        winners = ends.count("success")
        if winners > 1 or (winners == 0 and DUPLICATE in ends and not {"revoked", BESIDE} & set(ends)):
            yield Finding(Rule.FIGHT, " ".join(identity), f"ended {dict(Counter(ends))}")


def _periods(history: History, periods: Periods) -> Iterator[Finding]:
    """Each change was requested, each change that a call returned was made, and no record in the period changed while it was closed."""
    possible = {call.closed_through for call in history.closings if call.outcome is not Ending.FAILED}
    returned = {call.closed_through for call in history.closings if call.outcome is Ending.OK}
    if invented := set(periods.changes) - possible:
        yield Finding(Rule.PERIODS, "the period", f"closed through {invented}, but that was not requested")
    if lost := returned - set(periods.changes) - {None}:
        yield Finding(Rule.PERIODS, "the period", f"a call returned that it is closed through {lost}, but it never was")
    for late in periods.late:
        yield Finding(Rule.IN_CLOSED_PERIOD, "the period", late)


def _settled(calls: Iterable[Call], is_done: Callable[[Call], bool]) -> Counter[tuple[Operation, str]]:
    return Counter((call.operation, "done" if is_done(call) else "not done") for call in calls if call.outcome is Ending.UNKNOWN)


class _Batch:
    """One batch that is judged."""

    def __init__(self, submission: Submission, batch: BatchRow, history: History, ends: Set[tuple[str, Counts]]) -> None:
        self._submission = submission
        self._batch = batch
        self._ends = ends
        self._contested = history.contested
        closed = [call.closed_through for call in history.closings if call.outcome is not Ending.FAILED]
        self._closed_through = max((day for day in closed if day is not None), default="")
        self._observations = history.observations.get(submission.label, ())
        self._calls: dict[Operation, list[Call]] = defaultdict(list)
        for call in history.calls[submission.label]:
            self._calls[call.operation].append(call)
        # Calls that may have been carried out.
        self._possible = {
            operation: [call for call in calls if call.outcome is not Ending.FAILED] for operation, calls in self._calls.items()
        }
        self._new_attempts = sum(item.attempt - 1 for item in batch.items)

    def findings(self) -> list[Finding]:
        label = self._submission.label
        rules = (
            self._counts(),
            self._items(),
            self._retries(),
            self._revocations(),
            self._cancels(),
            self._deletes(),
            self._dismissals(),
            self._seen(),
        )
        return [Finding(rule, label, detail) for found in rules for rule, detail in found]

    def settled(self) -> Counter[tuple[Operation, str]]:
        """What became of the calls with an unknown outcome."""
        retried_for_certain = self._certain(Operation.RETRY)
        revoked_for_certain = self._certain(Operation.REVOKE)
        revoked = sum(item.is_revoked for item in self._batch.items)

        def is_done(call: Call) -> bool:
            match call.operation:
                case Operation.CANCEL:
                    return self._batch.status == "cancelled"
                case Operation.DELETE:
                    return self._batch.is_deleted
                case Operation.DISMISS:
                    return self._batch.dismissals > 0
                case Operation.RETRY:
                    return self._new_attempts > retried_for_certain or self._was_answered(call)
                case Operation.REVOKE:
                    return revoked > revoked_for_certain or self._was_answered(call)
                case _:
                    return True  # It exists.

        return _settled((call for calls in self._calls.values() for call in calls), is_done)

    def _was_answered(self, call: Call) -> bool:
        """Whether the same call, repeated under its key, got a response."""
        return call.key is not None and any(
            other.key == call.key and other.outcome is Ending.OK for other in self._calls[call.operation]
        )

    def _counts(self) -> Broken:
        batch = self._batch
        states = Counter(item.status for item in batch.items)
        counted = Counts(len(batch.items), *(states[status] for status in ("pending", "success", "failed", "cancelled")))
        if batch.status in ACTIVE or not batch.is_completed:
            yield Rule.STUCK, f"status {batch.status}, {counted}"
        if counted != batch.counts:
            yield Rule.COUNTS, f"{batch.counts}, but its items say {counted}"
        if batch.status not in ACTIVE and batch.status != _status_of(batch.counts):
            yield Rule.STATUS, f"{batch.status} with {batch.counts}"
        if self._ends != {(batch.status, batch.counts)}:
            yield (
                Rule.END_NOT_ANNOUNCED,
                f"retry {batch.retry_number}: {batch.status} with {batch.counts}, but announced was {self._ends}",
            )
        if [item.position for item in batch.items] != list(range(len(self._submission.items))):
            yield Rule.ITEMS, f"{len(batch.items)} of {len(self._submission.items)}"

    def _items(self) -> Broken:
        corrections: dict[int, set[Values]] = defaultdict(set)
        for call in self._possible.get(Operation.RETRY, ()):
            for position, values in call.corrections.items():
                corrections[position].add(values)
        for item in self._batch.items:
            if item.position >= len(self._submission.items):
                continue
            allowed = {self._submission.items[item.position], *corrections[item.position]}
            for rule, detail in (*self._item(item, allowed), *self._activity(item), *self._attempts(item)):
                yield rule, f"position {item.position}: {detail}"

    def _item(self, item: ItemRow, allowed: set[Values]) -> Broken:
        if item.values not in allowed:
            yield Rule.VALUES, f"{item.values}, but requested was {allowed}"
        expected = expected_error(item.values)
        is_fair = (
            item.error_code == expected
            or (
                item.error_code == DUPLICATE
                and expected is None
                and item.values.identity in self._contested
                and not item.values.override_duplicates
            )
            or (
                item.error_code == PERIOD_CLOSED
                and expected not in BEFORE_THE_PERIOD
                and item.values.activity_date <= self._closed_through
            )
        )
        if item.status == "success" and expected is not None:
            yield Rule.WRONG_SUCCESS, f"should be {expected}"
        if item.status == "failed" and not is_fair:
            yield Rule.WRONG_ERROR, f"{item.error_code}, should be {expected}"
        if item.status == "cancelled" and not self._possible.get(Operation.CANCEL):
            yield Rule.WRONG_CANCEL, "cancelled, although no cancel of the batch was requested"

    def _activity(self, item: ItemRow) -> Broken:
        """Exactly one for a success, with the requested values, and none for any other item."""
        ids = [activity.activity_id for activity in item.activities]
        if item.status != "success":
            if ids or item.activity_id is not None:
                yield Rule.ACTIVITY_TOO_MANY, f"{item.status}, with {ids or item.activity_id}"
            return
        if ids != [item.activity_id]:
            yield Rule.ACTIVITY_DOUBLED if ids else Rule.ACTIVITY_LOST, f"says {item.activity_id}, found {ids}"
        for activity in item.activities:
            if (activity.values, activity.registered_by) != (item.values, COORDINATOR):
                yield Rule.ACTIVITY_VALUES, f"{activity.values} by {activity.registered_by}, item {item.values}"
            if activity.audits != 1:
                yield Rule.AUDIT, f"{activity.audits} rows for {activity.activity_id}"

    def _attempts(self, item: ItemRow) -> Broken:
        """One outcome for each attempt. All but the last failed, so no success ran again."""
        if sorted(item.outcomes) != list(range(1, item.attempt + 1)):
            yield Rule.OUTCOMES, f"attempt {item.attempt}, outcomes of {sorted(item.outcomes)}"
            return
        earlier = {outcome for attempt, (outcome, _) in item.outcomes.items() if attempt < item.attempt}
        if earlier - {"failed"}:
            yield Rule.RAN_AGAIN, f"attempts {item.outcomes}"
        if item.outcomes[item.attempt] != (item.status, item.activity_id):
            yield Rule.NOT_FOLDED, f"{item.status} {item.activity_id}, but the outcome is {item.outcomes[item.attempt]}"

    def _retries(self) -> Broken:
        certain = self._certain(Operation.RETRY)
        possible = certain + self._in_doubt(Operation.RETRY) * len(self._batch.items)
        if not certain <= self._new_attempts <= possible:
            yield Rule.RETRIES, f"{self._new_attempts} new attempts; returned were {certain}, possible {possible}"

    def _revocations(self) -> Broken:
        """As many as the calls returned. Batch, item, activity and audit agree."""
        batch = self._batch
        certain = self._certain(Operation.REVOKE)
        possible = certain + self._in_doubt(Operation.REVOKE) * len(batch.items)
        revoked = sum(item.is_revoked for item in batch.items)
        if not certain <= revoked <= possible:
            yield Rule.REVOKED, f"{revoked} items; returned were {certain}, possible {possible}"
        if batch.revoked != revoked:
            yield Rule.REVOKED_DIFFERS, f"the batch counts {batch.revoked}, but {revoked} items are revoked"
        for item in batch.items:
            told = [(activity.is_revoked, activity.revocation_audits) for activity in item.activities]
            if any(each != (item.is_revoked, int(item.is_revoked)) for each in told) or (item.is_revoked and not told):
                yield Rule.REVOKED_DIFFERS, f"position {item.position}: revoked {item.is_revoked}, activity and audit rows {told}"

    def _certain(self, operation: Operation) -> int:
        """What responses reported: new attempts, or revoked activities. Responses under one key count once."""
        answered = [call for call in self._calls[operation] if call.outcome is Ending.OK]
        return sum({call.key or id(call): call.retried or call.revoked or 0 for call in answered}.values())

    def _in_doubt(self, operation: Operation) -> int:
        """How many calls may have been carried out, which is unknown. Calls under one key count once."""
        keys = {call.key for call in self._calls[operation] if call.outcome is Ending.OK and call.key}
        unknown = [
            call for call in self._calls[operation] if call.outcome is Ending.UNKNOWN and (not call.key or call.key not in keys)
        ]
        return len({call.key or id(call) for call in unknown})

    def _cancels(self) -> Broken:
        if self._batch.status == "cancelled" and not self._possible.get(Operation.CANCEL):
            yield Rule.WRONG_CANCEL, "no cancel was requested"
        for call in self._calls[Operation.CANCEL]:
            if call.outcome is Ending.OK and (self._batch.status, self._batch.counts) != ("cancelled", call.counts):
                yield Rule.CANCEL_NOT_FINAL, f"returned {call.counts}, at the end {self._batch.status} {self._batch.counts}"

    def _deletes(self) -> Broken:
        if self._batch.is_deleted and not self._possible.get(Operation.DELETE):
            yield Rule.WRONG_DELETE, "no delete was requested"
        if not self._batch.is_deleted and any(call.outcome is Ending.OK for call in self._calls[Operation.DELETE]):
            yield Rule.DELETE_LOST, "deleted, but still visible"

    def _dismissals(self) -> Broken:
        possible = len({call.key or id(call) for call in self._possible.get(Operation.DISMISS, ())})
        if self._batch.dismissals > possible:
            yield Rule.WRONG_DISMISSAL, f"{self._batch.dismissals} times, by {possible} calls"

    def _seen(self) -> Broken:
        """Every response adds up, and an item that a client has seen registered stays registered."""
        completed: dict[int, int] = defaultdict(int)
        for seen in self._observations:
            if seen.status == GONE:
                if not any(call.began_s < seen.at_s for call in self._possible.get(Operation.DELETE, ())):
                    yield Rule.NOT_FOUND, "404 for a batch whose deletion was not requested"
                continue
            counts = seen.counts
            assert counts is not None
            if counts.total != counts.pending + counts.completed + counts.failed + counts.cancelled:
                yield Rule.SUM, f"{counts}"
            if counts.pending and seen.status not in ACTIVE:
                yield Rule.EARLY_END, f"{seen.status} with {counts}"
            if counts.completed < completed[seen.client]:
                yield Rule.WENT_BACK, f"{completed[seen.client]} completed, but later {counts.completed}"
            completed[seen.client] = counts.completed


def _status_of(counts: Counts) -> str:
    if counts.cancelled:
        return "cancelled"
    if not counts.failed:
        return "completed"
    return "partial" if counts.completed else "failed"
