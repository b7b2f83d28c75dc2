"""What a route is: one method on one path, the function that serves it, and its documentation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from api.endpoints.calls import Call, Reply
from schemas.api.base import Request, Response

Endpoint = Callable[[Call], Reply]
"""Runs in a worker thread, where it may block."""

Conversation = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]
"""Runs on the event loop for as long as the response takes, and hands blocking work to a thread."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `name` is its operation id; the summary is the first line of its function's docstring."""

    method: str
    path: str
    name: str
    endpoint: Endpoint | None = None
    conversation: Conversation | None = None
    changes: bool = False
    """Whether it changes something. Auditors may not call it."""
    takes_ticket: bool = False
    """Whether a ticket is accepted instead of a token."""
    is_download: bool = False
    """Whether a link of the console leads here, so that the browser sends no header of ours."""
    query: type[Request] | None = None
    bodies: Sequence[type[Request]] = ()
    """The forms of the request body."""
    body_is_optional: bool = False
    file_types: Sequence[str] = ()
    """The content types of a body that is a file instead of JSON."""
    request_headers: Sequence[str] = ()
    responses: Mapping[int, type[Response] | str | None] = field(default_factory=dict)
    """By status: a model in JSON, another content type, or no body."""
    refusals: Sequence[str] = ()
    """The codes of problems specific to this route (`api.http.problems`)."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        served_by = self.endpoint or self.conversation
        return ((served_by.__doc__ or "").partition("\n")[0]).partition(": ")[2]


# Names that several modules of routes use.
KEY = ("Idempotency-Key",)
REUSED = ("idempotency_key_reused",)
MATCH = ("If-Match",)
NOT_CHANGED = ("If-None-Match",)
