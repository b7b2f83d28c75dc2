"""What aiohttp answers before any handler: problem details too, and logged without what was sent (it can be a token)."""

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import HttpVersion11, web

from api.problems import PROBLEMS, ProblemError, response

AnyHandler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger("bulkreg.api")


class Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer where no handler could give one. aiohttp's own quotes the request, to the client and to the log."""
        _log.warning("request_unreadable", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        if status == PROBLEMS["bad_request"].status:
            problem = ProblemError("bad_request", "The request is not HTTP as RFC 9112 has it.")
        else:
            problem = ProblemError("internal_error", "The request failed on our side; nothing tells more than our log.")
        answer = response(problem)
        answer.force_close()
        return answer


def refusing_expectations(handler: AnyHandler) -> AnyHandler:
    """The handler, for requests that expect nothing but `100-continue` (RFC 9110, 10.1.1)."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        expected = request.headers.get("Expect") or "100-continue"
        if request.version >= HttpVersion11 and expected.lower() != "100-continue":
            _log.warning("request_unreadable", status=PROBLEMS["expectation_unknown"].status)
            return response(ProblemError("expectation_unknown", "Leave out the header Expect, or send Expect: 100-continue."))
        return await handler(request)

    return handle
