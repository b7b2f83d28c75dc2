"""Rows 1 to 3 and 44 of the fault catalogue: the connection is lost at the commit, or just before it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text

from api.load.admission import Admission
from consumers.registration import RegistrationHandler
from orchestrator.batches import operations
from orchestrator.batches.model import RetryRequest, Role
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.port import Candidate, Decision
from orchestrator.storage import database
from producers.producer import EventProducer
from schemas.envelope import Topic
from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH, WEBHOOKS_PATH
from tests.faults.proxy import Lost, PostgresProxy
from tests.faults.roles import assert_exactly_once, expanded, fold, registration_role, running_role
from tests.support.api_server import KEY, running_api
from tests.support.kafka import committed_offsets, reading
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors
from tests.support.waiting import eventually

ITEMS = 20


def register_under(
    lose: Callable[[], None], pipeline: Pipeline, settings: Settings, role: RegistrationHandler, publisher: EventProducer
) -> None:
    """Registers a batch on real topics while something is lost, and checks that everything was done once."""
    batch_id = pipeline.submit(mentors(ITEMS))
    publisher.publish(expanded(pipeline, batch_id))
    lose()
    with running_role(settings, role), reading(settings, Topic.RESULTS) as results:
        found = results.wait_for(ITEMS)
        eventually(lambda: sum(committed_offsets(settings, role.name, Topic.COMMANDS).values()) == ITEMS)
    fold(pipeline, found)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert len({result.id for result in results.records}) == len(results.records) == ITEMS


def check_registration(
    lost: Lost, pipeline: Pipeline, proxied: Settings, proxy: PostgresProxy, publisher: EventProducer, engine: Engine
) -> None:
    role = registration_role()
    assert isinstance(role, RegistrationHandler)
    register_under(lambda: proxy.lose_next(lost), pipeline, proxied, role, publisher)
    assert proxy.losses == 1
    assert_exactly_once(engine, proxied, activities=ITEMS)


def test_row_1_acknowledgement_of_commit_lost(
    pipeline: Pipeline, proxied: Settings, proxy: PostgresProxy, publisher: EventProducer, engine: Engine
) -> None:
    check_registration(Lost.ANSWER, pipeline, proxied, proxy, publisher, engine)


def test_row_2_request_to_commit_lost(
    pipeline: Pipeline, proxied: Settings, proxy: PostgresProxy, publisher: EventProducer, engine: Engine
) -> None:
    check_registration(Lost.REQUEST, pipeline, proxied, proxy, publisher, engine)


@pytest.mark.parametrize("lost", list(Lost))
def test_rows_1_and_2_a_persons_request_is_done_once(
    settings: Settings, proxied: Settings, proxy: PostgresProxy, pipeline: Pipeline, engine: Engine, lost: Lost
) -> None:
    person = Pipeline(proxied, engine)
    proxy.lose_next(lost)
    batch_id = person.submit([*mentors(3), item("newcomer")])
    person.drain()
    assert person.status(batch_id).batch.status == "partial"
    with engine.begin() as connection:
        mentor = "INSERT INTO registration.mentor VALUES (:org, 'newcomer', 'Mentor', 'chapter-1')"
        connection.execute(text(mentor), {"org": ORGANIZATION})
    proxy.lose_next(lost)
    person.call(operations.retry_failed_items, ADMIN, batch_id, RetryRequest())
    person.drain()
    view = person.status(batch_id)
    assert [(one.status, one.attempt) for one in view.items] == [("success", 1)] * 3 + [("success", 2)]
    stopped = person.submit(mentors(4, first=50))
    proxy.lose_next(lost)
    answer = person.call(operations.cancel_batch, ADMIN, stopped, None)
    assert (answer.batch.status, answer.batch.counts.cancelled) == ("cancelled", 4)
    person.drain()
    proxy.lose_next(lost)
    person.call(operations.delete_batch, ADMIN, batch_id)
    assert proxy.losses == 4
    assert_exactly_once(engine, settings, activities=4)
    person.close()


def test_row_1_a_retry_without_a_key_returns_what_it_began(proxied: Settings, proxy: PostgresProxy, pipeline: Pipeline) -> None:
    """Found by chaos: the transaction is run again and finds its items pending already. It must not report that it began none."""
    batch_id = pipeline.submit([*mentors(1), item("nobody"), item("nobody-else")])
    pipeline.drain()
    with running_api(proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        proxy.lose_next(Lost.ANSWER)
        answer = client.post(f"{API_PATH}/{batch_id}/retry")
    assert proxy.losses == 1
    assert (answer.status_code, answer.json()["retried"]) == (202, 2)
    assert "Idempotent-Replayed" not in answer.headers
    assert [one.attempt for one in pipeline.status(batch_id).items] == [1, 2, 2]


@pytest.mark.parametrize("one", [False, True], ids=["batch", "activity"])
def test_row_1_an_undo_without_a_key_returns_what_it_took_back(
    proxied: Settings, proxy: PostgresProxy, pipeline: Pipeline, one: bool
) -> None:
    """The transaction is run again and finds the activities revoked. That is the same request, and not a repetition."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.drain()
    path = f"{ACTIVITIES_PATH}/{DerivedIds(batch_id).activity_id(0)}" if one else f"{API_PATH}/{batch_id}"
    with running_api(proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        proxy.lose_next(Lost.ANSWER)
        answer = client.post(f"{path}/revoke", json={"reason": "a mistake"})
    assert proxy.losses == 1
    assert (answer.status_code, answer.json()["revoked"], answer.json()["already_revoked"]) == (200, 1 if one else 2, 0)
    assert "Idempotent-Replayed" not in answer.headers


def test_row_1_a_change_without_a_key_is_made_once_and_is_no_repetition(
    proxied: Settings, proxy: PostgresProxy, pipeline: Pipeline
) -> None:
    """The second run finds what the first one did: a webhook with the same id, no webhook, another version than the expected one."""
    webhook = {"url": "https://receiver.example.org/", "events": ["BatchCompleted"]}
    template = {
        "coordinator_id": COORDINATOR,
        "name": "Visits",
        "mentor_ids": ["mentor-1"],
        "activity_type": "visit",
        "duration_minutes": 60,
    }
    api_settings = proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})
    answers = []
    with running_api(api_settings) as api, api.client(Role.ADMIN, sub="boss") as client:

        def send(method: str, path: str, body: object = None, if_match: str = "") -> httpx.Response:
            proxy.lose_next(Lost.ANSWER)
            answers.append(client.request(method, path, json=body, headers={"If-Match": if_match} if if_match else {}))
            return answers[-1]

        at_webhook = f"{WEBHOOKS_PATH}/{send('POST', WEBHOOKS_PATH, webhook).json()['webhook_id']}"
        send("POST", f"{at_webhook}/rotate-secret")
        assert len(client.get(WEBHOOKS_PATH).json()["data"]) == 1
        send("DELETE", at_webhook)
        send("POST", f"{API_ROOT}/templates", template)
        assert len(client.get(f"{API_ROOT}/templates").json()["data"]) == 1
        tag = client.get(CLOSED_PERIOD_PATH).headers["ETag"]
        send("PUT", CLOSED_PERIOD_PATH, {"closed_through": "2026-01-31", "reason": "the year has begun"}, if_match=tag)
        assert len(client.get(CLOSED_PERIOD_PATH).json()["history"]) == 1
    assert proxy.losses == len(answers)
    assert [(each.status_code, "Idempotent-Replayed" in each.headers) for each in answers] == [
        (201, False),
        (200, False),
        (204, False),
        (201, False),
        (200, False),
    ]


