"""Everything that may happen, at random. Hypothesis chooses the steps, and shrinks a failing history to the shortest that still fails."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from orchestrator.batches import operations, templates
from orchestrator.batches.erasing import erase_notes
from orchestrator.batches.errors import OperationError
from orchestrator.batches.model import (
    Actor,
    BatchView,
    Cancelled,
    CorrectedItem,
    Idempotency,
    ItemValues,
    NewBatch,
    NewItem,
    Retried,
    RetryRequest,
    RevocationRequest,
    Revoked,
    RevokedActivity,
    Role,
    Submitted,
    TemplateValues,
    TemplateView,
)
from orchestrator.batches.periods import PeriodRequest, PeriodSaved
from orchestrator.batches.revoke import RevocationPolicy, revoke_activity, revoke_batch
from orchestrator.process.failpoints import Failpoint
from orchestrator.storage.notes import PostgresNotes
from orchestrator.storage.templates import PostgresTemplates
from schemas.corrections import Correction
from schemas.envelope import CONTENT_TYPE_JSON, OutgoingEvent, Topic
from schemas.events import BATCH_SUBMITTED
from schemas.ids import DerivedIds
from schemas.statuses import KeptBecause
from tests.simulation.broker import Fetch, Outage, Stored
from tests.simulation.database import Database
from tests.simulation.forgery import FORGERIES, forged
from tests.simulation.model import (
    CODES,
    COORDINATOR,
    DAYS,
    MENTORS,
    ORGANIZATIONS,
    TYPES,
    Asked,
    DismissalAsked,
    RetryAsked,
    RevocationAsked,
    TemplateAsked,
    items_of,
    values_of,
)
from tests.simulation.processes import places_of
from tests.simulation.snapshot import BatchRow, Group, Values
from tests.simulation.tally import changes
from tests.simulation.world import Action, Fate, Unanswered, World

ROLES = ("splitter", "registration", "aggregator")
LOSABLE = (Topic.COMMANDS, Topic.COMMANDS_BULK, Topic.RESULTS)
CONSUMED = (Topic.BATCHES, *LOSABLE)
CHANGES = ("south_in_scope", "newcomer_known", "leaver_left", "talks_known")
# A period is mostly open, so that there is something to do.
CLOSINGS = (None, None, None, DAYS[0] - timedelta(days=1), DAYS[0], DAYS[1])
UPSTREAM = "/services/attendance"
# The caller is an administrator, for whom there is no time limit.
_POLICY = RevocationPolicy(timedelta(days=30))
# The number from which a batch id is made, because ids must be the same when an example is run again. 2026-03-26, in milliseconds.
FIRST_MILLISECOND = 1_774_500_000_000

indexes = st.integers(0, 1_000)
codes = st.lists(st.integers(0, CODES - 1), min_size=1, max_size=7)
# Of each item in turn, whether it overrides duplicates: most often all of a batch do, or none.
overriding = st.one_of(
    st.lists(st.booleans(), min_size=1, max_size=1),
    st.lists(st.booleans(), min_size=1, max_size=1),
    st.lists(st.booleans(), min_size=2, max_size=4),
)
groups = st.builds(
    Group,
    name=st.sampled_from(["Monday's", "Tuesday's"]),
    mentor_ids=st.lists(st.sampled_from(MENTORS), min_size=1, max_size=3, unique=True).map(tuple),
    activity_type=st.sampled_from(TYPES),
    duration_minutes=st.sampled_from([30, 60]),
    weekday=st.none() | st.integers(1, 7),
)


def fates_at(*labels: str) -> st.SearchStrategy[Fate]:
    """Stops at one of these labels, or at the nth point that a run passes: statements, commits, failpoints and records."""
    return st.one_of(
        st.builds(Fate, stop_at=st.sampled_from(labels), crash=st.booleans()),
        st.builds(Fate, stop_at=st.integers(0, 15), crash=st.booleans()),
    )


CONSUMER_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("consumer.")]
NOTARY_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("notary.")]
RELAY_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("relay.")]
# Most clients get a response. Most turns of a process end early, because there are many, and the next one repeats what is missing.
fates = st.one_of(st.none(), st.none(), fates_at("COMMIT", "answer"))
consumer_fates = st.one_of(st.none(), fates_at("COMMIT", "COMMIT", "COMMIT", "produce", *CONSUMER_FAILPOINTS))
notary_fates = st.one_of(st.none(), fates_at("COMMIT", *NOTARY_FAILPOINTS))
relay_fates = st.one_of(st.none(), fates_at("produce", *RELAY_FAILPOINTS))


_operations: dict[str, tuple[int, st.SearchStrategy[dict[str, Any]]]] = {}


def operation(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a method one of the possible steps. The weight says how often it is drawn, compared with the others.

    This is not a rule of Hypothesis, which leaves out half of its rules in each example, and an example without consumers finds little.
    There are no preconditions, because a draw may depend only on earlier draws. A method that finds nothing to do just returns.
    """

    def register(method: Callable[..., None]) -> Callable[..., None]:
        _operations[method.__name__] = (weight, st.fixed_dictionaries(arguments))
        return method

    return register


