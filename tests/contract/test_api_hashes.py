"""An Idempotency-Key and a plan belong to one request: a request with any other value is another request."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from schemas.api.retries import ItemCorrection
from schemas.api.submissions import ItemsSubmission
from schemas.api.templates import NewTemplate
from schemas.api.webhooks import NewWebhook
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH, WEBHOOKS_PATH
from tests.contract.test_api_batches import an_item, submit
from tests.support.pipeline import COORDINATOR, DAY, Pipeline

Json = dict[str, Any]

SUBMISSION: Json = {
    "coordinator_id": COORDINATOR,
    "label": "Monday",
    "override_duplicates": False,
    "items": [an_item(notes="first", client_reference="row 1"), an_item("mentor-2")],
}

# Another value for each field. A path leads to a field of an item.
OTHERS: dict[str, Any] = {
    "label": "Tuesday",
    "override_duplicates": True,
    "items/mentor_id": "mentor-3",
    "items/activity_type": "call",
    "items/activity_date": "2026-03-24",
    "items/duration_minutes": 61,
    "items/notes": "second",
    "items/client_reference": "row 2",
    "items/override_duplicates": True,
    "items": [an_item(notes="first", client_reference="row 1")],
}
# The caller is part of the key itself, and the plan is checked before the key is stored.
NOT_COMPARED = {"organization_id", "coordinator_id", "plan"}


def with_other(field: str) -> Json:
    """The submission with another value in one field."""
    name, _, inner = field.partition("/")
    if not inner:
        return SUBMISSION | {name: OTHERS[field]}
    first, *rest = SUBMISSION[name]
    return SUBMISSION | {name: [first | {inner: OTHERS[field]}, *rest]}


def test_every_field_has_another_value() -> None:
    item = ItemsSubmission.model_fields["items"].annotation.__args__[0]  # type: ignore[union-attr]
    fields = ItemsSubmission.model_fields.keys() | {f"items/{name}" for name in item.model_fields}
    assert OTHERS.keys() | NOT_COMPARED == fields


@pytest.mark.parametrize("field", OTHERS)
def test_a_key_belongs_to_one_submission(coordinator: httpx.Client, field: str) -> None:
    key = {"Idempotency-Key": "k"}
    first = coordinator.post(API_PATH, json=SUBMISSION, headers=key)
    assert first.status_code == 202, first.text
    other = coordinator.post(API_PATH, json=with_other(field), headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    again = coordinator.post(API_PATH, json=SUBMISSION, headers=key)
    assert (again.status_code, again.json()["batch_id"]) == (202, first.json()["batch_id"])


def test_the_order_of_items_is_part_of_the_submission(coordinator: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    assert coordinator.post(API_PATH, json=SUBMISSION, headers=key).status_code == 202
    turned = SUBMISSION | {"items": SUBMISSION["items"][::-1]}
    assert coordinator.post(API_PATH, json=turned, headers=key).json()["code"] == "idempotency_key_reused"


# A label and a client reference do not change a prediction.
@pytest.mark.parametrize("field", sorted(OTHERS.keys() - {"label", "items/client_reference"}))
def test_a_plan_belongs_to_one_submission(coordinator: httpx.Client, field: str) -> None:
    planned = coordinator.post(f"{API_PATH}/preview", json=SUBMISSION)
    assert planned.status_code == 200, planned.text
    other = coordinator.post(API_PATH, json=with_other(field) | {"plan": planned.json()["plan"]})
    assert other.status_code == 422, other.text
    assert [(one["pointer"], one["code"]) for one in other.json()["errors"]] == [("/plan", "plan_mismatch")]
    assert coordinator.post(API_PATH, json=SUBMISSION | {"plan": planned.json()["plan"]}).status_code == 202


def test_a_plan_ignores_label_and_client_reference(coordinator: httpx.Client) -> None:
    plan = coordinator.post(f"{API_PATH}/preview", json=SUBMISSION).json()["plan"]
    relabelled = with_other("items/client_reference") | {"label": "Tuesday", "plan": plan}
    assert coordinator.post(API_PATH, json=relabelled).status_code == 202


CORRECTION: Json = {
    "mentor_id": "mentor-3",
    "activity_type": "visit",
    "activity_date": "2026-03-24",
    "duration_minutes": 30,
    "notes": "n",
    "override_duplicates": False,
}
OTHER_CORRECTIONS: Json = {
    "mentor_id": "mentor-4",
    "activity_type": "call",
    "activity_date": "2026-03-23",
    "duration_minutes": 31,
    "notes": "m",
    "override_duplicates": True,
}


def test_every_field_of_a_correction_has_another_value() -> None:
    assert CORRECTION.keys() | {"item_id"} == OTHER_CORRECTIONS.keys() | {"item_id"} == ItemCorrection.model_fields.keys()


@pytest.mark.parametrize("field", OTHER_CORRECTIONS)
def test_a_key_belongs_to_one_retry(coordinator: httpx.Client, pipeline: Pipeline, field: str) -> None:
    batch_id = submit(coordinator, "nobody", "nobody-else")
    pipeline.drain()
    item_id = str(DerivedIds(UUID(batch_id)).item_id(0))
    key, url = {"Idempotency-Key": "r"}, f"{API_PATH}/{batch_id}/retry"
    body = {"corrections": [{"item_id": item_id} | CORRECTION]}
    first = coordinator.post(url, json=body, headers=key)
    assert (first.status_code, first.json()["retried"]) == (202, 1)
    other = {"corrections": [{"item_id": item_id} | CORRECTION | {field: OTHER_CORRECTIONS[field]}]}
    refused = coordinator.post(url, json=other, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert coordinator.post(url, json=body, headers=key).json()["retried"] == 1


@pytest.mark.parametrize("body", [{"only_retryable": True}, {"item_ids": [1]}])
def test_a_key_belongs_to_one_selection_of_items(coordinator: httpx.Client, pipeline: Pipeline, body: Json) -> None:
    batch_id = submit(coordinator, "nobody", "nobody-else")
    pipeline.drain()
    ids = DerivedIds(UUID(batch_id))
    body = {name: [str(ids.item_id(place)) for place in value] if name == "item_ids" else value for name, value in body.items()}
    key, url = {"Idempotency-Key": "r"}, f"{API_PATH}/{batch_id}/retry"
    assert coordinator.post(url, json={}, headers=key).json()["retried"] == 2
    refused = coordinator.post(url, json=body, headers=key)
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")


def test_a_key_belongs_to_one_cancellation_of_one_batch(coordinator: httpx.Client) -> None:
    first, second = submit(coordinator, "mentor-1"), submit(coordinator, "mentor-2")
    key = {"Idempotency-Key": "c"}
    assert coordinator.post(f"{API_PATH}/{first}/cancel", json={"reason": "a"}, headers=key).status_code == 200
    for batch_id, reason in ((first, "b"), (second, "a")):
        refused = coordinator.post(f"{API_PATH}/{batch_id}/cancel", json={"reason": reason}, headers=key)
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused"), (batch_id, reason)


def is_reused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


def test_a_key_belongs_to_one_revocation_of_one_batch(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    first, second = submit(coordinator, "mentor-1", "mentor-2"), submit(coordinator, "mentor-3")
    pipeline.drain()
    key, one = {"Idempotency-Key": "u"}, {"item_ids": [str(DerivedIds(UUID(first)).item_id(0))]}
    assert coordinator.post(f"{API_PATH}/{first}/revoke", json={"reason": "a"}, headers=key).status_code == 200
    for batch_id, body in ((first, {"reason": "b"}), (second, {"reason": "a"}), (first, {"reason": "a", **one})):
        assert is_reused(coordinator.post(f"{API_PATH}/{batch_id}/revoke", json=body, headers=key)), (batch_id, body)


def test_a_key_belongs_to_the_revocation_of_one_activity(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    ids = DerivedIds(UUID(submit(coordinator, "mentor-1", "mentor-2")))
    pipeline.drain()
    first, second = (f"{ACTIVITIES_PATH}/{ids.activity_id(position)}/revoke" for position in range(2))
    key = {"Idempotency-Key": "u"}
    assert coordinator.post(first, json={"reason": "a"}, headers=key).status_code == 200
    for url, reason in ((first, "b"), (second, "a")):
        assert is_reused(coordinator.post(url, json={"reason": reason}, headers=key)), (url, reason)


@pytest.mark.parametrize("other", [{"closed_through": str(DAY - timedelta(days=1))}, {"reason": "another"}])
def test_a_key_belongs_to_one_change_of_the_period(admin: httpx.Client, other: Json) -> None:
    key, body = {"Idempotency-Key": "p"}, {"closed_through": str(DAY), "reason": "the report is sent"}
    assert admin.put(CLOSED_PERIOD_PATH, json=body, headers=key).status_code == 200
    assert is_reused(admin.put(CLOSED_PERIOD_PATH, json=body | other, headers=key))


TEMPLATE: Json = {
    "coordinator_id": COORDINATOR,
    "name": "Mondays",
    "mentor_ids": ["mentor-1"],
    "activity_type": "visit",
    "duration_minutes": 60,
    "weekday": 1,
}
OTHER_TEMPLATES: Json = {
    "coordinator_id": "boss",
    "name": "Tuesdays",
    "mentor_ids": ["mentor-2"],
    "activity_type": "call",
    "duration_minutes": 61,
    "weekday": 2,
}


def test_every_field_of_a_template_has_another_value() -> None:
    assert OTHER_TEMPLATES.keys() == TEMPLATE.keys() == NewTemplate.model_fields.keys()


@pytest.mark.parametrize("field", OTHER_TEMPLATES)
def test_a_key_belongs_to_one_template(admin: httpx.Client, field: str) -> None:
    key, url = {"Idempotency-Key": "t"}, f"{API_ROOT}/templates"
    first = admin.post(url, json=TEMPLATE, headers=key)
    assert first.status_code == 201, first.text
    assert is_reused(admin.post(url, json=TEMPLATE | {field: OTHER_TEMPLATES[field]}, headers=key))
    assert admin.post(url, json=TEMPLATE, headers=key).json()["template_id"] == first.json()["template_id"]


WEBHOOK: Json = {"url": "https://receiver.example.org/a", "events": ["BatchCompleted", "BatchRejected"]}
OTHER_WEBHOOKS: Json = {"url": "https://receiver.example.org/b", "events": ["BatchCompleted"]}


def test_every_field_of_a_webhook_has_another_value() -> None:
    assert OTHER_WEBHOOKS.keys() == WEBHOOK.keys() == NewWebhook.model_fields.keys()


@pytest.mark.parametrize("field", OTHER_WEBHOOKS)
def test_a_key_belongs_to_one_webhook(admin: httpx.Client, field: str) -> None:
    key = {"Idempotency-Key": "w"}
    first = admin.post(WEBHOOKS_PATH, json=WEBHOOK, headers=key)
    assert first.status_code == 201, first.text
    assert is_reused(admin.post(WEBHOOKS_PATH, json=WEBHOOK | {field: OTHER_WEBHOOKS[field]}, headers=key))
    # The events are a set.
    same = WEBHOOK | {"events": [*WEBHOOK["events"][::-1], WEBHOOK["events"][1]]}
    assert admin.post(WEBHOOKS_PATH, json=same, headers=key).json() == first.json()


def test_a_key_belongs_to_the_new_secret_of_one_webhook(admin: httpx.Client) -> None:
    first, second = (admin.post(WEBHOOKS_PATH, json=WEBHOOK).json()["webhook_id"] for _ in range(2))
    key = {"Idempotency-Key": "s"}
    assert admin.post(f"{WEBHOOKS_PATH}/{first}/rotate-secret", headers=key).status_code == 200
    assert is_reused(admin.post(f"{WEBHOOKS_PATH}/{second}/rotate-secret", headers=key))
