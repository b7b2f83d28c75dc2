"""Who may do what: tokens, roles, organizations, and responses that tell strangers nothing (docs/http.md, An address and a token)."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline
from tests.support.waiting import PATIENCE_S

ITEM = {"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
SUBMISSION = {"items": [ITEM]}
NEIGHBOUR = "org-neighbour"


@pytest.fixture
def neighbour(api: ApiServer, engine: Engine) -> Iterator[httpx.Client]:
    """An admin of another organization, who is a coordinator there."""
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES (:org, 'boss', 'Boss', 'admin')"), {"org": NEIGHBOUR}
        )
    with api.client(Role.ADMIN, sub="boss", orgs=(NEIGHBOUR,)) as client:
        yield client


def submitted(client: httpx.Client, **changes: Any) -> str:
    answer = client.post(API_PATH, json=SUBMISSION | changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["batch_id"])


# --- Tokens -------------------------------------------------------------------------------------------------------------------


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": "bulkreg", "aud": "bulkreg", "nbf": now, "exp": now + 60, "sub": COORDINATOR, "role": "coordinator"}
    merged = good | {"org": ORGANIZATION} | changes
    return {name: value for name, value in merged.items() if value is not None}


def signed(payload: dict[str, Any], key: str = KEY, algorithm: str = "HS256", **headers: Any) -> str:
    return jwt.encode(payload, key, algorithm=algorithm, headers=headers or None)


def _segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _rsa_signed() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return jwt.encode(claims(), pem, algorithm="RS256")


FORGED: dict[str, Callable[[], str]] = {
    "algorithm none": lambda: f"{_segment({'alg': 'none', 'typ': 'JWT'})}.{_segment(claims())}.",
    "algorithm none in disguise": lambda: f"{_segment({'alg': 'nOnE'})}.{_segment(claims())}.",
    "another key": lambda: signed(claims(), "another key of at least 32 bytes!!!"),
    "another algorithm of the same key": lambda: signed(claims(), KEY + KEY, "HS512"),
    "an asymmetric algorithm": _rsa_signed,
    "an unknown critical header": lambda: signed(claims(), crit=["exp"], exp=1),
    "no exp": lambda: signed(claims(exp=None)),
    "no iss": lambda: signed(claims(iss=None)),
    "no aud": lambda: signed(claims(aud=None)),
    "no sub": lambda: signed(claims(sub=None)),
    "expired": lambda: signed(claims(exp=int(time.time()) - 11)),
    "not yet valid": lambda: signed(claims(nbf=int(time.time()) + 30)),
    "another issuer": lambda: signed(claims(iss="somebody")),
    "another audience": lambda: signed(claims(aud="something")),
    "no role": lambda: signed(claims(role=None)),
    "an unknown role": lambda: signed(claims(role="root")),
    "no organization": lambda: signed(claims(org=None)),
    "two organizations in one": lambda: signed(claims(org=f"{NEIGHBOUR}\x1f{ORGANIZATION}")),
    "a coordinator of every organization": lambda: signed(claims(org=None, orgs=["*"])),
    "a service without a list": lambda: signed(claims(role="service")),
    "NUL in the subject": lambda: signed(claims(sub="coord\0")),
    "changed after signing": lambda: signed(claims()).replace(".", ".A", 1),
    "no token at all": lambda: "x",
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused(refusing_api: ApiServer, forge: Callable[[], str]) -> None:
    forged = {"Authorization": f"Bearer {forge()}"}
    answer = httpx.get(refusing_api.url + API_PATH, headers=forged, timeout=PATIENCE_S, verify=NO_TLS)
    assert answer.status_code == 401, answer.text
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_unforged_token_is_accepted(refusing_api: ApiServer) -> None:
    assert (
        httpx.get(
            refusing_api.url + API_PATH, headers={"Authorization": f"bearer {signed(claims())}"}, timeout=PATIENCE_S
        ).status_code
        == 200
    )


@pytest.mark.parametrize("header", [None, "Basic eDp5", "Bearer", "Bearer \udcff", "bearer\ttoken"])
def test_without_a_token_every_request_is_refused(refusing_api: ApiServer, header: str | None) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode(errors="surrogateescape"))]
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{uuid4()}"), ("DELETE", f"/{uuid4()}")):
        answer = httpx.request(method, refusing_api.url + API_PATH + path, headers=headers, timeout=PATIENCE_S, verify=NO_TLS)
        assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")


def test_two_different_tokens_are_no_token(refusing_api: ApiServer) -> None:
    """The first must not count: what stands before the API may have checked the last."""
    mine, foreign = (f"Bearer {signed(claims(sub=subject))}" for subject in (COORDINATOR, "another"))
    pairs = [
        (mine, mine, 200),
        *((mine, other, 401) for other in (foreign, "Bearer x", "Basic eDp5", "")),
        (foreign, mine, 401),
    ]
    for first, second, status in pairs:
        headers = [("Authorization", first), ("Authorization", second)]
        answer = httpx.get(refusing_api.url + API_PATH, headers=headers, timeout=PATIENCE_S, verify=NO_TLS)
        assert answer.status_code == status, (first, second)


# --- Roles and ownership ------------------------------------------------------------------------------------------------------

ON_A_BATCH: list[tuple[str, str, Any]] = [
    ("GET", "", None),
    ("GET", "?items=failed", None),
    ("PUT", "", {"label": "mine now"}),
    ("PUT", "", {"status": "cancelled"}),
    ("DELETE", "", None),
    ("POST", "/retry", {}),
    ("POST", "/cancel", None),
]


def every_answer(client: httpx.Client, batch_id: str, item_id: str) -> list[tuple[int, bytes, dict[str, str]]]:
    asked = [*ON_A_BATCH, ("GET", f"/items/{item_id}", None)]
    answers = [client.request(method, f"{API_PATH}/{batch_id}{tail}", json=body) for method, tail, body in asked]
    return [(a.status_code, a.content, {k: v for k, v in a.headers.items() if k != "date"}) for a in answers]


def test_a_stranger_gets_the_same_responses_for_a_batch_as_for_a_random_id(
    api: ApiServer, coordinator: httpx.Client, neighbour: httpx.Client, engine: Engine
) -> None:
    batch_id = submitted(coordinator)
    item_id = coordinator.get(f"{API_PATH}/{batch_id}").json()["items"][0]["item_id"]
    with api.client(sub="coord-colleague") as colleague:
        for stranger in (neighbour, colleague):
            answers = every_answer(stranger, batch_id, item_id)
            assert answers == every_answer(stranger, str(uuid4()), str(uuid4()))
            assert {status for status, _, _ in answers} == {404}
            assert stranger.get(API_PATH).json()["pagination"]["total"] == 0
    assert coordinator.get(f"{API_PATH}/{batch_id}").json()["status"] == "processing"


SOME_ID = UUID("01991f6e-0000-7000-8000-000000000001")


@pytest.mark.parametrize("batch_id", ["1", "x", f"{{{SOME_ID}}}", SOME_ID.hex, f"urn:uuid:{SOME_ID}", "%00", "%FF", "..%2f"])
def test_a_malformed_batch_id_is_not_found(sender: httpx.Client, batch_id: str) -> None:
    for method, tail, body in ON_A_BATCH:
        answer = sender.request(method, f"{API_PATH}/{batch_id}{tail}", json=body)
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_an_auditor_reads_all_and_changes_nothing(api: ApiServer, coordinator: httpx.Client) -> None:
    batch_id = submitted(coordinator)
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        assert auditor.get(f"{API_PATH}/{batch_id}").status_code == 200
        assert auditor.get(API_PATH).json()["pagination"]["total"] == 1
        for method, tail, body in [("POST", "", SUBMISSION), *((m, f"/{batch_id}{t}", b) for m, t, b in ON_A_BATCH)]:
            answer = auditor.request(method, API_PATH + tail, json=body)
            assert answer.status_code == (200 if method == "GET" else 403)
            assert method == "GET" or answer.json()["code"] == "role_may_not"


def test_an_admin_changes_batches_of_every_coordinator(admin: httpx.Client, coordinator: httpx.Client) -> None:
    mine = submitted(coordinator)
    for_another = submitted(admin, coordinator_id=COORDINATOR)
    assert admin.get(API_PATH).json()["pagination"]["total"] == 2
    assert coordinator.get(f"{API_PATH}/{for_another}").json()["submitted_by"] == "boss"
    assert admin.post(f"{API_PATH}/{mine}/cancel").status_code == 200


def test_a_coordinator_id_must_be_the_callers_own_and_known(
    api: ApiServer, admin: httpx.Client, coordinator: httpx.Client
) -> None:
    other = coordinator.post(API_PATH, json=SUBMISSION | {"coordinator_id": "coord-2"})
    assert (other.status_code, other.json()["code"]) == (403, "not_your_coordinator_id")
    with api.client(sub="coord-2") as unknown:
        for client, body in ((unknown, SUBMISSION), (admin, SUBMISSION | {"coordinator_id": "coord-2"}), (admin, SUBMISSION)):
            answer = client.post(API_PATH, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "coordinator_unknown")
            assert [error["pointer"] for error in answer.json()["errors"]] == ["/coordinator_id"]


# --- Organizations ------------------------------------------------------------------------------------------------------------

SEVERAL = (ORGANIZATION, NEIGHBOUR)


@pytest.mark.parametrize(
    ("orgs", "header", "in_body", "expected"),
    [
        ((ORGANIZATION,), None, None, (202, None)),
        ((ORGANIZATION,), ORGANIZATION, ORGANIZATION, (202, None)),
        (SEVERAL, None, None, (422, "organization_required")),
        (("*",), None, None, (422, "organization_required")),
        (SEVERAL, ORGANIZATION, None, (202, None)),
        (SEVERAL, None, ORGANIZATION, (202, None)),
        (("*",), None, ORGANIZATION, (202, None)),
        (("*",), ORGANIZATION, None, (202, None)),
        (SEVERAL, ORGANIZATION, NEIGHBOUR, (422, "organization_differs")),
        (SEVERAL, "org-third", None, (403, "not_your_organization")),
        (SEVERAL, None, "org-third", (403, "not_your_organization")),
        (("*",), "*", None, (403, "not_your_organization")),
        (("*",), None, f"{NEIGHBOUR}\x1f{ORGANIZATION}", (403, "not_your_organization")),
    ],
)
def test_service_names_its_organization(
    api: ApiServer, orgs: tuple[str, ...], header: str | None, in_body: str | None, expected: tuple[int, str | None]
) -> None:
    body = SUBMISSION | {"coordinator_id": COORDINATOR} | ({} if in_body is None else {"organization_id": in_body})
    with api.client(Role.SERVICE, sub="attendance", orgs=orgs) as service:
        for path, accepted in ((f"{API_PATH}/preview", 200), (API_PATH, 202)):
            answer = service.post(path, json=body, headers={} if header is None else {"X-Organization-Id": header})
            status, code = expected
            assert (answer.status_code, answer.json().get("code")) == (accepted if code is None else status, code), path


def test_a_person_may_name_only_their_own_organization(coordinator: httpx.Client) -> None:
    assert coordinator.get(API_PATH, headers={"X-Organization-Id": ORGANIZATION}).status_code == 200
    assert coordinator.get(API_PATH, headers={"X-Organization-Id": NEIGHBOUR}).status_code == 403
    for path in (API_PATH, f"{API_PATH}/preview"):
        assert coordinator.post(path, json=SUBMISSION | {"organization_id": NEIGHBOUR}).status_code == 403
    headers = {"Content-Type": "text/csv", "X-Organization-Id": NEIGHBOUR}
    assert coordinator.post(f"{API_PATH}/read-file", content=b"mentor_id\nmentor-1\n", headers=headers).status_code == 403


def test_idempotency_keys_are_per_organization_and_subject(
    coordinator: httpx.Client, admin: httpx.Client, neighbour: httpx.Client, pipeline: Pipeline
) -> None:
    key = {"Idempotency-Key": "same"}
    mine = coordinator.post(API_PATH, json=SUBMISSION, headers=key)
    admins = admin.post(API_PATH, json=SUBMISSION | {"coordinator_id": COORDINATOR}, headers=key)
    neighbours = neighbour.post(API_PATH, json=SUBMISSION, headers=key)
    assert {answer.status_code for answer in (mine, admins, neighbours)} == {202}
    assert len({answer.json()["batch_id"] for answer in (mine, admins, neighbours)}) == 3
