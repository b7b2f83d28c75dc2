"""The commands' HTTP client, with a server that misbehaves: what is repeated, for how long, and what a person is told."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from cli.remote.api_client import ApiClient, Patience, opened
from cli.remote.target import Target
from cli.terminal.failures import ApiProblemError, BadInputError, UnreachableError
from schemas.paths import API_PATH
from tests.support.waiting import PATIENCE_S

IMPATIENT = Patience(first_answer_s=0.3, outage_s=3.0, shortest_poll_s=0.001, longest_poll_s=0.02)
# A client whose server has responded before, as a user's has.
PATIENT_LATER = replace(IMPATIENT, outage_s=2 * PATIENCE_S)

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = Callable[[ApiClient], Awaitable[Any]]


def problem(status: int, **content: Any) -> web.Response:
    text = json.dumps({"type": "urn:x", "title": "Title", "status": status, "detail": "Detail.", **content})
    return web.Response(status=status, text=text, content_type="application/problem+json")


@asynccontextmanager
async def server(answer: Respond) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        [address] = runner.addresses
        yield f"http://127.0.0.1:{address[1]}"
    finally:
        await runner.cleanup()


def against(answer: Respond, body: Body, patience: Patience | None = None) -> Any:
    """The result of the body, with a client whose server sends these responses."""

    async def run() -> Any:
        async with server(answer) as url, opened(Target(url, "t"), lambda _: None, patience or IMPATIENT) as client:
            return await body(client)

    return asyncio.run(run())


def refused(answer: Respond, body: Body) -> ApiProblemError:
    with pytest.raises(ApiProblemError) as refusal:
        against(answer, body)
    return refusal.value


def test_a_change_is_repeated_under_its_key_until_there_is_a_response() -> None:
    seen: list[tuple[str | None, bytes]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("Idempotency-Key"), await request.read()))
        if len(seen) == 1:
            assert request.transport is not None
            request.transport.abort()  # The client can't know whether it was done.
        if len(seen) == 2:
            return problem(503)
        return web.json_response({"batch_id": "b"}, status=202)

    response = against(answer, lambda client: client.post(API_PATH, None, {"label": "x"}, key="k"), Patience(first_answer_s=60))
    assert response.json() == {"batch_id": "b"}
    assert [key for key, _ in seen] == ["k", "k", "k"]
    assert len({body for _, body in seen}) == 1


def test_a_change_without_a_key_gets_one_and_keeps_it() -> None:
    keys = []

    async def answer(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers.get("Idempotency-Key"))
        return problem(503) if len(keys) % 2 else web.json_response({})

    async def body(client: ApiClient) -> None:
        await client.post("/cancel", None)
        await client.post("/cancel", None)

    against(answer, body, Patience(first_answer_s=60))
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_retry_after_is_respected() -> None:
    asked = []

    async def answer(_request: web.Request) -> web.StreamResponse:
        asked.append(time.monotonic())
        if len(asked) == 1:
            return web.json_response({})
        if len(asked) == 2:
            response = problem(429)
            response.headers["Retry-After"] = "1"
            return response
        return web.json_response({})

    async def body(client: ApiClient) -> None:
        await client.get(API_PATH, None)
        await client.get(API_PATH, None)

    against(answer, body)
    assert asked[2] - asked[1] >= 1.0


def test_an_address_without_a_server_is_given_up_soon() -> None:
    async def run() -> None:
        async with opened(Target("http://127.0.0.1:1", None), lambda _: None, PATIENT_LATER) as client:
            await client.get(API_PATH, None)

    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:1 is unavailable"):
        asyncio.run(run())
    assert time.monotonic() - began < PATIENT_LATER.outage_s / 2


def test_a_server_that_has_responded_once_is_waited_for_longer_and_the_user_is_told() -> None:
    asked: list[float] = []
    remarks: list[str] = []

    async def answer(_request: web.Request) -> web.StreamResponse:
        asked.append(time.monotonic())
        is_away = len(asked) > 1 and time.monotonic() - asked[0] < 4 * IMPATIENT.first_answer_s
        return problem(503) if is_away else web.json_response({"n": len(asked)})

    async def run() -> int:
        async with server(answer) as url, opened(Target(url, "t"), remarks.append, PATIENT_LATER) as client:
            await client.get(API_PATH, None)
            return int((await client.get(API_PATH, None)).json()["n"])

    assert asyncio.run(run()) > 2
    assert len(remarks) == 1


@pytest.mark.parametrize("url", ["ftp://x", "127.0.0.1:8080", "http://", "http://x:y"])
def test_an_invalid_address_is_bad_input(url: str) -> None:
    async def run() -> None:
        async with opened(Target(url, None), lambda _: None):
            pass

    with pytest.raises(BadInputError):
        asyncio.run(run())


def test_headers_arrive_as_they_were_given() -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.headers.get("X-Organization-Id"), request.headers.get("Idempotency-Key")))
        return web.json_response({})

    async def body(client: ApiClient) -> None:
        await client.post(API_PATH, "Trøndelag", key="æ")
        async with client.download(API_PATH, "Trøndelag") as parts:
            assert [part async for part in parts] == [b"{}"]

    against(answer, body)
    assert seen == [("Trøndelag", "æ"), ("Trøndelag", None)]


@pytest.mark.parametrize("key", ["a\nb", "a\x7f", "\udce6", " a", "a "])
def test_a_value_that_no_header_can_hold_is_bad_input_and_not_sent(key: str) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        raise AssertionError("it was sent")

    with pytest.raises(BadInputError, match="Idempotency-Key"):
        against(answer, lambda client: client.post(API_PATH, None, key=key))


def test_a_refusal_names_all_mistakes() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        errors = [{"pointer": "/items/3/mentor_id", "code": "empty", "detail": "must not be empty"}]
        differences = [{"position": 1, "mentor_id": "m", "planned": "success", "now": "out_of_scope"}]
        return problem(422, code="organization_required", errors=errors, differences=differences)

    refusal = refused(answer, lambda client: client.post(API_PATH, None, {}))
    assert str(refusal) == "Detail. Here: with --org."
    assert refusal.lines == ("/items/3/mentor_id: must not be empty", "/items/1: planned success, now out_of_scope")
    assert (refusal.status, refusal.exit_code) == (422, 2)


@pytest.mark.parametrize(("status", "body"), [(500, "<html>"), (404, "nothing here")])
def test_another_server_is_not_mistaken_for_the_product(status: int, body: str) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    with pytest.raises(UnreachableError, match="is not this product's API"):
        against(answer, lambda client: client.get(API_PATH, None))


@pytest.mark.parametrize(
    ("status", "content_type", "body"),
    [
        (200, "application/json", '{"other": 1}'),
        (200, "application/json", '{"status": "processing", "items": [{}]}'),
        (200, "application/json", "[]"),
        (200, "text/html", "<html>"),
        (200, "application/json", ""),
        (404, "application/problem+json", '{"type": "about:blank"}'),
        (404, "application/problem+json", "<html>"),
    ],
)
def test_a_response_without_what_the_api_always_sends_is_of_another_server(status: int, content_type: str, body: str) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body, content_type=content_type)

    async def read(client: ApiClient) -> None:
        batch = (await client.get(API_PATH, None)).json()
        print(batch["status"], batch["items"][0]["mentor_id"])

    with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:\d+/.* is not this product's API") as refused:
        against(answer, read)
    assert refused.value.exit_code == 3


def test_what_another_server_has_shown_is_not_changed() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    async def change(client: ApiClient) -> None:
        await client.put(API_PATH, None, {}, seen=await client.get(API_PATH, None))

    with pytest.raises(UnreachableError, match="has no ETag"):
        against(answer, change)


def test_a_message_about_the_address_does_not_show_its_password() -> None:
    remarks: list[str] = []

    async def call() -> None:
        patience = Patience(first_answer_s=0.5)
        async with opened(Target("http://svc:hemmelig@127.0.0.1:1", "token"), remarks.append, patience) as client:
            await client.get(API_PATH, None)

    with pytest.raises(UnreachableError, match="is unavailable") as refused:
        asyncio.run(call())
    assert not [text for text in (str(refused.value), *remarks) if "hemmelig" in text]


def test_a_deletion_whose_response_was_lost_is_done() -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.method)
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=204)

    against(answer, lambda client: client.delete(API_PATH, None))
    assert asked == ["DELETE", "DELETE"]


def test_a_deletion_of_an_unknown_batch_is_refused() -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return problem(404)

    assert refused(answer, lambda client: client.delete(API_PATH, None)).status == 404


def batch(status: str, pending: int) -> dict[str, Any]:
    return {"batch_id": "b", "status": status, "pending": pending}


def test_the_changes_of_a_batch_are_followed() -> None:
    states = [batch("processing", 2), batch("processing", 1), batch("partial", 0)]
    tags: list[str | None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        tag = request.headers.get("If-None-Match")
        tags.append(tag)
        known = -1 if tag is None else int(tag)
        # A server that never waits: it returns 304 twice before each change.
        if tag is not None and tags.count(tag) < 3:
            return web.Response(status=304, headers={"ETag": tag})
        return web.json_response(states[known + 1], headers={"ETag": str(known + 1)})

    seen: list[Any] = []
    last = against(answer, lambda client: client.finished("b", "org-01", seen.append))
    assert seen == states
    assert last == states[-1]
    assert tags == [None, "0", "0", "0", "1", "1", "1"]


def test_a_batch_is_polled_ever_more_rarely() -> None:
    asked: list[float] = []

    async def answer(_request: web.Request) -> web.StreamResponse:
        asked.append(time.monotonic())
        return web.json_response(batch("completed" if time.monotonic() - asked[0] > 0.5 else "processing", 0))

    against(answer, lambda client: client.finished("b", None, lambda _: None))
    assert len(asked) < 0.5 / IMPATIENT.longest_poll_s + 20


def test_a_home_without_a_named_organization_means_its_first() -> None:
    target = Target("http://x", "service", "admin")
    assert target.headers(None) == {"Authorization": "Bearer admin"}
    assert target.headers("org-02") == {"Authorization": "Bearer service", "X-Organization-Id": "org-02"}
    assert target.headers(None, is_named_in_body=True) == {"Authorization": "Bearer service"}
    assert Target("http://x", None).headers(None) == {}