class TerminatedOnce(InProcessRegistrationService):
    """Loses its session after the activities are inserted and before their outcomes are."""

    def __init__(self, beside: Engine) -> None:
        super().__init__(EARLIEST_YEAR)
        self.backends: list[int] = []
        self._beside = beside

    def register(self, connection: Connection, candidates: Sequence[Candidate], at: datetime) -> Sequence[Decision]:
        decisions = super().register(connection, candidates, at)
        self.backends.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        if len(self.backends) == 1:
            with self._beside.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": self.backends[0]})
        return decisions


def test_row_3_backend_terminated_in_mid_transaction(
    pipeline: Pipeline, settings: Settings, publisher: EventProducer, engine: Engine
) -> None:
    service = TerminatedOnce(engine)
    register_under(lambda: None, pipeline, settings, RegistrationHandler(service), publisher)
    first, *others = service.backends
    assert others
    assert first not in others, "the lost session was used again"
    assert_exactly_once(engine, settings, activities=ITEMS)


# --- Row 44 -----------------------------------------------------------------------------------------------------------------


def submission(*names: str, **fields: object) -> dict[str, object]:
    items = [
        {"mentor_id": name, "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60} for name in names
    ]
    return {"items": items, **fields}


def planned(client: httpx.Client, **fields: object) -> dict[str, object]:
    """A submission with the plan of its preview. One item will succeed, and one will fail."""
    given = submission("mentor-1", "nobody", **fields)
    plan = client.post(f"{API_PATH}/preview", json=given)
    assert plan.status_code == 200, plan.text
    return {**given, "plan": plan.json()["plan"]}


@contextlib.contextmanager
def register_and_meddle(
    pipeline: Pipeline, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch, meddle: Callable[[], None]
) -> Iterator[None]:
    """The acknowledgement of a call is lost. Before the call is repeated, everything accepted is processed, and another change is made."""
    runs = database._begin

    def begin(*arguments: Any, **named: Any) -> None:
        if proxy.losses and not done:
            done.append(True)
            pipeline.drain()
            meddle()
        runs(*arguments, **named)

    done: list[bool] = []
    with monkeypatch.context() as patch:
        patch.setattr(database, "_begin", begin)
        yield
    assert done, "the call was not run twice"


@pytest.fixture
def lossy_api(proxied: Settings, pipeline: Pipeline) -> Iterator[httpx.Client]:
    with running_api(proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api, api.client() as client:
        yield client


@pytest.mark.parametrize("fields", [{}, {"override_duplicates": True}])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "mine"}])
def test_row_44_a_planned_submission_whose_acknowledgement_was_lost_is_accepted(
    lossy_api: httpx.Client,
    pipeline: Pipeline,
    proxy: PostgresProxy,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    engine: Engine,
    fields: dict[str, object],
    headers: dict[str, str],
) -> None:
    """At the second run the batch is registered, so a new preview would differ. The coordinator has been deleted, too."""
    # Otherwise the first COMMIT would be that of the admission's query.
    monkeypatch.setattr(Admission, "admit", lambda _self, _items: None)
    given = planned(lossy_api, **fields)
    with register_and_meddle(pipeline, proxy, monkeypatch, lambda: forget_coordinator(engine)):
        proxy.lose_next(Lost.ANSWER)
        answer = lossy_api.post(API_PATH, json=given, headers=headers)
    assert answer.status_code == 202, answer.text
    assert "Idempotent-Replayed" not in answer.headers
    assert pipeline.status(UUID(answer.json()["batch_id"])).batch.status == "partial"
    assert_exactly_once(engine, settings, activities=1)


