"""Role x operation x ownership, for every operation of the OpenAPI document; and notes are nowhere that they must not be."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine, text

from api import openapi
from api.routes import ROUTES
from orchestrator.batches.model import Role
from orchestrator.process.actions import Action
from schemas.ids import DerivedIds
from schemas.paths import API_PATH, API_ROOT, FORGETTINGS_PATH, WEBHOOK_CHANGES_PATH, WEBHOOKS_PATH
from tests.support.api_server import ApiServer
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors
from tests.support.receipts import append_and_sign

NEIGHBOUR = "org-neighbour"

# The body that each operation is sent. An operation of the document that is missing here fails the test.
BODIES: dict[str, Any] = {
    "getMe": None,
    "getClosedPeriod": None,
    "changeClosedPeriod": {"closed_through": "2020-12-31", "reason": "the report is sent"},
    "listTemplates": None,
    "createTemplate": {"name": "Mondays", "mentor_ids": ["mentor-1"], "activity_type": "visit", "duration_minutes": 60},
    "getTemplate": None,
    "replaceTemplate": {"name": "Tuesdays", "mentor_ids": ["mentor-1"], "activity_type": "visit", "duration_minutes": 60},
    "deleteTemplate": None,
    "dismissBatch": None,
    "readFile": b"mentor_id\nmentor-1\n",
    "listMentors": None,
    "listChapters": None,
    "listActivityTypes": None,
    "listCoordinators": None,
    "submit": {
        "items": [{"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}]
    },
    "listBatches": None,
    "preview": {
        "mentor_ids": ["mentor-1"],
        "activity": {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60},
    },
    "getBatch": None,
    "updateBatch": {"label": "x"},
    "deleteBatch": None,
    "retryBatch": {},
    "cancelBatch": None,
    "revokeBatch": {"reason": "a mistake"},
    "listActivities": None,
    "downloadActivitiesCsv": None,
    "downloadActivitiesNdjson": None,
    "summarizeActivities": None,
    "getActivity": None,
    "revokeActivity": {"reason": "a mistake"},
    "getReceipt": None,
    "getCheckpoint": None,
    "getConsistency": None,
    "getReceiptKeys": None,
    "issueTicket": None,
    "followBatch": None,
    "downloadCsv": None,
    "downloadNdjson": None,
    "getItem": None,
    "eraseNotes": None,
    "listWebhooks": None,
    "createWebhook": {"url": "https://receiver.example.org/", "events": ["BatchCompleted"]},
    "getWebhook": None,
    "deleteWebhook": None,
    "rotateWebhookSecret": None,
    "enableWebhook": None,
    "testWebhook": None,
    "listDeliveries": None,
    "listWebhookChanges": None,
    "redeliver": None,
    "forgetMentor": {"mentor_id": "mentor-99"},
    "getForgetting": None,
}

# The query of operations that need one.
QUERIES = {"getConsistency": {"from": "1"}}

OPERATIONS = [
    (operation["operationId"], method.upper(), path)
    for path, methods in openapi.document()["paths"].items()
    for method, operation in methods.items()
    if path.startswith(API_ROOT)
]
REFUSALS = {
    operation["operationId"]: {
        code
        for refusal in operation["responses"].values()
        for content in refusal.get("content", {}).values()
        for part in content.get("schema", {}).get("allOf", ())
        for code in part.get("properties", {}).get("code", {}).get("enum", ())
    }
    for methods in openapi.document()["paths"].values()
    for operation in methods.values()
}
"""The codes of the refusals that the document names for each operation."""
CHANGING = {route.name for route in ROUTES if route.changes}
FILES = {route.name for route in ROUTES if route.file_types}
OF_WEBHOOKS = {route.name for route in ROUTES if route.path.startswith((WEBHOOKS_PATH, WEBHOOK_CHANGES_PATH))}
NOT_FOR_COORDINATORS = {"listCoordinators", "changeClosedPeriod", "forgetMentor", "getForgetting", *OF_WEBHOOKS}


Places = dict[str, str]
"""The ids in a path."""


@dataclass(frozen=True)
class Caller:
    """A caller, and what they may see and change of the standard organization's batch."""

    role: Role
    subject: str
    organization: str
    may_see: bool

    @property
    def may_change(self) -> bool:
        return self.role is not Role.AUDITOR


CALLERS = [
    Caller(Role.COORDINATOR, COORDINATOR, ORGANIZATION, may_see=True),
    Caller(Role.COORDINATOR, "coord-2", ORGANIZATION, may_see=False),
    Caller(Role.ADMIN, "boss", ORGANIZATION, may_see=True),
    Caller(Role.SERVICE, "attendance", ORGANIZATION, may_see=True),
    Caller(Role.AUDITOR, "auditor", ORGANIZATION, may_see=True),
    Caller(Role.COORDINATOR, COORDINATOR, NEIGHBOUR, may_see=False),
    Caller(Role.ADMIN, "boss", NEIGHBOUR, may_see=False),
    Caller(Role.SERVICE, "attendance", NEIGHBOUR, may_see=False),
    Caller(Role.AUDITOR, "auditor", NEIGHBOUR, may_see=False),
]


