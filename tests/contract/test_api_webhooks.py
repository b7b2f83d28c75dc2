"""Webhooks as an HTTP client sees them: what is accepted as a receiver, when a secret is shown, what repetitions and redeliveries do."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.statements import read_statements
from orchestrator.webhooks.model import MAX_WEBHOOKS
from orchestrator.webhooks.secrets import Sealer
from schemas.api.webhooks import (
    DeliveriesResponse,
    DeliveryResponse,
    WebhookChangesResponse,
    WebhookResponse,
    WebhooksResponse,
    WebhookWithSecretResponse,
)
from schemas.paths import WEBHOOK_CHANGES_PATH, WEBHOOKS_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.webhook_keys import SECOND_KEY

BODY: dict[str, Any] = {"url": "https://receiver.example.org/in?from=us", "events": ["BatchCompleted", "BatchRejected"]}


@pytest.fixture
def admin(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client(Role.ADMIN, sub="boss") as client:
        yield client


def created(client: httpx.Client, key: str | None = None, **changes: Any) -> dict[str, Any]:
    answer = client.post(WEBHOOKS_PATH, json=BODY | changes, headers={} if key is None else {"Idempotency-Key": key})
    assert answer.status_code == 201, answer.text
    WebhookWithSecretResponse.model_validate_json(answer.content, extra="forbid")
    assert answer.headers["Location"] == f"{WEBHOOKS_PATH}/{answer.json()['webhook_id']}"
    found: dict[str, Any] = answer.json()
    return found


def at(webhook: dict[str, Any], *rest: str) -> str:
    return "/".join([WEBHOOKS_PATH, webhook["webhook_id"], *rest])


def test_a_webhook_is_created_and_its_secret_is_shown_only_then(admin: httpx.Client, engine: Engine, settings: Settings) -> None:
    webhook = created(admin)
    assert {name: webhook[name] for name in BODY} == BODY
    assert (webhook["enabled"], webhook["created_by"], webhook["failing_since"]) == (True, "boss", None)
    secret = webhook.pop("secret")
    assert secret.startswith("whsec_")
    one, several = admin.get(at(webhook)), admin.get(WEBHOOKS_PATH)
    WebhookResponse.model_validate_json(one.content, extra="forbid")
    WebhooksResponse.model_validate_json(several.content, extra="forbid")
    assert one.json() == webhook
    assert several.json() == {"data": [webhook]}
    with engine.begin() as connection:
        [row] = connection.execute(text("SELECT secret, to_jsonb(webhook)::text AS all FROM orchestrator.webhook")).all()
    assert secret.removeprefix("whsec_") not in row.all
    assert Sealer(settings.webhook_key_list).open(bytes(row.secret)) == secret


def test_a_repeated_creation_returns_the_same_webhook_with_its_secret(admin: httpx.Client) -> None:
    first = created(admin, "k")
    again = admin.post(WEBHOOKS_PATH, json=BODY, headers={"Idempotency-Key": "k"})
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (first, "true")
    assert created(admin)["webhook_id"] != first["webhook_id"]
    other = admin.post(WEBHOOKS_PATH, json=BODY | {"events": ["BatchRejected"]}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert admin.delete(at(first)).status_code == 204
    late = admin.post(WEBHOOKS_PATH, json=BODY, headers={"Idempotency-Key": "k"})
    assert (late.status_code, late.json()["code"]) == (409, "webhook_deleted")


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"url": "http://receiver.example.org/"}, "/url", "url_not_allowed"),
        ({"url": "ftp://receiver.example.org/"}, "/url", "url_not_allowed"),
        ({"url": "https://"}, "/url", "url_not_allowed"),
        ({"url": "https://[::1/"}, "/url", "url_not_allowed"),
        ({"url": "https://a:b@receiver.example.org/"}, "/url", "url_not_allowed"),
        ({"url": "https://receiver.example.org/#x"}, "/url", "url_not_allowed"),
        ({"url": "https://127.0.0.1/"}, "/url", "url_not_allowed"),
        ({"url": "https://[::ffff:127.0.0.1]/"}, "/url", "url_not_allowed"),
        ({"url": "https://169.254.169.254/latest"}, "/url", "url_not_allowed"),
        ({"url": "https://LOCALHOST:8443/"}, "/url", "url_not_allowed"),
        ({"url": "https://receiver.example.org/a b"}, "/url", "bad_characters"),
        ({"url": "https://receiver.example.org/" + "x" * 2000}, "/url", "too_long"),
        ({"events": []}, "/events", "no_items"),
        ({"events": ["BatchCompleted"] * 4}, "/events", "too_many_items"),
        ({"events": ["PeriodClosed"]}, "/events/0", "unknown_value"),
        ({"secret": "mine"}, "/secret", "unknown_field"),
    ],
)
def test_what_is_no_receiver_is_refused(admin: httpx.Client, changes: dict[str, Any], pointer: str, code: str) -> None:
    answer = admin.post(WEBHOOKS_PATH, json=BODY | changes)
    assert answer.status_code == 422, answer.text
    assert (pointer, code) in [(error["pointer"], error["code"]) for error in answer.json()["errors"]]


def test_a_deployment_can_allow_a_network_and_http_there(settings: Settings, api: ApiServer) -> None:
    allowing = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "webhook_allowed_networks": "127.0.0.0/8, ::1/128"})
    with running_api(allowing) as server, server.client(Role.SERVICE, sub="attendance") as service:
        for url in ("http://127.0.0.1:8080/", "https://[::1]/", "http://localhost/"):
            created(service, url=url)
        assert service.post(WEBHOOKS_PATH, json=BODY | {"url": "http://10.0.0.1/"}).status_code == 422


def test_an_organization_has_a_bounded_number(admin: httpx.Client) -> None:
    for _ in range(MAX_WEBHOOKS):
        created(admin)
    answer = admin.post(WEBHOOKS_PATH, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")


def test_a_rotation_keeps_the_previous_secret_for_a_day_and_a_repetition_changes_nothing(admin: httpx.Client) -> None:
    webhook = created(admin)
    rotated = admin.post(at(webhook, "rotate-secret"), headers={"Idempotency-Key": "k"})
    WebhookWithSecretResponse.model_validate_json(rotated.content, extra="forbid")
    assert rotated.json()["secret"] != webhook["secret"]
    until = datetime.fromisoformat(rotated.json()["previous_secret_until"])
    assert timedelta(hours=23) < until - datetime.now(UTC) <= timedelta(hours=24, minutes=1)
    again = admin.post(at(webhook, "rotate-secret"), headers={"Idempotency-Key": "k"})
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (rotated.json(), "true")
    assert admin.post(at(webhook, "rotate-secret")).json()["secret"] not in (webhook["secret"], rotated.json()["secret"])


def test_an_expired_secret_is_not_shown_any_more(admin: httpx.Client, engine: Engine) -> None:
    first, second = created(admin), created(admin)
    assert [each["webhook_id"] for each in admin.get(WEBHOOKS_PATH).json()["data"]] == [first["webhook_id"], second["webhook_id"]]
    until = admin.post(at(first, "rotate-secret")).json()["previous_secret_until"]
    listed = admin.get(WEBHOOKS_PATH).json()["data"]
    # The first one stands behind the other in the table's file, because it was changed.
    assert [(each["webhook_id"], each["previous_secret_until"]) for each in listed] == [
        (first["webhook_id"], until),
        (second["webhook_id"], None),
    ]
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE orchestrator.webhook SET previous_until = now() - interval '1 second' WHERE previous_until IS NOT NULL")
        )
    shown = [admin.get(at(first)).json(), *admin.get(WEBHOOKS_PATH).json()["data"]]
    assert [each["previous_secret_until"] for each in shown] == [None] * 3


def test_without_a_key_there_are_no_webhooks(settings: Settings, api: ApiServer) -> None:
    without = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "webhook_keys": None})
    with running_api(without) as server, server.client(Role.ADMIN, sub="boss") as admin:
        answer = admin.post(WEBHOOKS_PATH, json=BODY)
        assert (answer.status_code, answer.json()["code"]) == (501, "webhooks_unavailable")
        assert admin.get(WEBHOOKS_PATH).json() == {"data": []}


def test_a_repeated_request_whose_secret_has_lost_its_key_says_so(settings: Settings, admin: httpx.Client) -> None:
    webhook = created(admin, key="k")
    replaced = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "webhook_keys": SecretStr(SECOND_KEY)})
    with running_api(replaced) as server, server.client(Role.ADMIN, sub="boss") as client:
        again = client.post(WEBHOOKS_PATH, json=BODY, headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["code"]) == (501, "webhooks_unavailable")
        assert "Rotate the secret" in again.json()["detail"]
        rotated = client.post(at(webhook, "rotate-secret"))
        assert (rotated.status_code, rotated.json()["webhook_id"]) == (200, webhook["webhook_id"])


def test_deliveries_are_listed_newest_first_and_redelivered(admin: httpx.Client, engine: Engine) -> None:
    webhook = created(admin)
    sent = [admin.post(at(webhook, "test")).json() for _ in range(3)]
    assert [(each["event_type"], each["state"], each["attempts"]) for each in sent] == [("WebhookTest", "pending", 0)] * 3
    first = admin.get(at(webhook, "deliveries"), params={"limit": 2})
    DeliveriesResponse.model_validate_json(first.content, extra="forbid")
    rest = admin.get(at(webhook, "deliveries"), params={"cursor": first.json()["next_cursor"]}).json()
    assert [*first.json()["data"], *rest["data"]] == sent[::-1]
    assert rest["next_cursor"] is None
    assert admin.get(at(webhook, "deliveries"), params={"cursor": "x"}).json()["code"] == "invalid_request"
    event_id = sent[0]["event_id"]
    with engine.begin() as connection:
        ended = "UPDATE orchestrator.webhook_delivery SET state = 'failed', problem = 'status', status = 500, took_ms = 7, response = 'no'"
        connection.execute(text(f"{ended} WHERE event_id = :event_id"), {"event_id": event_id})
    [failed] = admin.get(at(webhook, "deliveries"), params={"state": "failed"}).json()["data"]
    assert (failed["event_id"], failed["problem"], failed["status"], failed["response"]) == (event_id, "status", 500, "no")
    assert failed["next_attempt_at"] is None
    again = admin.post(at(webhook, "deliveries", event_id, "redeliver"))
    assert again.status_code == 200
    DeliveryResponse.model_validate_json(again.content, extra="forbid")
    assert (again.json()["state"], again.json()["event_id"]) == ("pending", event_id)
    unknown = admin.post(at(webhook, "deliveries", str(uuid4()), "redeliver"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "delivery_not_found")


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_deliveries_of_the_same_moment_are_on_one_page_each(admin: httpx.Client, engine: Engine, limit: int) -> None:
    webhook = created(admin)
    sent = [admin.post(at(webhook, "test")).json()["event_id"] for _ in range(4)]
    with engine.begin() as connection:
        for event_id in (sent[2], sent[0]):  # A changed row stands behind the others in the table's file.
            touch = "UPDATE orchestrator.webhook_delivery SET created_at = now() WHERE event_id = :event_id"
            connection.execute(text(touch), {"event_id": event_id})
        connection.execute(text("UPDATE orchestrator.webhook_delivery SET created_at = now()"))
    listed: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    for _ in range(5):
        page = admin.get(at(webhook, "deliveries"), params=query).json()
        listed += [each["event_id"] for each in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert listed == sorted(sent, reverse=True)


def test_a_disabled_webhook_says_why_and_is_enabled_again(admin: httpx.Client, engine: Engine) -> None:
    webhook = created(admin)
    event_id = admin.post(at(webhook, "test")).json()["event_id"]
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'gone', failing_since = now()")
        )
    shown = admin.get(at(webhook)).json()
    assert (shown["enabled"], shown["disabled_because"], shown["disabled_at"] is None) == (False, "gone", False)
    for refused in (admin.post(at(webhook, "test")), admin.post(at(webhook, "deliveries", event_id, "redeliver"))):
        assert (refused.status_code, refused.json()["code"]) == (409, "webhook_disabled")
    enabled = admin.post(at(webhook, "enable")).json()
    assert (enabled["enabled"], enabled["disabled_because"], enabled["failing_since"]) == (True, None, None)
    assert admin.post(at(webhook, "test")).status_code == 201


def test_a_deleted_webhook_takes_its_deliveries_with_it(admin: httpx.Client, engine: Engine) -> None:
    webhook, other = created(admin), created(admin)
    for each in (webhook, other):
        admin.post(at(each, "test"))
    assert admin.delete(at(webhook)).status_code == 204
    assert admin.get(at(webhook)).json()["code"] == "webhook_not_found"
    with engine.begin() as connection:
        left = connection.execute(text("SELECT webhook_id::text FROM orchestrator.webhook_delivery")).scalars().all()
    assert left == [other["webhook_id"]]


@pytest.mark.parametrize(
    ("url", "is_hashed"),
    [
        ("https://receiver.example.org", False),
        ("https://receiver.example.org:8443/", False),
        ("https://receiver.example.org/s3cret", True),
        ("https://receiver.example.org?s3cret", True),
        ("https://receiver.example.org/a?s3cret=//b", True),
    ],
)
def test_the_record_of_changes_has_no_path_of_a_url(admin: httpx.Client, owner: Engine, url: str, is_hashed: bool) -> None:
    """Receivers of chat services have their password in the path."""
    webhook = created(admin, url=url)
    with owner.begin() as connection:
        # As the notifier disables it.
        disable = read_statements("orchestrator/webhooks/sql/deliveries.sql")["disable"].text()
        connection.execute(disable, {"webhook_id": webhook["webhook_id"], "because": "gone"})
    noted = {each["url"] for each in admin.get(WEBHOOK_CHANGES_PATH).json()["data"]}
    origin = "https://receiver.example.org" + (":8443" if "8443" in url else "")
    assert noted == {f"{origin}/#{hashlib.sha256(url.encode()).hexdigest()[:8]}" if is_hashed else origin}


def test_who_changed_a_webhook_stays_on_record_without_its_secrets(admin: httpx.Client, api: ApiServer, owner: Engine) -> None:
    webhook = created(admin, "k")
    created(admin, "k")
    with api.client(Role.SERVICE, sub="attendance") as service:
        rotated = [service.post(at(webhook, "rotate-secret"), headers={"Idempotency-Key": "r"}).json() for _ in range(2)]
    admin.post(at(webhook, "enable"))  # it is enabled: nothing changes
    with owner.begin() as connection:
        connection.execute(text("UPDATE orchestrator.webhook SET disabled_at = now(), disabled_because = 'gone'"))
    admin.post(at(webhook, "enable"))
    admin.post(at(webhook, "test"))
    admin.delete(at(webhook))
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        everything = auditor.get(WEBHOOK_CHANGES_PATH)
        first = auditor.get(WEBHOOK_CHANGES_PATH, params={"limit": 3}).json()
        rest = auditor.get(WEBHOOK_CHANGES_PATH, params={"limit": 3, "cursor": first["next_cursor"] or "none"}).json()
    WebhookChangesResponse.model_validate_json(everything.content, extra="forbid")
    changes = everything.json()["data"]
    assert [(each["change"], each["changed_by"], each["channel"]) for each in changes] == [
        ("deleted", "boss", "api"),
        ("enabled", "boss", "api"),
        ("secret_rotated", "attendance", "api"),
        ("created", "boss", "api"),
    ]
    assert ([*first["data"], *rest["data"]], rest["next_cursor"]) == (changes, None)
    assert {each["webhook_id"] for each in changes} == {webhook["webhook_id"]}
    assert {(each["url"], tuple(each["events"])) for each in changes} == {
        (f"https://receiver.example.org/#{hashlib.sha256(BODY['url'].encode()).hexdigest()[:8]}", tuple(BODY["events"]))
    }
    assert changes == sorted(changes, key=lambda each: each["changed_at"], reverse=True)
    with owner.begin() as connection:
        kept = str(connection.execute(text("SELECT to_jsonb(c)::text FROM orchestrator.webhook_change c")).all())
    assert not [each for each in (webhook, *rotated) if each["secret"].removeprefix("whsec_") in kept]
