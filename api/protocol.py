"""What is not HTTP at all: answered as problem details too, and logged without what was sent (it can be a token)."""

import structlog
from aiohttp import web

from api.problems import PROBLEMS, ProblemError, response

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