@pytest.fixture
def everybody_is_known(pipeline: Pipeline, engine: Engine) -> None:
    """Registers each caller as a coordinator, so that only their role decides."""
    with engine.begin() as connection:
        for caller in CALLERS:
            connection.execute(
                text(
                    "INSERT INTO registration.coordinator VALUES (:org, :sub, 'Somebody', 'coordinator') ON CONFLICT DO NOTHING"
                ),
                {"org": caller.organization, "sub": caller.subject},
            )
        mentor = {"org": NEIGHBOUR, "id": "mentor-99"}
        connection.execute(text("INSERT INTO registration.mentor VALUES (:org, :id, 'Somebody', 'chapter-1')"), mentor)


@pytest.fixture
def places(pipeline: Pipeline, api: ApiServer) -> Places:
    """The standard coordinator's things: a finished batch, a failed item of it, and a template; the organization's webhook."""
    batch_id = pipeline.submit([*mentors(1), item("mentor-none")])
    pipeline.drain()
    append_and_sign(pipeline.engine)
    with api.client() as client:
        template = client.post(f"{API_ROOT}/templates", json=BODIES["createTemplate"]).json()
    return {
        **webhook_places(api),
        "batch_id": str(batch_id),
        "item_id": str(pipeline.status(batch_id, actor=ADMIN).items[1].item_id),
        "template_id": template["template_id"],
        "activity_id": DerivedIds(batch_id).activity_id(0),
        "forgetting_id": asked_to_forget(api),
    }


def webhook_places(api: ApiServer) -> Places:
    with api.client(Role.ADMIN, sub="boss") as admin:
        webhook_id = admin.post(WEBHOOKS_PATH, json=BODIES["createWebhook"]).json()["webhook_id"]
        event_id = admin.post(f"{WEBHOOKS_PATH}/{webhook_id}/test").json()["event_id"]
    return {"webhook_id": webhook_id, "event_id": event_id}


def asked_to_forget(api: ApiServer) -> str:
    """A request to forget a mentor."""
    with api.client(Role.ADMIN, sub="boss") as client:
        return str(client.post(FORGETTINGS_PATH, json=BODIES["forgetMentor"]).json()["forgetting_id"])


def ask(client: httpx.Client, operation: tuple[str, str, str], places: Places) -> httpx.Response:
    """The response. A refusal has to be one of those that the document names for the operation."""
    name, method, path = operation
    # The event stream ends, because the batch is finished.
    address = path.format(**places)
    if name in FILES:
        answer = client.request(method, address, content=BODIES[name], headers={"Content-Type": "text/csv"})
    else:
        answer = client.request(method, address, json=BODIES[name], params=QUERIES.get(name))
    if answer.status_code >= 400:
        assert answer.json()["code"] in REFUSALS[name], (name, answer.text)
    return answer


@pytest.mark.usefixtures("everybody_is_known")
@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation[0] for operation in OPERATIONS])
def test_who_may_do_what(api: ApiServer, places: Places, operation: tuple[str, str, str]) -> None:
    name, _, path = operation
    is_somebodys = "{" in path
    # The caller with the most rights comes last, because later callers would find what it changed.
    for caller in sorted(CALLERS, key=lambda caller: (caller.may_see, caller.role is not Role.AUDITOR)):
        with api.client(caller.role, sub=caller.subject, orgs=(caller.organization,)) as client:
            answer = ask(client, operation, places)
            if (name in CHANGING and not caller.may_change) or (name in NOT_FOR_COORDINATORS and caller.role is Role.COORDINATOR):
                assert (answer.status_code, answer.json()["code"]) == (403, "role_may_not"), caller
            elif is_somebodys and not caller.may_see:
                random = ask(client, operation, {name: str(uuid4()) for name in places})
                assert answer.status_code == random.status_code == 404, caller
                assert answer.content == random.content
                assert answer.headers.keys() == random.headers.keys()
            elif not is_somebodys or name not in ("deleteBatch", "deleteTemplate", "deleteWebhook"):
                assert answer.status_code < 300 or answer.json()["code"] in ("batch_finished", "receipt_not_ready"), (
                    caller,
                    answer.text,
                )


def test_the_matrix_has_every_operation() -> None:
    assert {name for name, _, _ in OPERATIONS} == BODIES.keys()


CANARY = "canary-4711 diagnosis"


