"""How an aiohttp request gets to its endpoint and back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from aiohttp import web

from api import openapi, reference
from api.access.authentication import Authenticator
from api.access.identity import Identity
from api.access.rate_limits import RateLimits
from api.console.sessions import UNATTENDED_HEADER, ConsoleSessions, has_session_cookie
from api.endpoints.calls import Call, Service
from api.endpoints.health import DatabaseCheck, HealthChecks, add_health_routes
from api.http.json_body import read_body
from api.http.problems import Handler, ProblemError
from api.route import Endpoint, Route
from api.routes import ROUTES
from api.vendored.serving import add_vendored_files
from orchestrator.batches.model import Role
from orchestrator.process.memory import give_free_memory_back

IDENTITY = web.RequestKey("identity", Identity)

# A few hundred items.
_LARGE_BODY_BYTES = 64 * 1024

# By then the response is written. Freeing takes some milliseconds, so it is not done after each of a flood of large bodies.
_RELEASED_AFTER_S = 0.05


def add_routes(
    app: web.Application,
    service: Service,
    authenticator: Authenticator,
    health: HealthChecks,
    sessions: ConsoleSessions | None = None,
) -> None:
    """Adds every route of the API. `sessions`: those of the console, if there is one."""
    limits = RateLimits({Role(role): limit for role, limit in service.settings.api_requests_per_minute.items()})
    for route in ROUTES:
        handler = _handler(route, service, authenticator, limits, sessions)
        app.router.add_route(route.method, route.path, handler)
        if route.method == "GET":
            # Same headers; aiohttp leaves out the body, and conversations don't start one.
            app.router.add_route("HEAD", route.path, handler)
    app.router.add_get("/openapi.json", _constant(lambda: _reference().document, "application/json"))
    app.router.add_get("/docs", _constant(lambda: _reference().page, "text/html", reference.HEADERS))
    app.router.add_get(reference.START, _constant(lambda: reference.START_SCRIPT, "text/javascript"))
    add_vendored_files(app)
    add_health_routes(app, DatabaseCheck(service.settings.api_url, service.settings), health)


def _handler(
    route: Route, service: Service, authenticator: Authenticator, limits: RateLimits, sessions: ConsoleSessions | None
) -> Handler:
    """The aiohttp handler of a route: authenticates, reads the body, calls the endpoint."""

    async def handle(request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket") if route.takes_ticket else None
        if ticket is not None:
            identity = service.tickets.identity(ticket, request.match_info["batch_id"])
        elif sessions is not None and "Authorization" not in request.headers and has_session_cookie(request):
            # A page that only follows a batch is not in use.
            extends = not route.takes_ticket and UNATTENDED_HEADER not in request.headers
            identity = await sessions.identity(request, by_link=route.is_download, extends=extends)
        else:
            # Two different tokens are no token.
            given = set(request.headers.getall("Authorization", ()))
            identity = await authenticator.authenticate(given.pop() if len(given) == 1 else None)
        request[IDENTITY] = identity
        limits.check(identity)
        if route.changes and identity.role is Role.AUDITOR:
            raise ProblemError("role_may_not", "An auditor can read but not change anything. Use a token with another role.")
        call = Call(
            service=service,
            identity=identity,
            path=dict(request.match_info),
            query=tuple(request.query.items()),
            headers=request.headers,
            body=await read_body(request, route.file_types),
        )
        is_large = len(call.body) > _LARGE_BODY_BYTES
        try:
            if route.conversation is not None:
                return await route.conversation(request, call)
            assert route.endpoint is not None
            return await service.database.run(partial(_answer, route.endpoint, call), changes=route.changes, is_large=is_large)
        finally:
            if is_large:
                # Later, because until the response is written the request or its exception still references the body.
                asyncio.get_running_loop().call_later(_RELEASED_AFTER_S, give_free_memory_back)

    return handle


def _answer(endpoint: Endpoint, call: Call) -> web.Response:
    return endpoint(call).response()


@dataclass(frozen=True)
class _Reference:
    """The bytes of `/openapi.json` and of `/docs`."""

    document: bytes
    page: bytes


@cache
def _reference() -> _Reference:
    """Makes both at the first request for one: this takes longer than the rest of the API's start, and most processes are never asked."""
    document = openapi.document(ROUTES)
    return _Reference(openapi.encoded(document), reference.page(document))


def _constant(body: Callable[[], bytes], content_type: str, headers: dict[str, str] | None = None) -> Handler:
    async def handle(_request: web.Request) -> web.Response:
        # In a thread, because the first call may take as long as many requests.
        made = await asyncio.to_thread(body)
        return web.Response(body=made, content_type=content_type, charset="utf-8", headers=headers)

    return handle
