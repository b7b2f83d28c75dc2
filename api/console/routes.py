"""Login and logout: the console's addresses that are not pages."""

from collections.abc import Mapping

from aiohttp import web

from api.console.attempts import Attempt
from api.console.provider import CALLBACK_PATH, HOME_PATH, IdentityProvider, LoginError, Person
from api.console.sessions import SESSION_COOKIE, ConsoleSessions
from api.http.problems import ProblemError
from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings

ATTEMPT_COOKIE = "__Host-Http-bulkreg-login"

# Long enough for a person who first has to find a second factor.
_ATTEMPT_S = 600

_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    # The address of the callback has the code in it.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}

# The browser does not send a SameSite=Strict cookie after a redirect that began at the provider. This page starts a new request of our own.
_GO_ON = (
    f'<!doctype html><meta charset=utf-8><meta http-equiv=refresh content="0; url={HOME_PATH}"><a href="{HOME_PATH}">&rarr;</a>'
)


def add_login_routes(app: web.Application, settings: Settings, sessions: ConsoleSessions) -> None:
    """Adds the routes. Raises RefusedStartError if the provider that the settings name can't be used."""
    login = _Login(settings, IdentityProvider(settings), sessions)
    app.router.add_get("/console/login", login.begin)
    app.router.add_get(CALLBACK_PATH, login.finish)
    app.router.add_post("/console/logout", login.logout)


class _Login:
    def __init__(self, settings: Settings, provider: IdentityProvider, sessions: ConsoleSessions) -> None:
        self._issuer = settings.oidc_issuer or ""
        self._provider = provider
        self._sessions = sessions

    async def begin(self, _request: web.Request) -> web.Response:
        """Sends the browser to the provider."""
        attempt = Attempt.begin()
        try:
            url = await self._provider.login_url(attempt)
        except LoginError as error:
            return _refused(error)
        response = _redirect(url)
        response.set_cookie(
            ATTEMPT_COOKIE, attempt.secret, max_age=_ATTEMPT_S, path="/", secure=True, httponly=True, samesite="Lax"
        )
        return response

    async def finish(self, request: web.Request) -> web.Response:
        """Receives the browser back from the provider, and begins a session."""
        try:
            secret = await self._sessions.begin(await self._person(request))
        except LoginError as error:
            return _refused(error)
        except ProblemError as error:
            return _refused(LoginError("unavailable", error.code))
        log_action(Action.CONSOLE_LOGIN, role="api")
        response = web.Response(text=_GO_ON, content_type="text/html", headers=_HEADERS)
        response.set_cookie(SESSION_COOKIE, secret, path="/", secure=True, httponly=True, samesite="Strict")
        _forget(response, ATTEMPT_COOKIE, "Lax")
        return response

    async def _person(self, request: web.Request) -> Person:
        question = request.query
        attempt = Attempt.of_cookie(request.cookies.get(ATTEMPT_COOKIE))
        if attempt is None or not attempt.has_state(question.get("state")):
            raise LoginError("login_expired", "the redirect belongs to no attempt of this browser")
        # Optional (RFC 9207). It reveals the redirect of another provider.
        if question.get("iss", self._issuer) != self._issuer:
            raise LoginError("bad_id_token", "iss")
        if "error" in question or "code" not in question:
            raise LoginError("refused", "the provider sent the browser back without a code")
        return await self._provider.person(attempt, question["code"])

    async def logout(self, request: web.Request) -> web.Response:
        """Ends the session. The body says where the browser ends the provider's session, too."""
        await self._sessions.end(request)
        log_action(Action.CONSOLE_LOGOUT, role="api")
        # Not "cookies": that would clear the cookies of the whole domain, the provider's included.
        headers = {**_HEADERS, "Clear-Site-Data": '"cache", "storage"'}
        response = web.json_response({"continue_at": await self._provider.logout_url()}, headers=headers)
        _forget(response, SESSION_COOKIE, "Strict")
        return response


def _refused(error: LoginError) -> web.Response:
    """Redirects to the page that says why the login failed."""
    log_action(Action.CONSOLE_LOGIN_REFUSED, role="api", reason=error.reason, error=error.detail)
    response = _redirect(f"/console/login-failed?reason={error.reason}")
    _forget(response, ATTEMPT_COOKIE, "Lax")
    return response


def _redirect(url: str) -> web.Response:
    return web.Response(status=302, headers={**_HEADERS, "Location": url})


def _forget(response: web.Response, cookie: str, samesite: str) -> None:
    response.set_cookie(cookie, "", max_age=0, path="/", secure=True, httponly=True, samesite=samesite)