def forget_coordinator(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM registration.coordinator_scope"))
        connection.execute(text("DELETE FROM registration.coordinator"))


def test_row_44_a_repeated_change_of_a_batch_returns_the_first_runs_result(
    lossy_api: httpx.Client, pipeline: Pipeline, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call names the version that the client has seen, and another client relabels the batch between the two runs."""
    batch_id = pipeline.submit([*mentors(1), item("nobody")])
    pipeline.drain()
    at = f"{API_PATH}/{batch_id}"

    def relabelled() -> None:
        pipeline.call(operations.relabel_batch, ADMIN, batch_id, "by somebody else")

    def lost(call: Callable[[dict[str, str]], httpx.Response], meddle: Callable[[], None]) -> httpx.Response:
        seen = {"If-Match": lossy_api.get(at).headers["ETag"]}
        proxy.losses = 0
        with register_and_meddle(pipeline, proxy, monkeypatch, meddle):
            proxy.lose_next(Lost.ANSWER)
            return call(seen)

    answer = lost(lambda seen: lossy_api.put(at, json={"label": "mine"}, headers=seen), relabelled)
    assert (answer.status_code, answer.json()["label"]) == (200, "by somebody else")
    answer = lost(lambda _: lossy_api.post(f"{at}/retry"), relabelled)
    assert (answer.status_code, answer.json()["retried"]) == (202, 1)
    answer = lost(lambda seen: lossy_api.delete(at, headers=seen), lambda: None)
    assert answer.status_code == 204
    batch_id = pipeline.submit(mentors(1, first=50))
    at = f"{API_PATH}/{batch_id}"
    answer = lost(lambda seen: lossy_api.post(f"{at}/cancel", headers=seen), relabelled)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


def test_row_44_the_first_response_does_not_say_that_it_is_a_repetition(
    proxied: Settings, proxy: PostgresProxy, pipeline: Pipeline
) -> None:
    failed = pipeline.submit([item("nobody")])
    pipeline.drain()
    running = pipeline.submit(mentors(1, first=50))
    requests = {
        "webhook": ("POST", WEBHOOKS_PATH, {"url": "https://receiver.example.org/", "events": ["BatchCompleted"]}),
        "period": ("PUT", CLOSED_PERIOD_PATH, {"closed_through": "2020-01-01", "reason": "The report is sent"}),
        "retry": ("POST", f"{API_PATH}/{failed}/retry", None),
        "cancel": ("POST", f"{API_PATH}/{running}/cancel", None),
    }
    said: dict[str, list[str | None]] = {}
    with (
        running_api(proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as api,
        api.client(Role.ADMIN, sub="boss") as client,
    ):
        for name, (method, path, body) in requests.items():
            proxy.lose_next(Lost.ANSWER)
            answers = [client.request(method, path, json=body, headers={"Idempotency-Key": name}) for _ in range(2)]
            assert [answer.is_success for answer in answers] == [True, True], [answer.text for answer in answers]
            said[name] = [answer.headers.get("Idempotent-Replayed") for answer in answers]
    assert (proxy.losses, said) == (4, {name: [None, "true"] for name in requests})