def test_notes_are_in_no_log_metric_error_or_listing(
    api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline, owner: Engine, capfd: pytest.CaptureFixture[str], caplog: Any
) -> None:
    caplog.set_level("INFO")
    good = {
        "mentor_id": "mentor-1",
        "activity_type": "visit",
        "activity_date": "2026-03-25",
        "duration_minutes": 60,
        "notes": CANARY,
    }
    failing = good | {"mentor_id": "mentor-none"}
    accepted = coordinator.post(API_PATH, json={"items": [good, failing]}, headers={"Idempotency-Key": "k"})
    url = accepted.headers["Location"]
    pipeline.drain()
    answers = [
        accepted,
        coordinator.post(API_PATH, json={"items": [good | {"duration_minutes": "x"}, good, good]}),
        coordinator.post(API_PATH, json={"items": [good | {"notes": CANARY + "\0"}]}),
        coordinator.post(API_PATH, json={"items": [good | {"notes": {CANARY: 1}}]}),
        coordinator.post(
            API_PATH, content=b'{"items": [{"notes": "' + CANARY.encode(), headers={"Content-Type": "application/json"}
        ),
        coordinator.post(API_PATH, json={"items": [good]}, headers={"Idempotency-Key": "k"}),
        coordinator.post(f"{API_PATH}/preview", json={"items": [good, failing]}),
        coordinator.get(url),
        coordinator.get(API_PATH),
        coordinator.get(f"{url}/events"),
        coordinator.get(f"{url}/results.csv"),
        coordinator.get(f"{API_ROOT}/activities"),
        coordinator.get(f"{API_ROOT}/activities.ndjson"),
        coordinator.get("/metrics"),
    ]
    # Simulates a bug: the database refuses a statement that contains notes, and its message quotes them.
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE orchestrator.batch_item ADD CONSTRAINT bug CHECK (notes IS NULL) NOT VALID"))
    answers.append(coordinator.post(API_PATH, json={"items": [good]}))
    assert answers[-1].status_code == 500
    [bug] = logged(caplog, Action.REQUEST_FAILED)
    assert (bug["error"], "orchestrator/storage/" in str(bug["at"])) == ("IntegrityError", True)
    assert [answer.status_code for answer in answers[1:6]] == [422, 422, 422, 400, 422]
    for answer in answers:
        assert CANARY not in answer.text
        assert CANARY not in str(answer.headers)
    assert CANARY not in "".join(capfd.readouterr()) + caplog.text
    # Notes are where they belong.
    item_id = coordinator.get(url).json()["items"][0]["item_id"]
    assert coordinator.get(f"{url}/items/{item_id}").json()["notes"] == CANARY


def test_an_auditor_never_gets_notes(api: ApiServer, coordinator: httpx.Client, pipeline: Pipeline) -> None:
    values = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60, "notes": CANARY}
    listed = [{"mentor_id": mentor, **values} for mentor in ("mentor-1", "mentor-none")]
    url = coordinator.post(API_PATH, json={"items": listed}).headers["Location"]
    pipeline.drain()
    failed = coordinator.get(url).json()["items"][1]["item_id"]
    for notes in (CANARY + " corrected", CANARY + " again"):
        coordinator.post(f"{url}/retry", json={"corrections": [{"item_id": failed, "notes": notes, "duration_minutes": 61}]})
        pipeline.drain()
    append_and_sign(pipeline.engine)
    template = coordinator.post(f"{API_ROOT}/templates", json=BODIES["createTemplate"]).json()
    [registered] = coordinator.get(f"{API_ROOT}/activities").json()["data"]
    places = {
        **webhook_places(api),
        "batch_id": url.rpartition("/")[2],
        "item_id": failed,
        "template_id": template["template_id"],
        "activity_id": registered["activity_id"],
        "forgetting_id": asked_to_forget(api),
    }
    reading = [(name, path) for name, method, path in OPERATIONS if method == "GET"]
    assert {"getBatch", "getItem", "followBatch", "downloadCsv"} <= {name for name, _ in reading}
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        for name, path in reading:
            address = path.format(**places)
            answer = auditor.get(address, params=QUERIES.get(name))
            assert (answer.status_code, CANARY in answer.text) == (200, False), name
            assert CANARY not in auditor.get(address, params={"names": "true"}).text, name
        for suffix in ("csv", "ndjson"):
            refused = auditor.get(f"{url}/results.{suffix}", params={"notes": "true"})
            assert (refused.status_code, refused.json()["code"]) == (403, "role_may_not")
        item = auditor.get(f"{url}/items/{failed}").json()
        assert item["notes"] is None
        assert [attempt["submitted"]["notes"] for attempt in item["history"]] == [None, None]
        assert [attempt["correction"] for attempt in item["history"]] == [{"duration_minutes": 61}, {}]
    # The batch's own coordinator reads them.
    seen = coordinator.get(f"{url}/items/{failed}").json()
    assert seen["notes"] == CANARY + " again"
    assert seen["history"][0]["submitted"]["notes"] == CANARY
    assert coordinator.get(f"{url}/results.csv", params={"notes": "true"}).text.count(CANARY) == 2
