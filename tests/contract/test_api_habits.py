"""What clients, proxies and libraries do, and the contract's readers may not expect: HEAD, changed tags, byte order marks, unencoded signs."""

import socket
from uuid import uuid4

import httpx
import pytest

from orchestrator.batches.model import Role
from schemas.api.problems import ProblemResponse
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH, FORGETTINGS_PATH
from tests.support.api_server import ApiServer
from tests.support.pipeline import Pipeline, mentors
from tests.support.waiting import PATIENCE_S

VARYING = {"date", "content-length", "transfer-encoding"}


def head_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in VARYING}


@pytest.fixture
def batch(pipeline: Pipeline) -> str:
    """The address of a batch that has finished."""
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    return f"{API_PATH}/{batch_id}"


# --- HEAD -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["", "/results.csv", "/results.ndjson?notes=true", "/events", "?items=failed", "?items=nonsense", "/results.csv?x=1"],
)
def test_head_returns_what_get_does_without_the_body(coordinator: httpx.Client, batch: str, path: str) -> None:
    url = batch + path
    head = coordinator.head(url)
    with coordinator.stream("GET", url) as got:
        assert (head.status_code, head_of(head)) == (got.status_code, head_of(got))
    assert head.content == b""


@pytest.mark.parametrize("path", [API_PATH, f"{API_PATH}?limit=101", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"])
def test_head_of_routes_that_are_not_about_one_batch(coordinator: httpx.Client, path: str) -> None:
    head, got = coordinator.head(path), coordinator.get(path)
    assert (head.status_code, head_of(head), head.content) == (got.status_code, head_of(got), b"")
    if path != "/metrics":
        assert head.headers["Content-Length"] == got.headers["Content-Length"]


def test_head_of_an_item_and_of_an_unknown_one(coordinator: httpx.Client, batch: str) -> None:
    item = coordinator.get(batch).json()["items"][0]["item_id"]
    assert coordinator.head(f"{batch}/items/{item}").status_code == 200
    assert coordinator.head(f"{batch}/items/{uuid4()}").status_code == 404
    assert coordinator.head("/nowhere").status_code == 404
    assert coordinator.head(f"{batch}/retry").status_code == 405


def test_head_requires_a_token(api: ApiServer, batch: str) -> None:
    with httpx.Client(base_url=api.url, timeout=PATIENCE_S) as stranger:
        assert stranger.head(batch).status_code == stranger.head(f"{batch}/events").status_code == 401


def test_head_never_waits(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    url = f"{API_PATH}/{pipeline.submit(mentors(1))}"
    tag = coordinator.get(url).headers["ETag"]
    # A GET of these would take long: the client gives up after 30 seconds.
    assert coordinator.head(url, params={"wait": "60s"}, headers={"If-None-Match": tag}).status_code in (200, 304)
    assert coordinator.head(f"{url}/events").status_code == 200


def test_allowed_methods_are_listed(coordinator: httpx.Client, batch: str) -> None:
    for method in ("PATCH", "OPTIONS", "TRACE"):
        answer = coordinator.request(method, batch)
        assert (answer.status_code, answer.headers["Allow"]) == (405, "DELETE, GET, HEAD, PUT")


def test_a_slash_at_the_end_is_explained(coordinator: httpx.Client, batch: str) -> None:
    for address in (API_PATH + "/", batch + "/", batch + "/retry/"):
        answer = coordinator.get(address)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "slash" in answer.json()["detail"]
    assert "slash" not in coordinator.get("/nowhere").json()["detail"]


# --- Caches -------------------------------------------------------------------------------------------------------------------------


def test_no_cache_keeps_what_says_something_about_a_person(admin: httpx.Client, batch: str) -> None:
    activity_id = admin.get(batch).json()["items"][0]["activity_id"]
    values = {"name": "Mondays", "coordinator_id": "coord-1", "mentor_ids": ["mentor-1"]}
    saved = admin.post(f"{API_ROOT}/templates", json=values | {"activity_type": "visit", "duration_minutes": 60})
    assert saved.status_code == 201, saved.text
    asked = admin.post(FORGETTINGS_PATH, json={"mentor_id": "mentor-2"})
    for path in (
        ACTIVITIES_PATH,
        f"{ACTIVITIES_PATH}/{activity_id}",
        f"{ACTIVITIES_PATH}/summary",
        f"{ACTIVITIES_PATH}.csv",
        f"{ACTIVITIES_PATH}.ndjson",
        f"{API_ROOT}/templates",
        saved.headers["Location"],
        asked.headers["Location"],
        CLOSED_PERIOD_PATH,
        f"{batch}?names=true",
    ):
        answer = admin.get(path)
        assert (path, answer.status_code, answer.headers.get("Cache-Control")) == (path, 200, "no-store")
        if "ETag" in answer.headers and "names" not in path:
            unchanged = admin.get(path, headers={"If-None-Match": answer.headers["ETag"]})
            told = (unchanged.status_code, unchanged.headers.get("Cache-Control"), unchanged.headers.get("ETag"))
            assert (path, *told) == (path, 304, "no-store", answer.headers["ETag"])


# --- Tags -------------------------------------------------------------------------------------------------------------------------

SPELLINGS = {
    "as it was": "{weak}",
    "compressed by Apache": '{opaque}-gzip"',
    "compressed by Apache, weak": '{open}-gzip"',
    "with another encoding": '{open}-br"',
    "compressed by Jetty": '{open}--gzip"',
    "with a semicolon": '{open};gzip"',
    "strong": '{opaque}"',
    "in a list": '"other", {weak}',
    "in a list without blanks": 'W/"a",{weak},"b"',
    "in a list with commas in a tag": '"a,b", {weak}',
    "any": "*",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_changed_spelling_of_a_tag_is_recognized(coordinator: httpx.Client, batch: str, spelling: str) -> None:
    weak = coordinator.get(batch).headers["ETag"]
    given = spelling.format(weak=weak, open=weak[:-1], opaque=weak.removeprefix("W/")[:-1])
    assert coordinator.get(batch, headers={"If-None-Match": given}).status_code == 304
    assert coordinator.put(batch, json={"label": "a"}, headers={"If-Match": given}).status_code == 200


@pytest.mark.parametrize("spelling", ['{open}0"', '"other"', 'W/"1.1.00000000"', "{open}-gzip", '"-gzip"', "nonsense", '"*"'])
def test_another_tag_is_not_accepted(coordinator: httpx.Client, batch: str, spelling: str) -> None:
    weak = coordinator.get(batch).headers["ETag"]
    given = spelling.format(open=weak[:-1])
    assert coordinator.get(batch, headers={"If-None-Match": given}).status_code == 200
    if "1.1." not in given:
        for label in ("a", coordinator.get(batch).json()["label"]):  # also when the call would change nothing
            assert coordinator.put(batch, json={"label": label}, headers={"If-Match": given}).status_code == 412


def test_tags_in_several_headers_are_combined(coordinator: httpx.Client, batch: str) -> None:
    weak = coordinator.get(batch).headers["ETag"]
    several = [("If-None-Match", '"other"'), ("If-None-Match", weak)]
    assert coordinator.get(batch, headers=several).status_code == 304
    assert coordinator.put(batch, json={"label": "a"}, headers=[("If-Match", '"other"'), ("If-Match", weak)]).status_code == 200


def test_an_outdated_tag_is_refused_in_every_spelling(coordinator: httpx.Client, batch: str) -> None:
    weak = coordinator.get(batch).headers["ETag"]
    coordinator.put(batch, json={"label": "other"})
    assert coordinator.put(batch, json={"label": "a"}, headers={"If-Match": f'{weak[:-1]}-gzip"'}).status_code == 412


# --- Bodies and queries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8-sig", "byte order mark"), ("utf-16", "UTF-16"), ("utf-16-le", "UTF-16"), ("utf-32", "UTF-16 or UTF-32")],
)
def test_a_body_in_another_encoding_is_refused_with_an_explanation(sender: httpx.Client, encoding: str, said: str) -> None:
    for path in (API_PATH, f"{API_PATH}/preview", f"{API_PATH}/{uuid4()}/retry"):
        answer = sender.post(path, content='{"items": []}'.encode(encoding), headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_json")
        assert said in answer.json()["detail"]


@pytest.mark.parametrize("time", ["2026-03-25T10:00:00+02:00", "2026-03-25T10:00+02:00", "2026-03-25T10:00:00.5+0200"])
def test_a_plus_sign_in_a_query_is_explained(sender: httpx.Client, time: str) -> None:
    answer = sender.get(f"{API_PATH}?submitted_from={time}")
    [error] = answer.json()["errors"]
    assert (answer.status_code, error["pointer"], error["code"]) == (422, "/query/submitted_from", "not_a_time")
    assert "%2B" in error["detail"]
    assert sender.get(API_PATH, params={"submitted_from": "2026-03-25T10:00:00+02:00"}).status_code == 200


# --- Headers ----------------------------------------------------------------------------------------------------------------------


def raw(api: ApiServer, head: bytes) -> tuple[int, ProblemResponse]:
    url = httpx.URL(api.url)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        connection.sendall(head)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    said, _, body = answer.partition(b"\r\n\r\n")
    return int(said.split()[1]), ProblemResponse.model_validate_json(body, extra="forbid")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (
            b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % (API_PATH.encode(), b"a" * 8_192),
            431,
            "headers_too_large",
        ),
        (
            b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n\r\n" % (API_PATH.encode(), b"a" * 60_000),
            431,
            "headers_too_large",
        ),
        (b"GET %b HTTP/1.1\r\nHost: x\r\n%b: x\r\n\r\n" % (API_PATH.encode(), b"a" * 9_000), 431, "headers_too_large"),
        (b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (API_PATH.encode(), b"X: x\r\n" * 300), 431, "headers_too_large"),
        (b"GET %b?q=%b HTTP/1.1\r\nHost: x\r\n\r\n" % (API_PATH.encode(), b"a" * 9_000), 414, "address_too_long"),
        (b"GARBAGE\r\n\r\n", 400, "bad_request"),
    ],
    ids=["a token", "a long token", "a name", "many headers", "an address", "no HTTP"],
)
def test_too_large_headers_are_refused_with_an_explanation(refusing_api: ApiServer, head: bytes, status: int, code: str) -> None:
    answered, problem = raw(refusing_api, head)
    assert (answered, problem.status, problem.code) == (status, status, code)
    assert "aaa" not in problem.detail


@pytest.mark.parametrize(("version", "status"), [(b"1.0", 200), (b"1.1", 417)])
def test_expect_works_only_in_http_1_1(refusing_api: ApiServer, version: bytes, status: int) -> None:
    """HTTP/1.0 does not have the header."""
    url = httpx.URL(refusing_api.url)
    with socket.create_connection((url.host, url.port or 0), timeout=15) as connection:
        head = b"GET /healthz HTTP/%b\r\nHost: x\r\nConnection: close\r\nExpect: canary\r\n\r\n"
        connection.sendall(head % version)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert int(answer.split()[1]) == status


def test_the_longest_accepted_token(refusing_api: ApiServer) -> None:
    with refusing_api.client(Role.SERVICE, orgs=tuple(f"organization-{number:03}" for number in range(280))) as client:
        assert 6_500 < len(client.headers["Authorization"]) < 8_150
        assert client.get(API_PATH, headers={"X-Organization-Id": "organization-007"}).status_code == 200
