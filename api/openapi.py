"""The OpenAPI 3.1 document, generated from the table of routes, the models and the table of problems."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel

from api.access.identity import ORGANIZATION_HEADER
from api.console.sessions import SESSION_COOKIE
from api.http.problems import CONTENT_TYPE, PROBLEMS, ProblemError, body
from api.route import Route
from api.routes import ROUTES
from schemas import examples
from schemas.api.batches import BatchEvent
from schemas.api.health import HealthResponse
from schemas.api.problems import ProblemResponse
from schemas.paths import API_ROOT
from schemas.published import published_name, published_schemas

Json = dict[str, Any]

_VERSION = "1"
_SCHEMAS = "#/components/schemas/"

# Problems that any route with a token can return, and those of any request with a body.
_EVERYWHERE = (
    "no_token",
    "bad_token",
    "session_ended",
    "not_from_console",
    "not_your_organization",
    "organization_required",
    "invalid_request",
    "too_many_requests",
    "internal_error",
    "database_unavailable",
    "keys_unavailable",
    "overloaded",
    "expectation_unknown",
    "headers_too_large",
    "address_too_long",
)
_WITH_A_BODY = ("bad_json", "body_too_slow", "body_too_large", "not_json", "compressed")

_TAG = {"type": "string", "pattern": '^(\\*|(W/)?"[^"]*"(, *(W/)?"[^"]*")*)$'}
_REQUEST_HEADERS: Mapping[str, Json] = {
    "Idempotency-Key": {
        "description": "Repeating a request with the same key returns the first response again, for at least 7 days.",
        "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
    },
    "If-Match": {"description": "ETags: returns 412 if it was edited since, unless the call changes nothing.", "schema": _TAG},
    "If-None-Match": {
        "description": "ETags: returns 304 if nothing has changed since. Other values are ignored.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "description": "W3C trace context: the batch's events carry on its trace.",
        "schema": {"type": "string"},
    },
    "Last-Event-ID": {"description": "The id of the last event that the client received.", "schema": {"type": "string"}},
}

_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}}}
_REPLAYED = {
    "Idempotent-Replayed": {
        "description": "`true`: the first response to this key, repeated.",
        "schema": {"type": "string"},
    }
}
_LOCATION = {"Location": {"description": "The batch.", "required": True, "schema": {"type": "string"}}}
_ETAG = {
    "ETag": {
        "description": "A weak tag: of a batch's version and the query, otherwise of the content.",
        "required": True,
        "schema": _TAG,
    }
}

_PARAMETERS: Mapping[str, Json] = {
    name: {"name": name, "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}
    for name in ("batch_id", "item_id", "activity_id", "template_id", "webhook_id", "event_id", "forgetting_id")
}
_ORGANIZATION: Json = {
    "name": ORGANIZATION_HEADER,
    "in": "header",
    "description": "The organization, required for a service token with several.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 100},
}


def document(routes: Sequence[Route] = ROUTES) -> Json:
    """The whole document."""
    used = {model for route in routes for model in (*route.bodies, *route.responses.values()) if isinstance(model, type)}
    listed: list[type[BaseModel]] = [*sorted(used, key=published_name), ProblemResponse, BatchEvent]
    listed.append(HealthResponse)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    for path in ("/healthz", "/readyz"):
        paths[path] = {"get": _health(path)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Bulk Registration Orchestrator",
            "version": _VERSION,
            "description": "One bulk submission in, one activity record per mentor out.",
        },
        "paths": paths,
        "components": {
            "schemas": published_schemas(listed, prefix=_SCHEMAS),
            "examples": {published_name(model): {"value": example} for model, example in examples.EXAMPLES.items()}
            | {code: {"value": _example(code)} for code in sorted(PROBLEMS)},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            },
        },
        "security": [{"bearer": []}, {"session": []}],
    }


def encoded(made: Json) -> bytes:
    """Returns the document's bytes, the same each time."""
    return orjson.dumps(made, option=orjson.OPT_SORT_KEYS)


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": route.name,
        "tags": [route.path.removeprefix(API_ROOT + "/").split("/")[0]],
        "summary": route.summary.capitalize(),
        "parameters": _parameters(route),
        "responses": _responses(route) | _refusals(route),
    }
    if route.bodies:
        schemas = [_ref(model) for model in route.bodies]
        schema = schemas[0] if len(schemas) == 1 else {"oneOf": schemas}
        content = {"schema": schema, "examples": _examples(published_name(model) for model in route.bodies)}
        operation["requestBody"] = {"required": not route.body_is_optional, "content": {"application/json": content}}
    if route.file_types:
        file = {"schema": {"type": "string", "format": "binary"}, "example": examples.TEXTS["readFile"]}
        operation["requestBody"] = {"required": True, "content": dict.fromkeys(route.file_types, file)}
    if route.takes_ticket:
        operation["security"] = [{"bearer": []}, {"session": []}, {"ticket": []}]
    return operation


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _SCHEMAS + published_name(model)}


def _content(model: type[BaseModel]) -> Json:
    return {"schema": _ref(model), "examples": _examples([published_name(model)])}


