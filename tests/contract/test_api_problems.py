"""What is refused before it reaches an operation, and what happens while the database is away."""

import contextlib
import gzip
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text

from api import app, handling
from api.access.authentication import UnsafeStartError
from api.app import create_app
from api.http import json_body
from api.http.problems import PROBLEMS
from orchestrator.batches.model import Role
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from schemas.api.health import HealthResponse
from schemas.api.problems import ProblemResponse
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.log_lines import logged
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, Pipeline, mentors
from tests.support.waiting import PATIENCE_S, eventually

POISON: dict[str, tuple[bytes, int]] = {
    "no JSON": (b"{", 400),
    "nothing": (b"", 400),
    "not UTF-8": (b'{"label": "\xff"}', 400),
    "NaN": (b'{"items": [NaN]}', 400),
    "a number that overflows": (b'{"items": 1e400}', 400),
    "a number of 5,000 digits": (b'{"items": ' + b"9" * 5000 + b"}", 400),
    "a key twice": (b'{"items": [], "items": []}', 400),
    "too deep": (b"[" * 21 + b"]" * 21, 400),
    "bottomless": (b'{"items": ' + b"[" * 200_000, 400),
    "deep enough": (b"[" * 20 + b"]" * 20, 422),
    "an unpaired surrogate": (b'{"items": [{"mentor_id": "\\ud800"}]}', 422),
    "an unpaired surrogate in a name": (b'{"items": [{"\\ud800": 1}]}', 422),
    "NUL in a name": (b'{"items": [{"\\u0000": 1}]}', 422),
    "a huge integer": (b'{"items": [{"duration_minutes": 123456789012345678901234567890}]}', 422),
}


