"""A session of the console: the cookie that the browser holds, and the requests in which it is accepted."""

import hashlib
import re
import secrets

from aiohttp import web

from api.access.identity import Identity
from api.console.provider import Person
from api.http.problems import ProblemError
from api.load.database import Database
from orchestrator.storage.console_sessions import begin_session, end_session, use_session

# With this prefix, browsers refuse the cookie unless it is Secure, HttpOnly, for this host only and for every path.
SESSION_COOKIE = "__Host-Http-bulkreg"

CONSOLE_HEADER = "X-Bulkreg-Console"

UNATTENDED_HEADER = "X-Bulkreg-Unattended"
"""On requests that a page sends by itself, for example to follow a batch. The session's idle time does not start again."""

_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class ConsoleSessions:
    """Begins, reads and ends sessions."""

    def __init__(self, database: Database, public_url: str) -> None:
        self._database = database
        self._origin = public_url

    async def begin(self, person: Person) -> str:
        """Stores a new session. Returns the secret for the cookie."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        await self._database.run(
            lambda: self._database.console(
                lambda connection: begin_session(
                    connection,
                    _hash(secret),
                    organization_id=person.organization_id,
                    subject=person.subject,
                    role=person.role,
                )
            ),
            changes=True,
        )
        return secret

    async def identity(self, request: web.Request, *, by_link: bool, extends: bool) -> Identity:
        """Returns the caller whose session the cookie names.

        `by_link`: whether a link on our own pages may lead here. `extends`: whether the request counts as a use of the session. Raises
        ProblemError `not_from_console`, `session_ended`.
        """
        self.check_origin(request, by_link=by_link)
        session_hash = _session_hash(request)
        session = await self._database.run(
            lambda: self._database.console(lambda connection: use_session(connection, session_hash, extends=extends)),
            changes=True,
        )
        if session is None:
            raise _ended()
        return Identity(session.subject, session.role, (session.organization_id,), session.ends_at)

    async def end(self, request: web.Request) -> None:
        """Revokes the session that the cookie names. Raises ProblemError `not_from_console`, `session_ended`."""
        self.check_origin(request, by_link=False)
        session_hash = _session_hash(request)
        await self._database.run(
            lambda: self._database.console(lambda connection: end_session(connection, session_hash)), changes=True
        )

    def check_origin(self, request: web.Request, *, by_link: bool) -> None:
        """Raises ProblemError `not_from_console` unless a page of ours sent the request.

        A browser also sends the cookie with requests that another page of the same site makes. Such a page can't set `Sec-Fetch-Site` or
        `Origin`. It could set our own header only if the API allowed it (CORS), which the API never does.
        """
        given = request.headers.getall
        if given("Sec-Fetch-Site", []) != ["same-origin"]:
            raise _not_from_console()
        if request.method not in ("GET", "HEAD") and given("Origin", []) != [self._origin]:
            raise _not_from_console()
        if not by_link and given(CONSOLE_HEADER, []) != ["1"]:
            raise _not_from_console()


def has_session_cookie(request: web.Request) -> bool:
    """Whether the request has a session cookie, whatever its value."""
    return SESSION_COOKIE in request.cookies


def _session_hash(request: web.Request) -> bytes:
    secret = request.cookies.get(SESSION_COOKIE, "")
    if not _SECRET.fullmatch(secret):
        raise _ended()
    return _hash(secret)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _ended() -> ProblemError:
    return ProblemError("session_ended", "The session has ended. Log in again.", headers={"WWW-Authenticate": "Bearer"})


def _not_from_console() -> ProblemError:
    return ProblemError(
        "not_from_console",
        f"The cookie is accepted only in requests of the console's own pages, with the header {CONSOLE_HEADER}: 1. "
        "Other programs send a bearer token. Behind a proxy, BULKREG_PUBLIC_URL must be the address in the browser.",
    )
