"""What clients of the API do in the simulation, and what they expect of each response."""

from dataclasses import astuple
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

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
from orchestrator.storage.notes import PostgresNotes
from orchestrator.storage.templates import PostgresTemplates
from schemas.corrections import Correction
from schemas.ids import DerivedIds
from schemas.statuses import KeptBecause
from tests.simulation.example import Example, codes, fates, groups, indexes, operation, overriding, words
from tests.simulation.model import (
    CODES,
    COORDINATOR,
    DAYS,
    ORGANIZATIONS,
    Asked,
    DismissalAsked,
    RetryAsked,
    RevocationAsked,
    TemplateAsked,
    items_of,
    values_of,
)
from tests.simulation.snapshot import Group, Values
from tests.simulation.world import Fate, Unanswered

# A period is mostly open, so that there is something to do.
CLOSINGS = (None, None, None, DAYS[0] - timedelta(days=1), DAYS[0], DAYS[1])
# The caller is an administrator, for whom there is no time limit.
_POLICY = RevocationPolicy(timedelta(days=30))


class Clients(Example):
    """The steps of clients."""

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
        self._do(call, fate, f"submit {asked.batch_id}: {words(items)}")

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
