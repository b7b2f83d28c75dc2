"""A registration service (docs/external-registration.md) that misbehaves on demand: a real HTTP server in a thread of its own."""

import asyncio
import contextlib
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any
from uuid import uuid4

from aiohttp import web

from orchestrator.process.settings import Settings
from tests.support.waiting import PATIENCE_S


class Fault(Enum):
    """What the service does to a POST instead of responding at once."""

    SLOW = auto()
    HANGS = auto()
    HANGS_AFTER_THE_WORK = auto()
    DIES = auto()
    DIES_AFTER_THE_WORK = auto()
    ERROR = auto()
    ERROR_AFTER_THE_WORK = auto()
    BUSY = auto()
    STILL_AT_IT = auto()
    ANSWERS_TWICE = auto()
    ANSWERS_ANOTHER = auto()
    UNREADABLE = auto()
    REFUSES = auto()


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    key: str
    body: dict[str, Any]
    headers: dict[str, str]


class FaultyService:
    """Keeps its promises about keys whatever it does to requests: it does the work of a key once, and keeps its response."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, dict[str, Any]] = {}
        """By key, the response that it keeps."""
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        """By mentor, the faults of the next requests; by activity, those of the next requests to revoke it."""
        self.revoked: Counter[str] = Counter()
        """How often each activity was revoked."""
        self.refusals: dict[str, dict[str, Any]] = {}
        """By mentor, the refusal that REFUSES returns."""
        self.always: Fault | None = None
        """What happens to every POST."""
        self.may_go_on = threading.Event()
        """Releases requests that HANG: the service then does the work and responds, if the client still waits."""
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner: web.AppRunner | None = None

    # --- What a test looks at -----------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def activities(self) -> Counter[str]:
        """How many activities each item has."""
        return Counter(answer["item_id"] for answer in self.answers.values() if answer["status"] == "registered")

    def posts(self, mentor: str) -> list[Asked]:
        return [asked for asked in list(self.asked) if asked.method == "POST" and asked.body["attributed_to"] == mentor]

    # --- Up and down --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listens, after a stop on the same port."""
        self._do(self._start())

    def stop(self) -> None:
        """Closes the port."""
        self._do(self._stop())

    def close(self) -> None:
        self.may_go_on.set()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_S)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/registrations", self._post)
        app.router.add_post("/v1/registrations/revoke", self._revoke)
        app.router.add_get("/v1/registrations/{key}", self._get)
        app.router.add_delete("/v1/registrations/{key}", self._delete)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- The service ----------------------------------------------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.StreamResponse:
        key, body = request.headers["Idempotency-Key"], await request.json()
        self.asked.append(Asked("POST", key, body, dict(request.headers)))
        refusal = self.refusals.get(body["attributed_to"], {"code": "mentor_not_found", "field": "mentor_id"})
        refused = {"key": key, "item_id": body["item_id"], "status": "refused", **refusal}
        return await self._handled(request, key, body, body["attributed_to"], refused, self._work)

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        key, body = request.headers["Idempotency-Key"], await request.json()
        self.asked.append(Asked("REVOKE", key, body, dict(request.headers)))
        refused = {"key": key, "status": "refused", "code": "period_closed"}
        return await self._handled(request, key, body, body["activity_id"], refused, self._take_back)

    def _take_back(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Revokes once for each key."""
        if key not in self.answers:
            self.revoked[body["activity_id"]] += 1
            self.answers[key] = {"key": key, "status": "revoked", "body": body}
        assert self.answers[key].get("body", body) == body, "the same key came with another body"
        return self.answers[key]

    async def _handled(
        self,
        request: web.Request,
        key: str,
        body: dict[str, Any],
        whose: str,
        refused: dict[str, Any],
        work: Callable[[str, dict[str, Any]], dict[str, Any]],
    ) -> web.StreamResponse:
        planned = self.faults[whose]
        fault = planned.popleft() if planned else self.always
        if fault in _BEFORE_THE_WORK:
            await _BEFORE_THE_WORK[fault](self, request)
        if fault is Fault.ERROR:
            return web.Response(status=500, text=f"failed on {body.get('notes') or body.get('reason')}")
        if fault is Fault.BUSY:
            return web.Response(status=429, headers={"Retry-After": "1"})
        if fault is Fault.STILL_AT_IT:
            return web.json_response({"key": key, "status": "processing"})
        if fault is Fault.UNREADABLE:
            return web.Response(status=201, text="<html>")
        if fault is Fault.REFUSES and key not in self.answers:
            self.answers[key] = refused
        answer = work(key, body)
        if fault is Fault.HANGS_AFTER_THE_WORK:
            await self._hang(request)
        if fault is Fault.DIES_AFTER_THE_WORK:
            await self._die(request)
        if fault is Fault.ERROR_AFTER_THE_WORK:
            return web.Response(status=500)
        if fault is Fault.ANSWERS_ANOTHER:
            return web.json_response({**answer, "key": "another:0", "activity_id": str(uuid4())})
        response = web.json_response(answer, status=_STATUS[answer["status"]])
        if fault is Fault.ANSWERS_TWICE:
            await response.prepare(request)
            await response.write_eof()
            assert request.transport is not None
            body_again = b'{"key": "another:0", "status": "registered", "activity_id": "01990000-0000-7000-8000-000000000000"}'
            head = f"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {len(body_again)}\r\n\r\n"
            request.transport.write(head.encode() + body_again)
        return response

    def _work(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """Does the work once for each key."""
        if key not in self.answers:
            self.answers[key] = {
                "key": key,
                "item_id": body["item_id"],
                "status": "registered",
                "activity_id": str(uuid4()),
                "body": body,
            }
        assert self.answers[key].get("body", body) == body, "the same key came with another body"
        return self.answers[key]

    async def _get(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if key != "probe":
            self.asked.append(Asked("GET", key, {}, dict(request.headers)))
        return web.json_response(self.answers[key]) if key in self.answers else web.Response(status=404)

    async def _delete(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        self.asked.append(Asked("DELETE", key, {}, dict(request.headers)))
        return web.json_response(self.answers.setdefault(key, {"key": key, "item_id": "", "status": "withdrawn"}))

    async def _slow(self, _request: web.Request) -> None:
        await asyncio.sleep(0.2)

    async def _hang(self, _request: web.Request) -> None:
        await asyncio.to_thread(self.may_go_on.wait)

    async def _die(self, request: web.Request) -> None:
        assert request.transport is not None
        request.transport.abort()


_STATUS = {"registered": 201, "refused": 422, "withdrawn": 410, "revoked": 200}


async def _dies(service: FaultyService, request: web.Request) -> None:
    await service._die(request)
    raise web.HTTPInternalServerError  # the client has left, and the work is not done


_BEFORE_THE_WORK: dict[Fault, Callable[[FaultyService, web.Request], Awaitable[None]]] = {
    Fault.SLOW: FaultyService._slow,
    Fault.HANGS: FaultyService._hang,
    Fault.DIES: _dies,
}


@contextlib.contextmanager
def faulty_service(*, up: bool = True) -> Iterator[FaultyService]:
    """Yields a service with a port of its own. Not `up`: it has the port and does not listen."""
    service = FaultyService()
    try:
        service.start()
        if not up:
            service.stop()
        yield service
    finally:
        service.close()


def impatient(settings: Settings, service: FaultyService, *, timeout_ms: int = 1_500, deadline_ms: int = 2_000) -> Settings:
    """Settings that ask the service, patient enough that a busy machine is not mistaken for a hanging service."""
    return settings.model_copy(
        update={
            "registration_url": service.url,
            "registration_request_timeout_ms": timeout_ms,
            "registration_deadline_ms": deadline_ms,
            "registration_breaker_max_pause_ms": 100,
        }
    )