def _some_operation() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    weighted = [name for name, (weight, _) in _operations.items() for _ in range(weight)]
    return st.sampled_from(weighted).flatmap(lambda name: st.tuples(st.just(name), _operations[name][1]))


class Coverage:
    """How many steps really ran, over all examples, how often a run died at which point, and what has changed."""

    def __init__(self) -> None:
        self.steps = 0
        self.deaths: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.rival_changes: Counter[str] = Counter()
        """Those of the steps, without the ends of the histories, that happened while another run waited inside its work."""


class Simulation(RuleBasedStateMachine):
    """One example. The caller (`test_simulation.py`) sets `database` and `coverage`."""

    database: Database
    coverage: Coverage

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.database)
        self._is_sound = True
        self._numbers = 0

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Counts and describes the step, and checks its result."""
        self._is_sound = False
        told: list[str] = []
        before, somebody_waits = self.world.snapshot, self.world.somebody_waits
        try:
            yield told
            self.world.check()
        finally:
            note(what + "".join(told))
        self._is_sound = True
        self.coverage.steps += 1
        changed = changes(before, self.world.snapshot)
        self.coverage.changes += changed
        if somebody_waits:
            self.coverage.rival_changes += changed

    def teardown(self) -> None:
        """Everything accepted must end, unless the example has failed already."""
        try:
            if self._is_sound:
                before = self.world.snapshot
                self.world.quiesce()
                self.coverage.changes += changes(before, self.world.snapshot)
        finally:
            self.coverage.deaths += self.world.deaths
            self.world.close()

    def _pick(self, index: int, suits: Callable[[BatchRow], bool] | None = None) -> Asked:
        """A batch. Three times in four it suits, if any does."""
        known, batches = self.world.model.known(), self.world.snapshot.batches
        suitable = [asked for asked in known if suits and asked.batch_id in batches and suits(batches[asked.batch_id])]
        chosen = suitable if suitable and index % 4 else known
        return chosen[-1 - index // 4 % len(chosen)]

    def _do(self, action: Action, fate: Fate | None, what: str) -> None:
        with self.step(what) as told:
            told.append(self.world.perform(action, fate))

    def _new_id(self) -> UUID:
        self._numbers += 1
        time = FIRST_MILLISECOND + self._numbers
        return UUID(int=(time << 80) | (7 << 76) | (2 << 62) | (self._numbers * 0x9E3779B97F4A7C15 & ((1 << 62) - 1)))

    # --- Clients ------------------------------------------------------------------------------------------------------------

    @initialize(codes=codes, organization=st.sampled_from(ORGANIZATIONS), parts=st.none() | st.integers(1, 3))
    def begin(self, codes: list[int], organization: str, parts: int | None) -> None:
        """A history without a batch would find nothing."""
        items = items_of(codes)
        if parts is None:
            self._submit(Asked(str(self._new_id()), organization, [items], key=f"key-{self._numbers}"), None)
        else:
            self._send_batch(Asked(str(self._new_id()), organization, [items], parts=min(parts, len(items))))

    @operation(8, codes=codes, overriding=overriding, organization=st.sampled_from(ORGANIZATIONS), fate=fates)
    def submit(self, codes: list[int], overriding: list[bool], organization: str, fate: Fate | None) -> None:
        items = items_of(codes, overriding=overriding)
        asked = Asked(str(self._new_id()), organization, [items], key=f"key-{self._numbers}")
        self._submit(asked, fate)

    @operation(4, index=indexes, fate=fates)
    def submit_beside(self, index: int, fate: Fate | None) -> None:
        """A submission that overrides, for somebody who is registered already, so that two activities stand beside each other."""
        living = sorted(activity for activity in self.world.snapshot.activities.values() if not activity.is_revoked)
        if not living:
            return
        other = living[index % len(living)]
        values = Values(
            other.mentor_id, other.activity_type, other.activity_date, other.duration_minutes, None, override_duplicates=True
        )
        asked = Asked(str(self._new_id()), other.organization_id, [(values,)], key=f"key-{self._numbers}")
        self._submit(asked, fate)

    @operation(3, index=indexes, fate=fates)
    def submit_again_with_the_same_key(self, index: int, fate: Fate | None) -> None:
        first = self._pick(index, lambda batch: not batch.is_deleted)
        if first.key is not None:  # Otherwise it came from upstream.
            again = Asked(str(self._new_id()), first.organization_id, first.variants, key=first.key)
            self._submit(again, fate)

    def _submit(self, asked: Asked, fate: Fate | None) -> None:
        assert asked.key is not None
        model = self.world.model
        items = asked.variants[0]
        model.asked[asked.batch_id] = asked
        batch = NewBatch(
            UUID(asked.batch_id),
            COORDINATOR,
            None,
            items[0].override_duplicates,
            [NewItem(ItemValues(*values)) for values in items],
            UUID(asked.batch_id).hex,
        )
        idempotency = Idempotency(asked.key, asked.key.encode())

        def done(answer: Submitted | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                deleted = [other for other in model.known() if other.key == asked.key and other.delete_asked]
                assert answer.code == "batch_deleted", f"the submission was refused: {answer.code}"
                assert deleted, "the batch of this key was never deleted"
            elif isinstance(answer, Submitted):
                accepted = model.asked[str(answer.batch.batch_id)]
                assert accepted.key == asked.key, "the response belongs to another request"
                accepted.is_accepted = True
                self._judge_answer(answer.batch)

        call = self.world.call("the submission", operations.submit_bulk_registration, _actor(asked), done, batch, idempotency)
        self._do(call, fate, f"submit {asked.batch_id}: {_words(items)}")

    @operation(4, index=indexes, fate=fates)
    def cancel(self, index: int, fate: Fate | None) -> None:
        asked = self._pick(index, lambda batch: not batch.is_completed)
        asked.cancel_asked = True

        def done(answer: Cancelled | OperationError | Unanswered) -> None:
            if isinstance(answer, Cancelled):
                asked.is_cancelled = True
                assert not answer.unresolved, "without an external service nothing is unresolved"
                self._judge_answer(answer.batch)
            elif isinstance(answer, OperationError):
                assert answer.code in ("batch_not_found", "batch_finished"), f"the cancel was refused: {answer.code}"

        call = self.world.call("the cancel", operations.cancel_batch, _actor(asked), done, UUID(asked.batch_id), None)
        self._do(call, fate, f"cancel {asked.batch_id}")

    @operation(
        7,
        index=indexes,
        positions=st.none() | st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True),
        corrections=st.lists(st.integers(0, CODES - 1), max_size=2),
        fate=fates,
    )
    def retry(self, index: int, positions: list[int] | None, corrections: list[int], fate: Fate | None) -> None:
        asked = self._pick(index, lambda batch: bool(batch.failed) and not batch.is_cancelled)
        size = len(asked.variants[0])
        ids = DerivedIds(UUID(asked.batch_id))
        chosen = None if positions is None else sorted({position % size for position in positions})
        # A correction selects its item, so with corrections the items are always named.
        changes = {position: _correction(code) for position, code in zip(chosen or (), corrections, strict=False)}
        ask = RetryAsked(None if chosen is None else frozenset(chosen), changes)
        asked.retries.append(ask)
        request = RetryRequest(
            None if chosen is None else [ids.item_id(position) for position in chosen],
            corrections=[CorrectedItem(ids.item_id(position), values) for position, values in changes.items()],
        )

        def done(answer: Retried | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                ask.begun = 0
                known = ("batch_not_found", "batch_cancelled", "item_not_failed", "item_retried_already", "invalid_request")
                assert answer.code in known, f"the retry was refused: {answer.code}"
            elif isinstance(answer, Retried):
                ask.begun = answer.retried
                self._judge_answer(answer.batch)

        call = self.world.call("the retry", operations.retry_failed_items, _actor(asked), done, UUID(asked.batch_id), request)
        self._do(call, fate, f"retry {asked.batch_id} {chosen} {changes}")

    @operation(
        6,
        index=indexes,
        positions=st.none() | st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True),
        fate=fates,
    )
    def revoke(self, index: int, positions: list[int] | None, fate: Fate | None) -> None:
        asked = self._pick(index, lambda batch: bool(batch.completed) and not batch.pending and not batch.is_deleted)
        size, ids = len(asked.variants[0]), DerivedIds(UUID(asked.batch_id))
        chosen = None if positions is None else sorted({position % size for position in positions})
        ask = RevocationAsked(None if chosen is None else frozenset(chosen))
        asked.revocations.append(ask)
        request = RevocationRequest("a mistake", None if chosen is None else [ids.item_id(position) for position in chosen])

        def done(answer: Revoked | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                ask.revoked = 0
                known = ("batch_not_found", "batch_running", "invalid_request")
                assert answer.code in known, f"the revocation was refused: {answer.code}"
            elif isinstance(answer, Revoked):
                ask.revoked = answer.revoked
                reasons = {KeptBecause.NOT_REGISTERED, KeptBecause.PERIOD_CLOSED}
                assert {kept.code for kept in answer.kept} <= reasons, f"kept without a reason: {answer.kept}"
                self._judge_answer(answer.batch)

        call = self.world.call_with(
            "the revocation",
            self.world.database.pipeline.records,
            revoke_batch,
            _actor(asked),
            done,
            UUID(asked.batch_id),
            request,
            _POLICY,
        )
        self._do(call, fate, f"revoke {asked.batch_id} {chosen}")

    @operation(3, index=indexes, fate=fates)
    def revoke_one(self, index: int, fate: Fate | None) -> None:
        """Revokes an activity by its id, even if its batch is deleted or purged."""
        activities = sorted(self.world.snapshot.activities.values())
        if not activities:
            return
        activity = activities[index % len(activities)]
        asked = self.world.model.asked[activity.batch_id]
        ask = RevocationAsked(frozenset({activity.position}))
        asked.revocations.append(ask)

        def done(answer: RevokedActivity | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                ask.revoked = 0
                assert answer.code == KeptBecause.PERIOD_CLOSED, f"the revocation was refused: {answer.code}"
            elif isinstance(answer, RevokedActivity):
                ask.revoked = int(not answer.was_revoked_before)

        call = self.world.call_with(
            "the revocation of one",
            self.world.database.pipeline.records,
            revoke_activity,
            _actor(asked),
            done,
            UUID(activity.activity_id),
            "a mistake",
            _POLICY,
        )
        self._do(call, fate, f"revoke the activity of {activity.batch_id}, {activity.position}")

    @operation(4, index=indexes, position=st.integers(0, 6), fate=fates)
    def erase(self, index: int, position: int, fate: Fate | None) -> None:
        """Erases the notes of an item, whatever state it is in, even if its batch is deleted or purged."""
        asked = self._pick(index)
        chosen = position % len(asked.variants[0])
        asked.erasures_asked.add(chosen)

        def done(answer: bool | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                known = ("batch_not_found", "item_not_found")
                assert answer.code in known, f"the erasure was refused: {answer.code}"
            elif isinstance(answer, bool):
                asked.erased.add(chosen)

        item_id = DerivedIds(UUID(asked.batch_id)).item_id(chosen)
        call = self.world.call_with("the erasure", PostgresNotes, erase_notes, _actor(asked), done, UUID(asked.batch_id), item_id)
        self._do(call, fate, f"erase the notes of {asked.batch_id}, {chosen}")

    @operation(4, organization=st.sampled_from(ORGANIZATIONS), day=st.sampled_from(CLOSINGS), fate=fates)
    def close_period(self, organization: str, day: date | None, fate: Fate | None) -> None:
        self.world.model.closings[organization].add(day)

        def done(answer: PeriodSaved | OperationError | Unanswered) -> None:
            assert not isinstance(answer, OperationError), f"the closing was refused: {answer.code}"
            if isinstance(answer, PeriodSaved):
                assert answer.period.closed_through == day, f"asked to close through {day}, and the answer is {answer.period}"

        actor = Actor(organization, "boss", Role.ADMIN)
        call = self.world.close_period(actor, PeriodRequest(day, "a report"), done)
        self._do(call, fate, f"close {organization} through {day}")

    @operation(4, index=indexes, fate=fates)
    def delete(self, index: int, fate: Fate | None) -> None:
        asked = self._pick(index, lambda batch: batch.is_completed and not batch.is_deleted)
        asked.delete_asked = True

        def done(answer: OperationError | Unanswered | None) -> None:
            if isinstance(answer, OperationError):
                assert answer.code in ("batch_not_found", "batch_running"), f"the delete was refused: {answer.code}"

            elif answer is None:
                asked.is_deleted = True

        call = self.world.call("the delete", operations.delete_batch, _actor(asked), done, UUID(asked.batch_id))
        self._do(call, fate, f"delete {asked.batch_id}")

    @operation(2, index=indexes, label=st.sampled_from(["Monday", "Tuesday"]), fate=fates)
    def relabel(self, index: int, label: str, fate: Fate | None) -> None:
        asked = self._pick(index)

        def done(answer: BatchView | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                assert answer.code == "batch_not_found", f"the label was refused: {answer.code}"

        call = self.world.call("the label", operations.relabel_batch, _actor(asked), done, UUID(asked.batch_id), label)
        self._do(call, fate, f"relabel {asked.batch_id} {label}")

    @operation(3, index=indexes, again=st.booleans(), fate=fates)
    def dismiss(self, index: int, again: bool, fate: Fate | None) -> None:
        """Somebody is done with what has failed. `again`: repeats an earlier call, which must not hide what has failed since."""
        asked = self._pick(index, lambda batch: bool(batch.failed) and not batch.is_cancelled and not batch.is_deleted)
        if again and asked.dismissals:
            ask = asked.dismissals[index % len(asked.dismissals)]
        else:
            self._numbers += 1
            ask = DismissalAsked(f"dismissal-{self._numbers}")
            asked.dismissals.append(ask)

        def done(answer: BatchView | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                ask.refusals += 1
                assert answer.code == "batch_not_found", f"the dismissal was refused: {answer.code}"
            elif isinstance(answer, BatchView):
                assert again or not answer.needs_attention, f"{asked.batch_id} was dismissed, and needs attention"
                self._judge_answer(answer)

        ask.calls += 1
        idempotency = Idempotency(ask.key, ask.key.encode())
        call = self.world.call(
            "the dismissal", operations.dismiss_batch, _actor(asked), done, UUID(asked.batch_id), idempotency=idempotency
        )
        self._do(call, fate, f"dismiss {asked.batch_id}{', again' if again else ''}")

    # --- Templates ------------------------------------------------------------------------------------------------------------

    @operation(2, group=groups, organization=st.sampled_from(ORGANIZATIONS), again=indexes, fate=fates)
    def save_template(self, group: Group, organization: str, again: int, fate: Fate | None) -> None:
        """A new one, or one time in three an earlier request with its key."""
        tried = list(self.world.model.templates.values())
        template_id = self._new_id()
        new = TemplateAsked(organization, f"template-{self._numbers}", [group])
        asked = tried[again % len(tried)] if tried and not again % 3 else new
        self.world.model.templates[str(template_id)] = asked

        def done(answer: templates.Saved | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                assert answer.code == "template_deleted", f"the template was refused: {answer.code}"
                assert asked.delete_asked, f"the template {asked.template_id} was never deleted"
            elif isinstance(answer, templates.Saved):
                saved = str(answer.template.template_id)
                assert self.world.model.templates[saved] is asked, "the answer is another request's"
                assert asked.template_id in (None, saved), f"the answer is {saved}, and it was saved as {asked.template_id}"
                asked.template_id, asked.is_accepted = saved, True

        values = TemplateValues(*asked.groups[0])
        # The time is the database's.
        view = TemplateView(template_id, asked.organization_id, COORDINATOR, values, 1, datetime.min.replace(tzinfo=UTC))
        idempotency = Idempotency(asked.key, asked.key.encode())
        call = self.world.call_with(
            "the saving", PostgresTemplates, templates.create_template, _admin(asked), done, view, idempotency
        )
        self._do(call, fate, f"save {asked.key} as {template_id}")

    @operation(2, index=indexes, group=groups, fate=fates)
    def replace_template(self, index: int, group: Group, fate: Fate | None) -> None:
        if (asked := self._some_template(index)) is None or asked.template_id is None:
            return
        asked.groups.append(group)
        number, was_alone = len(asked.groups), not self.world.somebody_waits
        answered: list[TemplateView] = []

        def done(answer: TemplateView | OperationError | Unanswered) -> None:
            if isinstance(answer, OperationError):
                assert answer.code == "template_not_found", f"the change was refused: {answer.code}"
            elif isinstance(answer, TemplateView):
                assert Group(*astuple(answer.values)) == group, f"the template {asked.template_id} was answered with other values"
                answered.append(answer)

        key = Idempotency(f"{asked.key} {number}", b"")
        identity, values = UUID(asked.template_id), TemplateValues(*group)
        call = self.world.call_with(
            "the change", PostgresTemplates, templates.replace_template, _admin(asked), done, identity, values, key
        )
        self._do(call, fate, f"replace {asked.template_id}")
        if answered and was_alone:
            assert self.world.snapshot.templates[asked.template_id].group == group, f"the change of {asked.template_id} is lost"

    @operation(1, index=indexes, fate=fates)
    def delete_template(self, index: int, fate: Fate | None) -> None:
        if (asked := self._some_template(index)) is None or asked.template_id is None:
            return
        asked.delete_asked = True
        self._numbers += 1

        def done(answer: OperationError | Unanswered | None) -> None:
            if isinstance(answer, OperationError):
                assert answer.code == "template_not_found", f"the deletion was refused: {answer.code}"

        key = Idempotency(f"{asked.key} deleted {self._numbers}", b"")
        identity = UUID(asked.template_id)
        call = self.world.call_with(
            "the deletion", PostgresTemplates, templates.delete_template, _admin(asked), done, identity, key
        )
        self._do(call, fate, f"delete the template {asked.template_id}")

    def _some_template(self, index: int) -> TemplateAsked | None:
        saved = [asked for asked in self.world.model.templates.values() if asked.template_id is not None]
        return saved[index % len(saved)] if saved else None

    @operation(1, index=indexes)
    def strangers_see_nothing(self, index: int) -> None:
        asked = self._pick(index)
        stranger = Actor(next(o for o in ORGANIZATIONS if o != asked.organization_id), "boss", Role.ADMIN)
        refusals: list[object] = []
        call = self.world.call("the stranger", operations.cancel_batch, stranger, refusals.append, UUID(asked.batch_id), None)
        with self.step(f"a stranger cancels {asked.batch_id}") as told:
            told.append(self.world.perform(call))
            [refusal] = refusals
            assert isinstance(refusal, OperationError)
            assert refusal.code == "batch_not_found", refusal.code

    def _judge_answer(self, batch: BatchView) -> None:
        """What a client reads of a batch is one snapshot of it."""
        total = len(self.world.model.asked[str(batch.batch_id)].variants[0])
        assert batch.counts.total == total, f"the response counts {batch.counts} of {total} items"

    # --- Upstream services -----------------------------------------------------------------------------------------------------

    @operation(
        6, codes=codes, overriding=overriding, organization=st.sampled_from(ORGANIZATIONS), parts=st.integers(1, 3), flaw=indexes
    )
    def upstream_batch(self, codes: list[int], overriding: list[bool], organization: str, parts: int, flaw: int) -> None:
        items = items_of(codes, overriding=overriding)
        asked = Asked(str(self._new_id()), organization, [items], parts=min(parts, len(items)))
        # One in twenty has one item too many, so its positions are not 0 to total - 1.
        asked.is_wrong = flaw % 20 == 19
        self._send_batch(asked)

    def _send_batch(self, asked: Asked) -> None:
        self.world.model.asked[asked.batch_id] = asked
        with self.step(f"an upstream batch {asked.batch_id} in {asked.parts} parts: {_words(asked.variants[0])}"):
            self.send_part(asked, 1)

    @operation(5, index=indexes, part=st.integers(1, 3))
    def upstream_part(self, index: int, part: int) -> None:
        asked = self._pick(index)
        if asked.parts is not None:
            number = 1 + part % asked.parts
            with self.step(f"upstream sends part {number} of {asked.batch_id}"):
                self.send_part(asked, number)

    @operation(3, index=indexes)
    def upstream_contradicts(self, index: int) -> None:
        """Reuses the id of an existing batch with another item, or for another organization. The batch must continue unchanged."""
        asked = self._pick(index)
        if asked.batch_id in self.world.snapshot.batches and len(asked.variants) == 1:
            other = next(o for o in ORGANIZATIONS if o != asked.organization_id) if index % 2 else asked.organization_id
            values = asked.variants[0][0]._replace(duration_minutes=77)
            if other == asked.organization_id and asked.parts is not None:
                # The batch may be forgotten before this arrives. Then this is the batch.
                asked.variants.append((values, *asked.variants[0][1:]))
            elif self.world.snapshot.batches[asked.batch_id].status == "pending":
                return
            with self.step(f"upstream contradicts {asked.batch_id} for {other}"):
                self._send(asked, other, 1, asked.parts or 1, [(0, values)], len(asked.variants[0]))

    def send_part(self, asked: Asked, part: int) -> None:
        """Writes a part of an upstream batch to the topic, as its sender does."""
        assert asked.parts is not None
        numbered = list(enumerate(asked.variants[0]))
        rows = [row for row in numbered if row[0] % asked.parts == part - 1]
        if asked.is_wrong and part == 1:
            rows.append((len(numbered) + 3, rows[0][1]))
        asked.parts_sent.add(part)
        self._send(asked, asked.organization_id, part, asked.parts, rows, len(numbered))

    def _send(self, asked: Asked, organization: str, part: int, parts: int, rows: list[tuple[int, Values]], total: int) -> None:
        self._numbers += 1
        override = asked.variants[0][0].override_duplicates
        # An item says whether it overrides duplicates where the batch says otherwise.
        items = [
            {"position": position}
            | {name: v for name, v in values._asdict().items() if name != "override_duplicates" or v != override}
            for position, values in rows
        ]
        data = {
            "batch_id": asked.batch_id,
            "organization_id": organization,
            "coordinator_id": COORDINATOR,
            "override_duplicates": override,
            "part": part,
            "parts": parts,
            "total_items": total,
            "items": items,
        }
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", f"upstream-{self._numbers}".encode()),
            ("ce_source", UPSTREAM.encode()),
            ("ce_type", BATCH_SUBMITTED.encode()),
            ("content-type", CONTENT_TYPE_JSON),
        )
        self.world.broker.append(OutgoingEvent(Topic.BATCHES, asked.batch_id, headers, orjson.dumps(data)))

    # --- Processes --------------------------------------------------------------------------------------------------------------

    @operation(
        12,
        relay=st.integers(0, 1),
        acknowledged=st.none() | st.integers(0, 3),
        stored=st.integers(0, 2),
        silent=st.booleans(),
        fate=relay_fates,
    )
    def relay(self, relay: int, acknowledged: int | None, stored: int, silent: bool, fate: Fate | None) -> None:
        outage = None if acknowledged is None else Outage(acknowledged, acknowledged + stored, silent)
        process = self.world.relays[relay]
        if self.world.snapshot.outbox:
            self._do(self.world.relay(process, outage), fate, f"{process.name}{'' if outage is None else f', {outage}'}")

    def _consume(self, role: str, member: int, records: int, seed: int, fate: Fate | None, *, refused: bool = False) -> None:
        busy = self.world.busy(role)
        if not busy:
            return
        process = busy[member % len(busy)]
        action = self.world.consume(process, Fetch(records, seed), commit_refused=refused)
        self._do(action, fate, f"{process.name} takes {records} records{', its commits are refused' if refused else ''}")

    @operation(8, member=st.integers(0, 1), records=st.integers(1, 4), seed=indexes, fate=consumer_fates)
    def splitter(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("splitter", member, records, seed, fate)

    @operation(12, member=st.integers(0, 1), records=st.integers(1, 8), seed=indexes, fate=consumer_fates)
    def registration(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("registration", member, records, seed, fate)

    @operation(10, member=st.integers(0, 1), records=st.integers(1, 8), seed=indexes, fate=consumer_fates)
    def aggregator(self, member: int, records: int, seed: int, fate: Fate | None) -> None:
        self._consume("aggregator", member, records, seed, fate)

    @operation(3, role=indexes, member=st.integers(0, 1), seed=indexes)
    def commit_is_refused(self, role: int, member: int, seed: int) -> None:
        busy = [each for each in ROLES if self.world.busy(each)]
        if busy:
            self._consume(busy[role % len(busy)], member, 4, seed, None, refused=True)

    @operation(8, records=st.integers(1, 8), seed=indexes, victim=indexes, fate=consumer_fates | relay_fates)
    def everybody(self, records: int, seed: int, victim: int, fate: Fate | None) -> None:
        """A turn of each. One of them has a fate."""
        if self.world.is_idle:
            return
        with self.step(f"everybody takes {records} records") as told:
            actions = self.world.everybody(Fetch(records, seed))
            for number, action in enumerate(actions):
                what = self.world.perform(action, fate if number == victim % len(actions) else None)
                told.append(f"; {action.name}{what}" if what else "")

    @operation(4, patience=st.booleans(), parts=st.integers(0, 9), fate=fates)
    def sweep(self, patience: bool, parts: int, fate: Fate | None) -> None:
        action = self.world.sweep(patience=patience, parts_patience=parts < 9)
        self._do(action, fate, f"the sweeper, patience {patience}, with parts {parts < 9}")

    @operation(5, fate=notary_fates)
    def notary(self, fate: Fate | None) -> None:
        self._do(self.world.notary(), fate, "the notary")

    @operation(3, fate=fates)
    def purge(self, fate: Fate | None) -> None:
        if any(batch.is_deleted for batch in self.world.snapshot.batches.values()):
            self._do(self.world.purge(), fate, "the purge")

    @operation(2, fate=fates)
    def replay(self, fate: Fate | None) -> None:
        self._do(self.world.replay([]), fate, "the replay")

    @operation(
        15,
        what=st.sampled_from(["cancel", "cancel", "retry", "delete", "revoke", "close", "registration", "aggregator"]),
        index=indexes,
    )
    def rival(self, what: str, index: int) -> None:
        """One run waits inside its work, and another one comes that may want the same rows."""
        if not self.world.somebody_waits:
            return
        if what == "cancel":
            self.cancel(index, None)
        elif what == "retry":
            self.retry(index, None, [], None)
        elif what == "delete":
            self.delete(index, None)
        elif what == "revoke":
            self.revoke(index, None, None)
        elif what == "close":
            self.close_period(ORGANIZATIONS[index % 2], CLOSINGS[index % len(CLOSINGS)], None)
        else:
            self._consume(what, index, 8, index, None)

    @operation(5, crash=st.booleans())
    def go_on(self, crash: bool) -> None:
        if self.world.somebody_waits:
            with self.step("go on: ") as told:
                told.append(self.world.resume(crash=crash))

    # --- Trouble ----------------------------------------------------------------------------------------------------------------

    @operation(3, role=st.sampled_from(ROLES), place=indexes, member=st.integers(0, 1), announced=st.booleans())
    def partition_moves(self, role: str, place: int, member: int, announced: bool) -> None:
        process = self.world.roles[role][member]
        places = places_of(process.handler)
        moved = places[place % len(places)]
        with self.step(f"{moved[0]}/{moved[1]} moves to {process.name}{'' if announced else ', and the last owner is not told'}"):
            self.world.broker.give(moved, process.consumer, announced=announced)

    @operation(3, role=st.sampled_from(ROLES), member=st.integers(0, 1))
    def consumer_is_killed(self, role: str, member: int) -> None:
        process = self.world.roles[role][member]
        with self.step(f"{process.name} is killed"):
            self.world.die(process)
            process.restart()

    @operation(2, relay=st.integers(0, 1), notices=st.booleans())
    def relay_loses_its_session(self, relay: int, notices: bool) -> None:
        process = self.world.relays[relay]
        with self.step(f"{process.name} {'is killed' if notices else 'loses its session'}"):
            if notices:
                self.world.die(process)
                process.stop()
            else:
                process.cut()

    @operation(2)
    def late_copies_arrive(self) -> None:
        if self.world.broker.late:
            with self.step("what a producer had in hand arrives late"):
                self.world.broker.late_copies_arrive()

    @operation(2, index=indexes)
    def offsets_expire(self, index: int) -> None:
        groups = sorted({group for (group, _), offset in self.world.broker.committed.items() if offset})
        if groups:
            role = groups[index % len(groups)]
            with self.step(f"the offsets of {role} expire"):
                for process in self.world.roles[role]:
                    self.world.die(process)
                self.world.forget_offsets(role)

    def _stored(self, *topics: Topic) -> list[Stored]:
        return [record for topic in topics for record in self.world.broker.stored(topic)]

    @operation(3, index=indexes)
    def record_is_doubled(self, index: int) -> None:
        stored = self._stored(*CONSUMED)
        if stored:
            record = stored[-1 - index % len(stored)]
            with self.step(f"{record.topic}/{record.partition}@{record.offset} is sent once more"):
                self.world.broker.append(record.event)

    @operation(3, index=indexes, kind=st.sampled_from(sorted(FORGERIES)), another=st.booleans())
    def event_is_forged(self, index: int, kind: str, another: bool) -> None:
        """Another writer of the batches topic claims that the product has written this."""
        asked = self._pick(index)
        organization = next(o for o in ORGANIZATIONS if o != asked.organization_id) if another else asked.organization_id
        batch = self.world.snapshot.batches.get(asked.batch_id)
        self._numbers += 1
        version = batch.version if batch else 1
        with self.step(f"{kind} of {asked.batch_id} is forged for {organization}"):
            self.world.forge(forged(kind, self._numbers, asked.batch_id, organization, len(asked.variants[0]), version))

    @operation(1, index=indexes)
    def record_is_lost(self, index: int) -> None:
        """Rare, because only the sweeper can drive on what was lost, and the other promises are about what was not."""
        stored = self._stored(*LOSABLE)
        if stored:
            record = stored[-1 - index % len(stored)]
            with self.step(f"{record.topic}/{record.partition}@{record.offset} is lost"):
                self.world.broker.lost.add(record.place)
                self.world.model.lost |= {attempt[:2] for attempt in self.world.ledger.named(record.event).attempts}

    @operation(
        4,
        organization=st.sampled_from(ORGANIZATIONS),
        change=st.sampled_from(CHANGES),
    )
    def directory_changes(self, organization: str, change: str) -> None:
        with self.step(f"the directory of {organization}: {change} turns round"):
            self.world.change_directory(organization, change)

    # --- Chance -----------------------------------------------------------------------------------------------------------------

    @rule(what=_some_operation())
    def happens(self, what: tuple[str, dict[str, Any]]) -> None:
        """One of all these."""
        name, arguments = what
        getattr(self, name)(**arguments)


def _actor(asked: Asked) -> Actor:
    return Actor(asked.organization_id, "boss", Role.ADMIN)


def _admin(asked: TemplateAsked) -> Actor:
    return Actor(asked.organization_id, "boss", Role.ADMIN)


def _correction(code: int) -> Correction:
    values = values_of(code, override=bool(code % 2))
    return {
        "mentor_id": values.mentor_id,
        "activity_date": values.activity_date,
        "override_duplicates": values.override_duplicates,
    }


def _words(items: tuple[Values, ...]) -> str:
    return "; ".join(" ".join(str(value) for value in values if value is not None) for values in items)
