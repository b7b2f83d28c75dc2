"""Turns errors that aiohttp reports before any handler runs into problem details. It does not log the request, which may hold a token."""

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from api.http.problems import PROBLEMS, ProblemError, response
from orchestrator.process.actions import Action, log_action

# The parser's own limits. They have to differ: see `_problem`.
MAX_ADDRESS_BYTES = 8_192
MAX_HEADER_BYTES = 8_190

_TOO_MANY_HEADERS = "Too many headers received"

AnyHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The response when no handler could run. aiohttp's own response quotes the request, to the client and in the log."""
        log_action(Action.REQUEST_UNREADABLE, role="api", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("a response was begun already")
        answer = response(_problem(status, exc))
        answer.force_close()
        return answer


def _problem(status: int, error: BaseException | None) -> ProblemError:
    if isinstance(error, LineTooLong):
        # The parser's exception tells only by its limit which part was too long.
        if error.args[1] == MAX_ADDRESS_BYTES:
            return ProblemError(
                "address_too_long", f"The address with its query may have at most {MAX_ADDRESS_BYTES:,} bytes; shorten it."
            )
        return ProblemError(
            "headers_too_large",
            f"A header may have at most {MAX_HEADER_BYTES:,} bytes including its name. If the token is too long, issue it with fewer claims.",
        )
    if isinstance(error, BadHttpMessage) and error.message == _TOO_MANY_HEADERS:
        return ProblemError("headers_too_large", "The request has too many headers; send fewer.")
    if status == PROBLEMS["bad_request"].status:
        return ProblemError("bad_request", "The request is not valid HTTP/1.1 (RFC 9112).")
    return ProblemError(
        "internal_error", "The server failed to handle the request. See the server log; repeat the request later."
    )


def refusing_expectations(handler: AnyHandler) -> AnyHandler:
    """Wraps a handler to reject requests that expect anything but `100-continue` (RFC 9110, 10.1.1)."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        expected = request.headers.get("Expect") or "100-continue"
        if request.version >= HttpVersion11 and expected.lower() != "100-continue":
            log_action(Action.REQUEST_UNREADABLE, role="api", status=PROBLEMS["expectation_unknown"].status)
            return response(ProblemError("expectation_unknown", "Remove the Expect header, or send Expect: 100-continue."))
        return await handler(request)

    return handle