def _examples(names: Iterable[str]) -> Json:
    return {name: {"$ref": f"#/components/examples/{name}"} for name in names}


def _parameters(route: Route) -> list[Json]:
    parameters = [_PARAMETERS[name] for name in re.findall(r"{(\w+)}", route.path)]
    parameters += [{"name": name, "in": "header", **_REQUEST_HEADERS[name]} for name in route.request_headers]
    if route.query is not None:
        for name, schema in route.query.model_json_schema()["properties"].items():
            # Already listed as a security scheme.
            if name != "ticket":
                parameters.append(_query_parameter(name, schema))
    return [*parameters, _ORGANIZATION]


def _query_parameter(name: str, schema: Json) -> Json:
    """A query parameter can't be null: it is left out instead."""
    if "anyOf" in schema:
        (given,) = (choice for choice in schema["anyOf"] if choice.get("type") != "null")
        schema = {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | given
    description = schema.pop("description", "")
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _responses(route: Route) -> Json:
    responses: Json = {}
    for status, shape in route.responses.items():
        response: Json = {"description": _DESCRIPTIONS[status], "headers": _response_headers(route, status)}
        if shape == "text/event-stream":
            # OpenAPI 3.1 can't describe a single event.
            response["description"] = "Events `batch`; the id is the batch's version, the data a `BatchEvent`."
            response["content"] = {shape: {"example": examples.TEXTS[route.name]}}
        elif isinstance(shape, str):
            response["content"] = {shape: {"schema": {"type": "string"}, "example": examples.TEXTS[route.name]}}
        elif shape is not None:
            response["content"] = {"application/json": _content(shape)}
        if (route.name, status) in _LINKS:
            response["links"] = _LINKS[route.name, status]
        responses[str(status)] = response
    return responses


_DESCRIPTIONS = {
    200: "Done.",
    201: "Created.",
    202: "Accepted; poll the URL in Location for progress.",
    204: "No content.",
    304: "Not modified.",
}

_TO_THE_BATCH = {"batch_id": "$response.body#/batch_id"}
_TO_AN_ITEM = _TO_THE_BATCH | {"item_id": "$response.body#/items/0/item_id"}

# Links from a response to other operations, by operation and status.
_LINKS: Mapping[tuple[str, int], Json] = {
    ("submit", 202): {
        route.name: {"operationId": route.name, "parameters": _TO_THE_BATCH}
        for route in ROUTES
        if "{batch_id}" in route.path and "{item_id}" not in route.path
    },
    ("getBatch", 200): {
        route.name: {"operationId": route.name, "parameters": _TO_AN_ITEM} for route in ROUTES if "{item_id}" in route.path
    },
}


def _response_headers(route: Route, status: int) -> Json:
    headers: Json = {}
    if status == 202:
        headers |= _LOCATION | _RETRY_AFTER
    if "Idempotency-Key" in route.request_headers:
        headers |= _REPLAYED
    if "If-None-Match" in route.request_headers:
        headers |= _ETAG
    return headers


def _codes(route: Route) -> Iterable[str]:
    yield from _EVERYWHERE
    yield from _WITH_A_BODY
    yield from route.refusals
    if route.changes:
        yield "role_may_not"
    if "{batch_id}" in route.path:
        yield "batch_not_found"
    if "{template_id}" in route.path:
        yield "template_not_found"
    if "{webhook_id}" in route.path:
        yield "webhook_not_found"


def _refusals(route: Route) -> Json:
    by_status: dict[int, list[str]] = {}
    for code in _codes(route):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {str(status): _refusal(status, codes) for status, codes in sorted(by_status.items())}


def _refusal(status: int, codes: Sequence[str]) -> Json:
    schema = {"allOf": [_ref(ProblemResponse), {"type": "object", "properties": {"code": {"enum": sorted(codes)}}}]}
    refusal: Json = {
        "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in sorted(codes)),
        "content": {
            CONTENT_TYPE: {
                "schema": schema,
                "examples": _examples(sorted(codes)),
            }
        },
    }
    if status in (429, 503):
        refusal["headers"] = _RETRY_AFTER
    if status == 401:
        refusal["headers"] = {"WWW-Authenticate": {"description": "`Bearer`.", "required": True, "schema": {"type": "string"}}}
    return refusal


def _example(code: str) -> Json:
    errors, members = examples.MISTAKES.get(code, ()), examples.MEMBERS.get(code, {})
    return body(ProblemError(code, f"{PROBLEMS[code].title}.", errors=errors, members=members))


def _health(path: str) -> Json:
    content = {"application/json": _content(HealthResponse)}
    responses: Json = {"200": {"description": "All checks pass.", "content": content}}
    if path == "/readyz":
        responses["503"] = {"description": "A check fails; `checks` says which.", "content": content}
    return {
        "operationId": path.strip("/"),
        "tags": ["health"],
        "summary": "Whether this process is alive." if path == "/healthz" else "Whether this process can do its work.",
        "security": [],
        "responses": responses,
    }
