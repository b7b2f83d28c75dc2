"""One log line for each request except health checks: caller, method, route, status and duration.

Never the path, query or body, which can contain tickets and notes.
"""

import time

from aiohttp import web

from api.endpoints.health import HEALTH_PATHS
from api.handling import IDENTITY
from api.http.problems import Handler
from orchestrator.process.actions import Action, log_action
from orchestrator.process.metrics import API_SECONDS


@web.middleware
async def log_access(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts and logs the request after its response."""
    began = time.perf_counter()
    response = await handler(request)
    took = time.perf_counter() - began
    resource = request.match_info.route.resource
    route = "none" if resource is None else resource.canonical
    identity = request.get(IDENTITY)
    # The client chooses the method. Methods without a route share one label, so that clients can't create labels.
    method = request.method if resource is not None else "any"
    API_SECONDS.labels(method, route, str(response.status)).observe(took)
    if route in HEALTH_PATHS:
        return response
    log_action(
        Action.REQUEST,
        role="api",
        method=method,
        route=route,
        status=response.status,
        ms=round(took * 1000, 1),
        subject=None if identity is None else identity.subject,
        subject_role=None if identity is None else identity.role.value,
    )
    return response