@pytest.mark.parametrize(("body", "status"), POISON.values(), ids=POISON.keys())
def test_a_poisonous_body_is_refused_and_the_next_request_is_served(sender: httpx.Client, body: bytes, status: int) -> None:
    answer = sender.post(API_PATH, content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    ProblemResponse.model_validate_json(answer.content, extra="forbid")
    assert sender.get(API_PATH).status_code == 200


def test_media_types(sender: httpx.Client) -> None:
    body = b'{"items": []}'
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = sender.post(API_PATH, content=body, headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "not_json")
    compressed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = sender.post(API_PATH, content=gzip.compress(body), headers=compressed)
    assert (answer.status_code, answer.json()["code"]) == (415, "compressed")
    answer = sender.post(API_PATH, content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status_code == 422


def test_a_too_large_body_is_refused(sender: httpx.Client) -> None:
    answer = sender.post(API_PATH, content=b" " * (16 * 1024 * 1024 + 1), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert answer.headers["Connection"] == "close", "the rest of the body would be read as the next request"
    answer = sender.post(API_PATH, content=b" " * 16 * 1024 * 1024, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize(("size", "times"), [(60_000, 0), (70_000, 1)])
def test_free_memory_is_given_back_after_a_large_body(
    sender: httpx.Client, monkeypatch: pytest.MonkeyPatch, size: int, times: int
) -> None:
    given_back = threading.Semaphore(0)
    monkeypatch.setattr(handling, "give_free_memory_back", given_back.release)
    body = b'{"label": "' + b"x" * size + b'"}'
    assert sender.post(API_PATH, content=body, headers={"Content-Type": "application/json"}).status_code == 422
    if times:
        assert given_back.acquire(timeout=PATIENCE_S)
    assert not given_back.acquire(blocking=False)


def test_routes_and_methods(sender: httpx.Client) -> None:
    nothing = sender.get("/api/v2")
    assert (nothing.status_code, nothing.json()["code"]) == (404, "not_found")
    slash = sender.get(API_PATH + "/")
    assert slash.status_code == 404
    method = sender.patch(API_PATH)
    assert (method.status_code, method.json()["code"], method.headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD, POST")


def test_a_requests_line_names_the_caller_and_nothing_that_was_sent(
    sender: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "bulkreg")
    began_s = time.monotonic()
    for path in (f"{API_PATH}?label=canary", f"{API_PATH}/{uuid4()}", "/canary", "/healthz"):
        sender.get(path)
    took_s = time.monotonic() - began_s
    of_sender = {"subject": COORDINATOR, "subject_role": "coordinator"}
    eventually(lambda: len(logged(caplog, Action.REQUEST)) == 3)
    lines = logged(caplog, Action.REQUEST)
    expected = [
        {"method": "GET", "route": API_PATH, "status": 422, **of_sender},
        {"method": "GET", "route": f"{API_PATH}/{{batch_id}}", "status": 404, **of_sender},
        {"method": "any", "route": "none", "status": 404, "subject": None, "subject_role": None},
    ]
    assert [{name: line.get(name) for name in expected[0]} for line in lines] == expected
    assert "canary" not in str(lines)
    times_ms = [float(str(line["ms"])) for line in lines]
    assert times_ms[1] > 0  # The others ask no database, and may take so little that they are rounded to 0.
    assert sum(times_ms) < took_s * 1000 + 100


@pytest.mark.parametrize("head", [b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nAuthorization: Bearer canary\x1f\r\n\r\n"])
def test_a_request_that_is_not_http_is_refused_and_not_quoted(
    refusing_api: ApiServer, head: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = httpx.URL(refusing_api.url)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert b"application/problem+json" in answer
    assert b"canary" not in answer
    assert "canary" not in caplog.text + "".join(capfd.readouterr())
    assert [line["status"] for line in logged(caplog, Action.REQUEST_UNREADABLE)] == [400]


@pytest.mark.parametrize("path", [API_PATH, "/nowhere"])
def test_an_unknown_expectation_is_refused_and_not_quoted(
    sender: httpx.Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = sender.get(path, headers={"Expect": "canary"})
    [line] = logged(caplog, Action.REQUEST_UNREADABLE)
    assert (line["status"], "canary" in str(line)) == (417, False)
    problem = ProblemResponse.model_validate_json(answer.content, extra="forbid")
    assert (answer.status_code, answer.headers["Content-Type"]) == (417, "application/problem+json")
    assert problem.code == "expectation_unknown"
    assert "canary" not in answer.text
    assert sender.get(API_PATH, headers={"Expect": "100-Continue"}).status_code == 200


def answered(method: str, route: str, status: int) -> float:
    """How many requests got this status."""
    labels = {"method": method, "route": route, "status": str(status)}
    return REGISTRY.get_sample_value("bulkreg_api_request_seconds_count", labels) or 0.0


def submissions_answered(status: int) -> float:
    """How many submissions got this status."""
    return answered("POST", API_PATH, status)


@pytest.mark.parametrize(
    "body", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"], ids=["sized", "chunked"]
)
def test_a_client_that_disconnects_inside_a_body_is_no_server_error(refusing_api: ApiServer, body: bytes) -> None:
    bad_requests, faults = submissions_answered(400), submissions_answered(500)
    url = httpx.URL(refusing_api.url)
    head = f"POST {API_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {refusing_api.token()}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(head.encode() + body)
    eventually(lambda: submissions_answered(400) > bad_requests or submissions_answered(500) > faults)
    assert (submissions_answered(400), submissions_answered(500)) == (bad_requests + 1, faults)


@pytest.mark.parametrize(
    ("query", "pointer", "code"),
    [
        ("limit=101", "/query/limit", "out_of_range"),
        ("limit=0", "/query/limit", "out_of_range"),
        ("limit=x", "/query/limit", "wrong_type"),
        ("page=0", "/query/page", "out_of_range"),
        ("status=done", "/query/status/0", "unknown_value"),
        ("status=failed&status=done", "/query/status/1", "unknown_value"),
        ("needs_attention=perhaps", "/query/needs_attention", "wrong_type"),
        ("cursor=x", "/query/cursor", "not_a_cursor"),
        ("cursor=%C3%A6", "/query/cursor", "not_a_cursor"),
        ("submitted_from=2026-03-25", "/query/submitted_from", "not_a_time"),
        ("submitted_from=1774432800", "/query/submitted_from", "not_a_time"),
        ("submitted_to=2026-03-25T10:00:00", "/query/submitted_to", "not_a_time"),
        ("submitted_to=0001-01-01T00:00:00%2B01:00", "/query/submitted_to", "not_a_time"),
        ("q=%00", "/query/q", "bad_characters"),
        ("colour=red", "/query/colour", "unknown_field"),
        ("page=1&page=2", "/query/page", "repeated"),
        ("a/b=1&a/b=2", "/query/a~1b", "repeated"),
    ],
)
def test_mistakes_in_the_query(sender: httpx.Client, query: str, pointer: str, code: str) -> None:
    answer = sender.get(f"{API_PATH}?{query}")
    assert answer.status_code == 422
    assert [(error["pointer"], error["code"]) for error in answer.json()["errors"]] == [(pointer, code)]


@pytest.mark.parametrize("key", ["", "x" * 256, "æ"])
def test_an_invalid_idempotency_key_is_refused(sender: httpx.Client, key: str) -> None:
    item = {"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
    answer = sender.post(API_PATH, json={"items": [item]}, headers=[(b"Idempotency-Key", key.encode())])
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/headers/Idempotency-Key")


def refused_so_far(code: str) -> float:
    return REGISTRY.get_sample_value("bulkreg_api_refused_total", {"why": code}) or 0


def test_too_many_requests(settings: Settings, pipeline: Pipeline) -> None:
    before = refused_so_far("too_many_requests")
    limited = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "api_requests_per_minute": {"coordinator": 2}})
    with running_api(limited) as server, server.client() as client, server.client(Role.ADMIN) as admin:
        answers = [client.get(API_PATH) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (answers[2].headers["Content-Type"], answers[2].json()["code"]) == (
            "application/problem+json",
            "too_many_requests",
        )
        # What is left of the minute.
        assert 1 <= int(answers[2].headers["Retry-After"]) <= 30
        assert refused_so_far("too_many_requests") - before == 1
        assert admin.get(API_PATH).status_code == 200


def test_a_preview_is_refused_with_an_external_service(settings: Settings, pipeline: Pipeline) -> None:
    item = {"mentor_id": "mentor-1", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
    configured = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})
    with running_api(configured) as server, server.client() as client:
        planned = {"items": [item], "plan": client.post(f"{API_PATH}/preview", json={"items": [item]}).json()["plan"]}
    external = configured.model_copy(update={"registration_url": "http://127.0.0.1:9"})
    with running_api(external) as server, server.client() as client:
        for path, body in ((f"{API_PATH}/preview", {"items": [item]}), (API_PATH, planned)):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (501, "preview_unavailable")
        assert client.post(API_PATH, json={"items": [item]}).status_code == 202


def test_too_many_items(settings: Settings, api: ApiServer) -> None:
    few = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), "max_items": 2})
    with running_api(few) as server, server.client() as client:
        answer = client.post(API_PATH, json={"items": [{}, {}, {}]})
    assert ("/items", "too_many_items") in {(error["pointer"], error["code"]) for error in answer.json()["errors"]}


@contextlib.contextmanager
def closed_database(settings: Settings) -> Iterator[None]:
    """Closes every connection and accepts no new ones. A client can't tell that from a restart of PostgreSQL."""
    name = settings.owner_url.database
    server = create_engine(settings.owner_url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'))
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), {"name": name})
        yield
        connection.execute(text(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'))
    server.dispose()


def test_an_unavailable_database_is_reported_until_it_is_back(settings: Settings, coordinator: httpx.Client) -> None:
    assert coordinator.get("/readyz").status_code == 200
    with closed_database(settings):
        answer = coordinator.get(API_PATH)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        ready = coordinator.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["database"]["ok"]) == (503, False)
        assert coordinator.get("/healthz").status_code == 200
    assert coordinator.get(API_PATH).status_code == 200
    assert coordinator.get("/readyz").json() == {"status": "ok", "checks": {"database": {"ok": True}}}
    assert coordinator.get("/healthz").json() == {"status": "ok", "checks": {}}


def test_a_full_queue_is_reported_at_once(settings: Settings, pipeline: Pipeline, owner: Engine) -> None:
    small = {"jwt_hs256_key": SecretStr(KEY), "api_max_waiting_requests": 1}
    batch_id = pipeline.submit(mentors(1))
    with running_api(settings.model_copy(update=small)) as server, server.client() as client:
        with owner.begin() as connection, ThreadPoolExecutor(1) as thread:
            connection.execute(text("LOCK TABLE orchestrator.batch"))
            waiting = thread.submit(client.get, API_PATH)
            eventually(lambda: _waits_for_a_lock(owner))
            for refused in (API_PATH, f"{API_PATH}/{batch_id}/events"):
                answer = client.get(refused)
                assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
                assert int(answer.headers["Retry-After"]) >= 1
            connection.rollback()
            assert waiting.result().status_code == 200
        assert client.get(API_PATH).status_code == 200


def _waits_for_a_lock(owner: Engine) -> bool:
    with owner.connect() as connection:
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return bool(connection.execute(text(blocked)).scalar_one())


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token_and_has_its_shape(refusing_api: ApiServer, path: str) -> None:
    before = answered("GET", path, 200)
    answer = httpx.get(refusing_api.url + path, timeout=PATIENCE_S, verify=NO_TLS)
    HealthResponse.model_validate_json(answer.content, extra="forbid")
    assert answer.status_code == 200
    eventually(lambda: answered("GET", path, 200) == before + 1)


def test_the_api_does_not_start_without_authentication_beyond_loopback(settings: Settings) -> None:
    with pytest.raises(UnsafeStartError, match="BULKREG_JWT"):
        create_app(settings.model_copy(update={"api_host": "0.0.0.0"}))


def test_the_api_does_not_start_where_anybody_could_sign_plans(settings: Settings) -> None:
    without = settings.model_copy(update={"api_database_url": SecretStr("postgresql://bulkreg_api@127.0.0.1/bulkreg")})
    with pytest.raises(UnsafeStartError, match="set BULKREG_PLAN_SIGNING_KEY to 32"):
        create_app(without)
    create_app(without.model_copy(update={"plan_signing_key": SecretStr(KEY)}))


def test_authentication_may_be_left_out_on_loopback(settings: Settings) -> None:
    with running_api(settings) as server:
        answer = httpx.get(server.url + API_PATH, headers={"X-Organization-Id": "org-any"}, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["data"]) == (200, [])


def test_slow_senders_are_disconnected(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_body, "_MAX_SECONDS_FOR_BODY", 0.2)
    monkeypatch.setattr(app, "_KEEPALIVE_TIMEOUT_S", 0.5)
    head = f"POST {API_PATH} HTTP/1.1\r\nHost: x\r\n".encode()
    with running_api(settings) as server:
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port or 0), timeout=PATIENCE_S) as in_the_headers:
            in_the_headers.sendall(head)
            assert in_the_headers.recv(65536) == b""
        with socket.create_connection((url.host, url.port or 0), timeout=PATIENCE_S) as in_the_body:
            in_the_body.sendall(head + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
            answer = in_the_body.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nConnection: close\r\n" in answer


def test_every_code_that_the_domain_raises_is_declared() -> None:
    raised = set()
    for file in Path("orchestrator").rglob("*.py"):
        raised |= set(re.findall(r'(?:Forbidden|Conflict|Precondition)Error\(\s*"(\w+)"', file.read_text()))
        raised |= set(re.findall(r'InvalidRequestError\([^"]*code="(\w+)"', file.read_text()))
    assert len(raised) >= 8
    assert raised <= PROBLEMS.keys()


def test_a_submission_beyond_the_backlog_limit_is_refused_until_items_are_done(settings: Settings, pipeline: Pipeline) -> None:
    small = {"jwt_hs256_key": SecretStr(KEY), "max_backlog_items": 10, "max_items": 10}
    day = "2026-03-2{}"

    def submission(number: int) -> dict[str, object]:
        activity = {"activity_type": "visit", "activity_date": day.format(number), "duration_minutes": 60}
        return {"mentor_ids": [f"mentor-{mentor}" for mentor in range(1, 7)], "activity": activity}

    with running_api(settings.model_copy(update=small)) as server, server.client() as client:
        key = {"Idempotency-Key": "first"}
        accepted = client.post(API_PATH, json=submission(1), headers=key)
        assert accepted.status_code == 202
        refused = client.post(API_PATH, json=submission(2))
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert int(refused.headers["Retry-After"]) == 30, "the waiting time must be the longest while nothing is done"
        # A repeated submission adds nothing to the backlog, so it is accepted. A new one is refused, whatever its key.
        repeated = client.post(API_PATH, json=submission(1), headers=key)
        assert (repeated.status_code, repeated.headers["Idempotent-Replayed"]) == (202, "true")
        assert repeated.json()["batch_id"] == accepted.json()["batch_id"]
        for other in (key, {"Idempotency-Key": "second"}):
            assert client.post(API_PATH, json=submission(2), headers=other).status_code == 503
        # Other requests are served: reads, retries and cancellations.
        assert client.get(accepted.headers["Location"]).json()["pending"] == 6
        pipeline.drain()
        eventually(lambda: client.post(API_PATH, json=submission(2)).status_code == 202)
        pipeline.drain()
        assert client.get(API_PATH, params={"status": "completed"}).json()["pagination"]["total"] == 2
