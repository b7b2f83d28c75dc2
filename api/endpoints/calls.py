"""What an endpoint takes and returns. Endpoints are plain functions that run in a worker thread, so they may block."""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import orjson
from aiohttp import web
from multidict import MultiMapping

from api.access.identity import ORGANIZATION_HEADER, Identity
from api.access.tickets import Tickets
from api.http import json_body
from api.http.etag import edit_versions
from api.load.admission import Admission
from api.load.database import Database
from api.load.files import FileReaders
from api.load.group_commit import GroupCommit
from api.load.watching import Watchers
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Actor, Idempotency
from orchestrator.process.settings import Settings
from orchestrator.registration.preview import Planner
from schemas.api.base import Request
from schemas.api.reading import RefusedRequestError, read
from schemas.mistakes import Mistake, pointer

_IDEMPOTENCY_KEY = re.compile(r"[\x20-\x7e]{1,255}")

# The textual form of RFC 9562, 4, in either case. Python's UUID() also accepts braces and URNs, which would give a batch many addresses.
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)

RequestModel = TypeVar("RequestModel", bound=Request)


@dataclass(frozen=True, slots=True)
class Service:
    """The services that endpoints use. `wake_relays` is called after each commit that may have written events."""

    settings: Settings
    database: Database
    watchers: Watchers
    tickets: Tickets
    planner: Planner
    admission: Admission
    submissions: GroupCommit
    files: FileReaders
    wake_relays: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request, with its whole body."""

    service: Service
    identity: Identity
    path: Mapping[str, str]
    query: Sequence[tuple[str, str]]
    headers: MultiMapping[str]
    body: bytes

    def actor(self, organization_in_body: str | None = None) -> Actor:
        """The caller in the organization of the request. Raises ProblemError, RefusedRequestError."""
        return self.identity.actor(header=self.header(ORGANIZATION_HEADER), in_body=organization_in_body)

    def batch_id(self) -> UUID:
        """The batch id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("batch")

    def item_id(self) -> UUID:
        """The item id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("item")

    def activity_id(self) -> UUID:
        """The activity id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("activity")

    def template_id(self) -> UUID:
        """The template id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("template")

    def webhook_id(self) -> UUID:
        """The webhook id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("webhook")

    def event_id(self) -> UUID:
        """The event id of a delivery in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("event", of="delivery")

    def forgetting_id(self) -> UUID:
        """The forgetting's id in the path. Raises NotFoundError unless the path contains a canonical UUID."""
        return self._id("forgetting")

    def _id(self, what: str, *, of: str | None = None) -> UUID:
        text = self.path[f"{what}_id"]
        if not _UUID.fullmatch(text):
            raise NotFoundError(of or what)
        return UUID(text)

    def read_query(self, model: type[RequestModel]) -> RequestModel:
        """The query. Raises RefusedRequestError, with pointers that begin with `/query`."""
        given: dict[str, Any] = {}
        for name, value in self.query:
            if name in model.REPEATABLE:
                given.setdefault(name, []).append(value)
            elif name in given:
                raise RefusedRequestError([Mistake(pointer("query", name), "repeated", "is given more than once; send it once")])
            else:
                given[name] = value
        return read(model, given, at="/query")

    def tags(self, header: str) -> str | None:
        """The value of a list header, which may be sent more than once (RFC 9110, 5.3)."""
        return ", ".join(self.headers.getall(header)) if header in self.headers else None

    def header(self, name: str) -> str | None:
        """The one value of a header. Raises RefusedRequestError if it is sent with several."""
        values = set(self.headers.getall(name, ()))
        if len(values) > 1:
            raise RefusedRequestError([Mistake(f"/headers/{name}", "repeated", "is given with different values; send it once")])
        return values.pop() if values else None

    def json(self, *, default: Any = None) -> Any:
        """The parsed body, or `default` if none was sent. Raises BadJsonError."""
        if not self.body and default is not None:
            return default
        return json_body.parse(self.body, self.service.settings)

    def idempotency(self, operation: str, *request: Any) -> Idempotency | None:
        """The Idempotency-Key, if there is one, with the hash of the operation and the request as understood. Raises RefusedRequestError for
        a key that is too long or not printable."""
        key = self.header("Idempotency-Key")
        if key is None:
            return None
        if not _IDEMPOTENCY_KEY.fullmatch(key):
            detail = "must be 1 to 255 printable ASCII characters"
            raise RefusedRequestError([Mistake("/headers/Idempotency-Key", "bad_characters", detail)])
        return Idempotency(key, hashlib.sha256(orjson.dumps([operation, *request])).digest())


def key_of_our_own() -> Idempotency:
    """Returns a key for a request without one. If the acknowledgement of the commit is lost, the transaction runs again. It then finds this
    key, returns what the first run did, and changes nothing, whatever happened in between."""
    return Idempotency(secrets.token_hex(16), b"")


def seen_edits(call: Call) -> frozenset[int] | None:
    """The edit versions that If-Match allows; None: any."""
    return edit_versions(call.tags("If-Match"))


def replayed(replayed: bool) -> dict[str, str]:
    """The header that marks a repeated response."""
    return {"Idempotent-Replayed": "true"} if replayed else {}


@dataclass(frozen=True, slots=True)
class Reply:
    """What an endpoint returns; `body` is JSON unless it is None. As bytes it is JSON already, to be sent unchanged."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        """The reply as an aiohttp response."""
        if self.body is None:
            return web.Response(status=self.status, headers=self.headers)
        body = self.body if isinstance(self.body, bytes) else orjson.dumps(self.body, option=orjson.OPT_UTC_Z)
        return web.Response(status=self.status, body=body, content_type="application/json", headers=self.headers)
