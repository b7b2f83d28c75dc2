"""What must hold after every step: each row by itself, each change of a row, and that every pending item still has a record under way.

The status rules are implemented here a second time on purpose, because the product's own would agree with themselves.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from schemas.envelope import Topic
from tests.simulation.broker import Broker, Stored
from tests.simulation.forgery import FORGED_LABEL
from tests.simulation.ledger import Attempt, Ledger
from tests.simulation.model import COORDINATOR, Model
from tests.simulation.snapshot import ActivityRow, BatchRow, ItemRow, OutcomeRow, Snapshot

_COUNTED = ("pending", "success", "failed", "cancelled")
_TERMINAL = ("completed", "partial", "failed", "cancelled")


def check_step(before: Snapshot, after: Snapshot, model: Model, ledger: Ledger, broker: Broker) -> None:
    """Raises AssertionError, with what is wrong, if this step has broken a promise."""
    ledger.decided(after)
    _outcomes(before, after, model)
    _items(before, after, model)
    _batches(before, after, model)
    _activities(before, after, model)
    _templates(before, after, model)
    _periods(before, after, model)
    _nothing_is_forgotten(after, model, ledger, broker)


# --- Outcomes: one each, never changed, each with a reason ----------------------------------------------------------------------


def _outcomes(before: Snapshot, after: Snapshot, model: Model) -> None:
    for key, outcome in before.outcomes.items():
        if key[0] in after.purged and key not in after.outcomes:
            continue
        assert after.outcomes.get(key) == outcome, f"the outcome of {key} was {outcome} and is {after.outcomes.get(key)}"
    for key in after.outcomes.keys() - before.outcomes.keys():
        batch = before.batches.get(key[0])
        assert batch is None or not batch.is_cancelled, f"{key} was decided after the cancel of its batch"
        assert key[0] not in after.purged, f"{key} was decided, and its batch is purged"
        _explain(after.outcomes[key], before, after, model)


def _explain(outcome: OutcomeRow, before: Snapshot, after: Snapshot, model: Model) -> None:
    """The model must know why: the rules as a process at work may have seen them, a rival, a cancel, a loss."""
    place = (outcome.batch_id, outcome.position)
    now, then = after.items[place], before.items.get(place)
    assert outcome.attempt <= now.attempt, f"{place} has an outcome of attempt {outcome.attempt}, and is at {now.attempt}"
    assert now.attempt == outcome.attempt or then is not None, f"{place} was retried before it was there"
    values = now.values if now.attempt == outcome.attempt or then is None else then.values
    organization = after.batches[outcome.batch_id].organization_id
    # A decision shares the period's lock until its commit, so the period was as it is after this step, or as it was before.
    closed = {each.is_closed(organization, values.activity_date) for each in (before, after)}
    answers = model.rule_answers(organization, values, closed=closed)
    # This includes a rival that was revoked, or lost its flag, after the decision.
    rivals = [
        activity
        for activity in after.activities.values()
        if activity.once == (organization, values.mentor_id, values.activity_type, values.activity_date)
        and (activity.batch_id, activity.position) != place
    ]
    if outcome.outcome == "cancelled":
        assert model.asked[outcome.batch_id].cancel_asked, f"{place} was cancelled without a request"
    elif outcome.outcome == "success":
        activity = after.activities.get(place)
        assert None in answers, f"{place} succeeded, and the rules say {answers}"
        assert activity is not None, f"{place} succeeded without an activity"
        assert not activity.is_flagged or (values.override_duplicates and rivals), f"{place} is flagged without a reason"
    else:
        assert outcome.error is not None
        code = outcome.error["code"]
        if code == "duplicate_activity":
            assert outcome.error["conflicting_activity_id"] in [r.activity_id for r in rivals], f"{place}: {rivals}, {outcome}"
            assert None in answers, f"{place} is a duplicate, and the rules say {answers}"
            assert not values.override_duplicates, f"{place} overrides duplicates, and failed as one"
        elif code == "internal_error":
            assert place in model.lost, f"{place} was given up, although none of its records was lost"
        else:
            assert code in answers, f"{place} failed with {code}, and the rules say {answers}"


# --- Items: the state machine ----------------------------------------------------------------------------------------------------


def _items(before: Snapshot, after: Snapshot, model: Model) -> None:
    for place, then in before.items.items():
        now = after.items.get(place)
        if now is None:
            assert place[0] in after.purged, f"{place} has vanished"
        elif now != then:
            _transition(then, now, after, model)
    for place, item in after.items.items():
        if place not in before.items:
            assert place[0] not in before.purged, f"{place} exists again after its purge"
            assert item.attempt == 1, f"{place} began with attempt {item.attempt}"
            variants = [variant[item.position] for variant in model.asked[item.batch_id].variants if item.position < len(variant)]
            if item.position in model.asked[item.batch_id].erasures_asked:
                variants += [variant._replace(notes=None) for variant in variants]
            assert item.values in variants, f"{place} has values that were not submitted: {item.values}"
        assert item.values.notes is None or item.position not in model.asked[item.batch_id].erased, f"{place} has erased notes"
        activity = after.activities.get(place)
        assert item.is_revoked == (activity is not None and activity.is_revoked), (
            f"{place} and {activity} differ in the revocation"
        )
        if item.status == "pending":
            assert item.activity_id is None, f"{place} is pending with an activity"
            assert item.error is None, f"{place} is pending with an error"
        else:
            outcome = after.outcomes.get((*place, item.attempt))
            assert outcome is not None, f"{place} is {item.status} without an outcome"
            shown, decided = (item.status, item.activity_id, item.error), (outcome.outcome, outcome.activity_id, outcome.error)
            assert shown == decided, f"{place} shows {shown}, and its outcome is {decided}"


def _transition(then: ItemRow, now: ItemRow, after: Snapshot, model: Model) -> None:
    place = (now.batch_id, now.position)
    assert now.is_revoked >= then.is_revoked, f"{place} was revoked, and is not revoked any more"
    if then.values.notes is not None and now.values.notes is None:
        assert now.position in model.asked[now.batch_id].erasures_asked, f"{place} lost its notes without a request"
        then = then._replace(values=then.values._replace(notes=None))
        if now == then:
            return
    if now.is_revoked and not then.is_revoked:
        # The same call may have folded it.
        assert model.asked[now.batch_id].may_be_revoked(now.position), f"{place} is revoked without a request"
        now = now._replace(is_revoked=False)
        if now == then:
            return
    if now.attempt == then.attempt:
        assert then.status == "pending", f"{place} went from {then.status} to {now.status}"
        assert now.values == then.values, f"{place} has new values in the same attempt"
        return
    assert now.attempt == then.attempt + 1, f"{place} went from attempt {then.attempt} to {now.attempt}"
    ended = after.outcomes.get((*place, then.attempt))
    assert ended is not None, f"attempt {then.attempt} of {place} was not decided before the next began"
    assert ended.outcome == "failed", f"attempt {then.attempt} of {place} ended {ended.outcome}, and the next has begun"
    allowed = model.asked[now.batch_id].values_after_retry(now.position, then.values)
    assert now.values in allowed, f"{place} began attempt {now.attempt} with {now.values}; allowed were {allowed}"


# --- Batches: counts, status, what never comes back ------------------------------------------------------------------------------


def _batches(before: Snapshot, after: Snapshot, model: Model) -> None:
    states: dict[str, Counter[str]] = defaultdict(Counter)
    attempts: Counter[str] = Counter()
    revoked: Counter[str] = Counter()
    for item in after.items.values():
        states[item.batch_id][item.status] += 1
        revoked[item.batch_id] += item.is_revoked
        attempts[item.batch_id] += item.attempt - 1
    assert before.purged <= after.purged, "a tombstone has vanished"
    for batch_id in after.purged - before.purged:
        assert before.batches[batch_id].is_deleted, f"{batch_id} was purged, and not deleted"
    for batch_id in before.batches.keys() - after.batches.keys() - after.purged:
        assert before.batches[batch_id].status == "pending", f"{batch_id} has vanished"
        assert model.asked[batch_id].parts is not None, f"{batch_id} was accepted by HTTP and has vanished"
    keys = Counter(asked.key for asked in model.known() if asked.key is not None and asked.batch_id in after.batches)
    assert not [key for key, batches in keys.items() if batches > 1], "an Idempotency-Key was used for two batches"
    for asked in model.known():
        is_there = asked.batch_id in after.batches or asked.batch_id in after.purged
        assert is_there or not asked.is_accepted, f"{asked.batch_id} was accepted and is not there"
    for batch_id, batch in after.batches.items():
        if batch_id in after.purged:
            assert batch_id in before.batches, f"{batch_id} exists again after its purge"
            continue
        asked = model.asked[batch_id]
        assert batch.organization_id == asked.organization_id, f"{batch_id} belongs to {batch.organization_id}"
        counted = states.get(batch_id)
        if counted is not None:
            assert not asked.is_wrong, f"{batch_id} breaks the request rules and has items"
            assert batch.total == len(asked.variants[0]), f"{batch_id} has {batch.total} items"
            assert batch.counts == tuple(counted[state] for state in _COUNTED), f"{batch_id} counts {batch.counts}: {counted}"
            assert attempts[batch_id] in asked.attempts_begun, (
                f"{batch_id} has begun {attempts[batch_id]} more attempts; its retries returned {asked.retries}"
            )
        assert batch.revoked == revoked[batch_id], f"{batch_id} counts {batch.revoked} revoked items of {revoked[batch_id]}"
        assert batch.revoked in asked.revoked, (
            f"{batch_id} has {batch.revoked} revoked items; the calls returned {asked.revocations}"
        )
        assert batch.total == sum(batch.counts), f"{batch_id} has {batch.total} items and counts {batch.counts}"
        assert batch.status == _status(batch, has_items=counted is not None), f"{batch_id} is {batch.status} with {batch.counts}"
        assert batch.is_completed == (batch.status in _TERMINAL), f"{batch_id} is {batch.status}, completed: {batch.is_completed}"
        assert batch.label != FORGED_LABEL, f"{batch_id} has a label that was not requested"
        assert asked.cancel_asked or not batch.is_cancelled, f"{batch_id} is cancelled without a request"
        assert asked.delete_asked or not batch.is_deleted, f"{batch_id} is deleted without a request"
        assert not asked.is_cancelled or batch.is_cancelled, f"{batch_id} was cancelled, and is not"
        assert not asked.is_deleted or batch.is_deleted, f"{batch_id} was deleted, and is not"
        possible = sum(each.calls > each.refusals for each in asked.dismissals)
        assert batch.dismissals <= possible, (
            f"{batch_id} was dismissed {batch.dismissals} times; asked for were {asked.dismissals}"
        )
        if batch_id in before.batches:
            _batch_transition(before.batches[batch_id], batch, before, after)
            _dismissal(before.batches[batch_id], batch)


def _status(batch: BatchRow, *, has_items: bool) -> str:
    pending, completed, failed, cancelled = batch.counts
    if batch.is_cancelled:
        assert pending == 0, f"{batch.batch_id} is cancelled with {pending} pending items"
        return "cancelled"
    assert cancelled == 0, f"{batch.batch_id} was not cancelled, and {cancelled} of its items are"
    if not has_items:
        return "pending"
    if pending:
        return "processing"
    return "completed" if not failed else "partial" if completed else "failed"


def _batch_transition(then: BatchRow, now: BatchRow, before: Snapshot, after: Snapshot) -> None:
    batch_id = now.batch_id
    if now == then:
        assert before.items_of(batch_id) == after.items_of(batch_id), (
            f"items of {batch_id} have changed without a new version of it"
        )
        return
    assert now.version > then.version, f"{batch_id} has changed without a new version: {then} to {now}"
    if then.is_cancelled or then.is_deleted:
        frozen = (then.counts, then.retry_number, then.is_cancelled, then.status)
        assert frozen == (now.counts, now.retry_number, now.is_cancelled, now.status), f"{batch_id} came back: {then} to {now}"
        assert now.is_deleted >= then.is_deleted, f"{batch_id} was deleted and came back"
    if then.is_completed and now.retry_number == then.retry_number:
        assert now.counts == then.counts, f"{batch_id} was {then.status} and has changed without a retry: {then} to {now}"


def _dismissal(then: BatchRow, now: BatchRow) -> None:
    """A batch stays dismissed until another item of it fails."""
    may_have_failed = now.failed > then.failed or now.retry_number > then.retry_number
    is_new = now.dismissals > then.dismissals
    assert now.dismissals >= then.dismissals, f"a dismissal of {now.batch_id} has vanished"
    if now.is_dismissed:
        assert is_new or then.is_dismissed, f"{now.batch_id} is dismissed, and nobody has dismissed it: {then} to {now}"
        assert is_new or now.failed <= then.failed, f"another item of {now.batch_id} has failed, and it stays dismissed: {now}"
    else:
        assert may_have_failed or not then.is_dismissed, f"{now.batch_id} was dismissed, and is not any more: {then} to {now}"


# --- Activities: one for each success, none for anything else --------------------------------------------------------------------


def _activities(before: Snapshot, after: Snapshot, model: Model) -> None:
    for place, then in before.activities.items():
        _activity_transition(then, after.activities.get(place), before, after, model)
    succeeded = {(o.batch_id, o.position): o for o in after.outcomes.values() if o.outcome == "success"}
    # Outcomes are removed with their batch. Activities stay for good.
    remaining = {place for place in before.activities.keys() - succeeded.keys() if place[0] in after.purged}
    differing = succeeded.keys() ^ (after.activities.keys() - remaining)
    assert not differing, f"successes and activities differ: {differing}"
    assert len(succeeded) == sum(o.outcome == "success" for o in after.outcomes.values()), "an item succeeded twice"
    once: Counter[object] = Counter()
    for place in after.activities.keys() - before.activities.keys():
        _activity(after.activities[place], succeeded[place], after)
    living = [activity for activity in after.activities.values() if not activity.is_revoked]
    once.update(activity.once for activity in living if not activity.is_flagged)
    assert not [key for key, number in once.items() if number > 1], "two unflagged activities of one mentor, type and date"
    alone = [activity for activity in living if activity.is_flagged and activity.once not in once]
    assert not alone, f"flagged without another activity: {alone}"


def _activity_transition(then: ActivityRow, now: ActivityRow | None, before: Snapshot, after: Snapshot, model: Model) -> None:
    """An activity is revoked once, because of a request. Its flag is cleared when the unflagged activity of its key is revoked."""
    place = (then.batch_id, then.position)
    assert now is not None, f"the activity of {place} has vanished"
    if now == then:
        return
    assert now.revocation_audits == int(now.is_revoked), f"{now.revocation_audits} audit rows of the revocation of {now}"
    if now.is_revoked and not then.is_revoked:
        assert model.asked[then.batch_id].may_be_revoked(then.position), f"{then} is revoked without a request"
        now = now._replace(is_revoked=False, revocation_audits=0)
    if then.is_flagged and not now.is_flagged:
        assert not then.is_revoked, f"{then} was revoked, and has lost its flag since"
        ended = [one for one in before.activities.values() if one.once == then.once and not one.is_revoked and not one.is_flagged]
        assert ended, f"{then} lost its flag, although there was no other activity"
        assert all(after.activities[one.batch_id, one.position].is_revoked for one in ended), (
            f"{then} lost its flag, and {ended} live"
        )
        now = now._replace(is_flagged=True)
    if then.notes is not None and now.notes is None:
        assert then.position in model.asked[then.batch_id].erasures_asked, f"{then} lost its notes without a request"
        now = now._replace(notes=then.notes)
    assert now == then, f"the activity of {place} has changed"


def _activity(activity: ActivityRow, outcome: OutcomeRow, after: Snapshot) -> None:
    batch, item = after.batches[activity.batch_id], after.items[activity.batch_id, activity.position]
    assert activity.activity_id == outcome.activity_id, f"{outcome} names another activity than {activity}"
    registered = (activity.organization_id, activity.registered_by, activity.mentor_id, activity.activity_type,
                  activity.activity_date, activity.duration_minutes, activity.notes)  # fmt: skip
    assert registered == (batch.organization_id, batch.coordinator_id, *item.values[:5]), f"{activity} is not what {item} says"
    assert activity.audits == 1, f"{activity.audits} audit rows of {activity}"
    assert activity.revocation_audits == int(activity.is_revoked), (
        f"{activity.revocation_audits} audit rows of its revocation: {activity}"
    )


# --- Templates: what was saved, until it is deleted -------------------------------------------------------------------------------


def _templates(before: Snapshot, after: Snapshot, model: Model) -> None:
    for template_id in before.templates.keys() - after.templates.keys():
        asked = model.templates[template_id]
        assert asked.delete_asked, f"the template {template_id} has vanished"
        asked.is_gone = True
    for template_id, now in after.templates.items():
        asked, then = model.templates[template_id], before.templates.get(template_id)
        assert asked.template_id in (None, template_id), f"one key has made two templates: {asked.template_id}, {template_id}"
        asked.template_id = template_id
        assert not asked.is_gone, f"the template {template_id} was deleted and came back"
        assert (now.organization_id, now.coordinator_id) == (asked.organization_id, COORDINATOR), (
            f"{now} belongs to somebody else"
        )
        assert now.group in asked.groups, f"{now} holds what nobody has saved"
        if then is not None and then != now:
            assert now.version > then.version, f"a template has changed without a new version: {then} to {now}"
    for asked in model.templates.values():
        is_there = asked.template_id in after.templates
        assert is_there or asked.delete_asked or not asked.is_accepted, (
            f"the template {asked.template_id} was saved and is not there"
        )


# --- Closed periods: nothing in them changes ---------------------------------------------------------------------------------------


def _periods(before: Snapshot, after: Snapshot, model: Model) -> None:
    for organization, asked in model.closings.items():
        assert after.closed.get(organization) in asked, (
            f"{organization} is closed through {after.closed.get(organization)}: {asked}"
        )
    for place, now in after.activities.items():
        if all(each.is_closed(now.organization_id, now.activity_date) for each in (before, after)):
            then = before.activities.get(place)
            assert then is not None, f"{now} was registered in a closed period"
            assert then.is_revoked == now.is_revoked, f"{now} was revoked in a closed period"


# --- Undecided and unfolded items have a record under way -------------------------------------------------------------------------


def _nothing_is_forgotten(after: Snapshot, model: Model, ledger: Ledger, broker: Broker) -> None:
    """Every pending item has a record that a consumer must still handle. The sweeper is only for lost records, so no item may need it."""
    pending = {
        (*place, item.attempt) for place, item in after.items.items() if item.status == "pending" and place not in model.lost
    }
    if not pending:
        return
    in_outbox = {row.batch_id for row in after.outbox}
    carried = {attempt for record in uncommitted(broker) for attempt in _carries(record, ledger, after)}
    forgotten = {attempt for attempt in pending - carried if attempt[0] not in in_outbox}
    assert not forgotten, f"no record is left for {sorted(forgotten)}"


def uncommitted(broker: Broker) -> Iterator[Stored]:
    """The records that a group will get, or get again."""
    groups = {
        Topic.BATCHES: "splitter",
        Topic.COMMANDS: "registration",
        Topic.COMMANDS_BULK: "registration",
        Topic.RESULTS: "aggregator",
    }
    for (topic, partition), log in broker.logs.items():
        if topic in groups:
            for offset in range(broker.committed[groups[topic], (topic, partition)], len(log)):
                if (topic, partition, offset) not in broker.lost:
                    yield Stored(topic, partition, offset, log[offset])


def _carries(record: Stored, ledger: Ledger, after: Snapshot) -> tuple[Attempt, ...]:
    attempts = ledger.named(record.event).attempts
    if record.topic is Topic.RESULTS:
        return tuple(attempt for attempt in attempts if attempt in after.outcomes)
    return attempts
