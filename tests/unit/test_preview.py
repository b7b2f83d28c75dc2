"""What a plan is valid for: which submission, how long, and for whom (docs/http.md, Preview and plan)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import jwt
import pytest

from orchestrator.batches.errors import ForbiddenError, InvalidRequestError, PlanChangedError, PlanDifference
from orchestrator.batches.model import Actor, BatchFilter, Idempotency, ItemError, ItemValues, NewBatch, NewItem
from orchestrator.batches.operations import list_batches, submit_bulk_registration
from orchestrator.registration.port import Prediction
from orchestrator.registration.preview import Planner, Preview
from orchestrator.registration.rules import PERIOD_CLOSED, duplicate_activity
from schemas.api.submissions import read_submission
from schemas.ids import new_batch_id
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, item, mentors

PLANNER = Planner("k" * 32)
MOMENT = timedelta(microseconds=1)
"""How far the clock in memory moves at each look."""


class Always(Prediction):
    """Predicts the same for every item: success (None), or this error."""

    def __init__(self, error: ItemError | None = None, beside: Sequence[str] = ()) -> None:
        self._error = error
        self._beside = beside

    def predict(self, organization_id: str, coordinator_id: str, items: Sequence[ItemValues]) -> Sequence[ItemError | None]:
        return [self._error] * len(items)

    def beside(self, organization_id: str, items: Sequence[ItemValues]) -> Sequence[Sequence[str]]:
        return [self._beside] * len(items)


def new_batch(items: list[NewItem], coordinator: str = COORDINATOR) -> NewBatch:
    return NewBatch(new_batch_id(), coordinator, None, False, items, "1" * 32)


def preview(flow: MemoryFlow, batch: NewBatch, actor: Actor = ADMIN) -> Preview:
    return flow.call(lambda repository, actor: PLANNER.preview(repository, Always(), actor, batch), actor)


def hold(flow: MemoryFlow, batch: NewBatch, plan: str, actor: Actor = ADMIN) -> NewBatch:
    return flow.call(lambda repository, actor: PLANNER.hold_to(plan, repository, Always(), actor, batch), actor)


def submit_with(
    flow: MemoryFlow, batch: NewBatch, plan: str, prediction: Prediction, idempotency: Idempotency | None = None
) -> None:
    with flow.storage.transaction() as (repository, _):
        hold_to_plan = partial(PLANNER.hold_to, plan, repository, prediction, ADMIN)
        submit_bulk_registration(repository, ADMIN, batch, idempotency, hold_to_plan)


def test_a_plan_is_valid_for_its_items_its_coordinator_and_its_organization(flow: MemoryFlow) -> None:
    batch = new_batch([item("mentor-1")])
    plan = preview(flow, batch).plan
    assert hold(flow, batch, plan).items[0].planned == "success"
    others = [new_batch([item("mentor-2")]), new_batch([item("mentor-1", minutes=61)]), new_batch(mentors(2))]
    neighbour = replace(ADMIN, organization_id="org-neighbour")
    for other, actor in [
        *((other, ADMIN) for other in others),
        (replace(batch, coordinator_id="coord-2"), ADMIN),
        (batch, neighbour),
    ]:
        with pytest.raises(InvalidRequestError) as refused:
            hold(flow, other, plan, actor)
        assert refused.value.mistakes[0].code == "plan_mismatch"
    with pytest.raises(InvalidRequestError) as refused:
        hold(flow, batch, plan[:-4] + "AAAA")
    assert refused.value.mistakes[0].code == "plan_invalid"


def test_a_plan_is_valid_for_a_quarter_of_an_hour_by_the_databases_clock(flow: MemoryFlow) -> None:
    batch = new_batch([item("mentor-1")])
    plan = preview(flow, batch).plan
    flow.storage.now += timedelta(minutes=14)
    assert hold(flow, batch, plan).items[0].planned == "success"
    flow.storage.now += timedelta(minutes=1)
    with pytest.raises(InvalidRequestError) as refused:
        hold(flow, batch, plan)
    assert (refused.value.mistakes[0].pointer, refused.value.mistakes[0].code) == ("/plan", "plan_expired")


def test_a_plan_expires_and_other_signed_data_is_no_plan(flow: MemoryFlow) -> None:
    batch = new_batch([item("mentor-1")])
    plan = preview(flow, batch).plan
    claims = jwt.decode(plan, options={"verify_signature": False})
    end = datetime.fromtimestamp(claims["exp"], UTC)

    def code(plan: str, now: datetime) -> str | None:
        flow.storage.now = now - MOMENT
        try:
            hold(flow, batch, plan)
        except InvalidRequestError as refused:
            return refused.mistakes[0].code
        return None

    just_before = end - MOMENT
    assert (code(plan, just_before), code(plan, end)) == (None, "plan_expired")
    # Signed with the same key for another purpose, without an expiry, and with another key.
    others = [claims | {"aud": "another purpose"}, {name: value for name, value in claims.items() if name != "exp"}]
    forged = [jwt.encode(each, PLANNER.key, algorithm="HS256") for each in others] + [
        jwt.encode(claims, "z" * 32, algorithm="HS256")
    ]
    assert [code(each, just_before) for each in forged] == ["plan_invalid"] * 3


@pytest.mark.parametrize(
    ("seen", "now", "is_held"),
    [
        ([], [], True),
        (["a"], ["a"], True),
        (["a", "b"], ["b", "a"], True),
        (["a", "b"], ["a"], True),
        ([], ["a"], False),
        (["a"], ["a", "b"], False),
        (["a"], ["b"], False),
    ],
)
def test_an_override_ignores_no_activity_that_its_sender_has_not_seen(
    flow: MemoryFlow, seen: list[str], now: list[str], is_held: bool
) -> None:
    overriding = NewItem(item("mentor-2").values._replace(override_duplicates=True))
    batch = new_batch([item("mentor-1"), overriding])
    plan = flow.call(lambda repository, actor: PLANNER.preview(repository, Always(beside=seen), actor, batch), ADMIN).plan
    if is_held:
        submit_with(flow, batch, plan, Always(beside=now))
        return
    with pytest.raises(PlanChangedError) as changed:
        submit_with(flow, batch, plan, Always(beside=now))
    assert changed.value.differences == (PlanDifference(1, "mentor-2", "success", "duplicate_activity"),)


def test_a_predicted_refusal_holds_whatever_was_registered_since(flow: MemoryFlow) -> None:
    overriding = NewItem(item("mentor-2").values._replace(override_duplicates=True))
    batch = new_batch([overriding])
    refusing = Always(PERIOD_CLOSED)
    plan = flow.call(lambda repository, actor: PLANNER.preview(repository, refusing, actor, batch), ADMIN).plan
    submit_with(flow, batch, plan, Always(PERIOD_CLOSED, beside=["a"]))


def test_a_submission_has_room_for_every_plan_that_a_preview_returns(flow: MemoryFlow) -> None:
    """Every item of a long list overrides, and would stand beside several activities, which the plan names."""
    beside = Always(beside=[str(UUID(int=number)) for number in range(5)])
    batch = new_batch([NewItem(each.values._replace(override_duplicates=True)) for each in mentors(10_000)])
    plan = flow.call(lambda repository, actor: PLANNER.preview(repository, beside, actor, batch), ADMIN).plan
    visit = {"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2025-03-25", "duration_minutes": 60}
    sent = read_submission({"items": [visit], "plan": plan}, max_items=1)
    assert sent.plan is not None
    submit_with(flow, batch, sent.plan, beside)


def test_a_plan_of_the_previous_version_saw_no_other_activities(flow: MemoryFlow) -> None:
    overriding = NewItem(item("mentor-2").values._replace(override_duplicates=True))
    batch = new_batch([overriding])
    claims = jwt.decode(preview(flow, batch).plan, options={"verify_signature": False})
    del claims["beside"]
    plan = jwt.encode(claims, PLANNER.key, algorithm="HS256")
    submit_with(flow, batch, plan, Always())
    with pytest.raises(PlanChangedError):
        submit_with(flow, new_batch([overriding]), plan, Always(beside=["a"]))


def test_a_caller_who_may_not_submit_may_not_preview(flow: MemoryFlow) -> None:
    with pytest.raises(ForbiddenError):
        preview(flow, new_batch(mentors(1), coordinator="coord-2"), COORDINATOR_ACTOR)
    with pytest.raises(InvalidRequestError):
        preview(flow, new_batch(mentors(1), coordinator="coord-2"))


def test_a_repeated_submission_with_its_key_is_not_compared_with_the_plan_again(flow: MemoryFlow) -> None:
    batch = new_batch([item("mentor-1")])
    plan = preview(flow, batch).plan
    key = Idempotency("key", b"hash")
    submit_with(flow, batch, plan, Always(), key)
    now_otherwise = Always(duplicate_activity("an activity"))
    submit_with(flow, new_batch([item("mentor-1")]), plan, now_otherwise, key)
    assert flow.call(list_batches, ADMIN, BatchFilter()).total == 1
    with pytest.raises(PlanChangedError):
        submit_with(flow, new_batch([item("mentor-1")]), plan, now_otherwise)
