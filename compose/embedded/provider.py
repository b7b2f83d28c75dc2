"""A small OpenID Connect provider for development: with it the console of `bulkreg up` logs people in as in production.

It asks "who are you?" and believes the answer. So it listens on loopback only, and serves one client whose pages are on loopback.
Run as `python -m compose.embedded.provider`, with the settings of the API.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import create_engine, text

from orchestrator.process.loopback import is_this_machine
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings

PATH = "/.well-known/openid-configuration"

_CODE_VALID_S = 60.0
_TOKEN_VALID_S = 300
_ALGORITHM = "ES256"

_PEOPLE = text("""
    SELECT k.organization_id, o.name AS organization, k.coordinator_id AS subject, k.name, k.role
    FROM registration.coordinator k JOIN registration.organization o USING (organization_id)
    UNION ALL
    SELECT organization_id, name, 'auditor', 'The auditor', 'auditor' FROM registration.organization
    ORDER BY organization_id, role DESC, name
""")

_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
body { max-width: 34rem; margin: 2rem auto; padding: 0 1rem; }
ul { list-style: none; padding: 0; }
li a { display: block; margin: .5rem 0; padding: .75rem 1rem; border: 1px solid; border-radius: .5rem; color: inherit; }
"""


class Person(NamedTuple):
    """Somebody who can be chosen."""

    organization_id: str
    organization: str
    subject: str
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class _Grant:
    """What a code stands for."""

    person: Person
    nonce: str | None
    code_challenge: str
    expires_at: float


class DevelopmentProvider:
    """The provider: its endpoints, and the codes that have not been used yet."""

    def __init__(self, settings: Settings, people: Callable[[], Sequence[Person]]) -> None:
        """Raises RefusedStartError unless the provider and its client are on loopback."""
        proof = settings.oidc_client_secret or settings.oidc_client_key
        if settings.oidc_issuer is None or settings.public_url is None or proof is None:
            raise RefusedStartError(
                "the development provider needs BULKREG_OIDC_ISSUER, and BULKREG_OIDC_CLIENT_SECRET or BULKREG_OIDC_CLIENT_KEY"
            )
        for url, name in ((settings.oidc_issuer, "BULKREG_OIDC_ISSUER"), (settings.public_url, "BULKREG_PUBLIC_URL")):
            if not is_this_machine(urlsplit(url).hostname or ""):
                raise RefusedStartError(f"{name} is not on loopback: the development provider believes everybody; use a real one")
        self.issuer = settings.oidc_issuer
        self._client = settings.oidc_client_id, proof.get_secret_value()
        self._signs = settings.oidc_client_key is not None
        self._assertions: set[str] = set()
        self._redirect_uri = settings.public_url + "/console/callback"
        self._home = settings.public_url + "/console/"
        self._people = people
        self._key = _signing_key(self._client[1])
        self._grants: dict[str, _Grant] = {}

    def app(self) -> web.Application:
        """The endpoints."""
        app = web.Application(middlewares=[self._refuse_other_hosts])
        app.router.add_get(PATH, self._description)
        app.router.add_get("/jwks", self._keys)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/logout", self._logout)
        return app

    @web.middleware
    async def _refuse_other_hosts(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuses names that somebody's own name server has led here."""
        if request.headers.get("Host") != urlsplit(self.issuer).netloc:
            return web.Response(status=421, text="this provider serves loopback only")
        response: web.StreamResponse = await handler(request)
        response.headers.update(_HEADERS)
        return response

    async def _description(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/jwks",
                "end_session_endpoint": f"{self.issuer}/logout",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": [_ALGORITHM],
                "code_challenge_methods_supported": ["S256"],
                "token_endpoint_auth_methods_supported": ["private_key_jwt" if self._signs else "client_secret_basic"],
                "authorization_response_iss_parameter_supported": True,
            }
        )

    async def _keys(self, _request: web.Request) -> web.Response:
        public = jwt.get_algorithm_by_name(_ALGORITHM).to_jwk(self._key.public_key(), as_dict=True)
        return web.json_response({"keys": [{**public, "kid": "development", "use": "sig", "alg": _ALGORITHM}]})

    async def _authorize(self, request: web.Request) -> web.Response:
        """Asks who it is; with a person, sends the browser back with a code."""
        asked = request.query
        if (asked.get("client_id"), asked.get("redirect_uri")) != (self._client[0], self._redirect_uri):
            return web.Response(status=400, text="the client or its redirect address is not the console of this home")
        if (asked.get("response_type"), asked.get("code_challenge_method")) != ("code", "S256") or "code_challenge" not in asked:
            return web.Response(status=400, text="only the authorization code flow with PKCE (S256) is served")
        people = await asyncio.to_thread(self._people)
        chosen = [person for person in people if asked.get("person") == f"{person.organization_id}/{person.subject}"]
        if not chosen:
            return web.Response(text=_page(asked, people), content_type="text/html")
        code = secrets.token_urlsafe(32)
        self._grants = {code: grant for code, grant in self._grants.items() if grant.expires_at > time.monotonic()}
        self._grants[code] = _Grant(chosen[0], asked.get("nonce"), asked["code_challenge"], time.monotonic() + _CODE_VALID_S)
        answer = {"code": code, "state": asked.get("state", ""), "iss": self.issuer}
        return web.Response(status=303, headers={"Location": f"{self._redirect_uri}?{urlencode(answer)}"})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not (self._has_signed(form) if self._signs else self._is_client(request.headers.get("Authorization", ""))):
            return web.json_response({"error": "invalid_client"}, status=401)
        grant = self._grants.pop(str(form.get("code")), None)
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(str(form.get("code_verifier")).encode()).digest()).rstrip(b"=").decode()
        )
        if grant is None or grant.expires_at < time.monotonic() or not hmac.compare_digest(challenge, grant.code_challenge):
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response(
            {
                "access_token": secrets.token_urlsafe(32),
                "token_type": "Bearer",
                "expires_in": _TOKEN_VALID_S,
                "id_token": jwt.encode(
                    self.claims(grant.person, grant.nonce), self._key, algorithm=_ALGORITHM, headers={"kid": "development"}
                ),
            }
        )

    def claims(self, person: Person, nonce: str | None) -> dict[str, Any]:
        """What an ID token says."""
        now = int(time.time())
        return {
            "iss": self.issuer,
            "aud": self._client[0],
            "iat": now,
            "exp": now + _TOKEN_VALID_S,
            "nonce": nonce,
            "sub": person.subject,
            "org": person.organization_id,
            "role": person.role,
        }

    async def _logout(self, request: web.Request) -> web.Response:
        if request.query.get("post_logout_redirect_uri") != self._home:
            return web.Response(status=400, text="the address to return to is not the console of this home")
        return web.Response(status=303, headers={"Location": self._home})

    def _has_signed(self, form: Mapping[str, Any]) -> bool:
        """Whether the form has an assertion of the client's key that was not used before (private_key_jwt)."""
        public = load_pem_private_key(self._client[1].encode(), password=None).public_key()
        if form.get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer":
            return False
        try:
            claims = jwt.decode(
                str(form.get("client_assertion")),
                public,  # type: ignore[arg-type]  # A key of another kind is refused.
                algorithms=["RS256", "ES256", "EdDSA"],
                audience=f"{self.issuer}/token",
                issuer=self._client[0],
                subject=self._client[0],
                options={"require": ["exp", "jti"], "strict_aud": True},
            )
        except jwt.PyJWTError:
            return False
        is_new = claims["jti"] not in self._assertions
        self._assertions.add(claims["jti"])
        return is_new

    def _is_client(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        try:
            client_id, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        expected = self._client[1].encode()
        return (
            scheme.lower() == "basic"
            and unquote(client_id) == self._client[0]
            and hmac.compare_digest(unquote(secret).encode(), expected)
        )


def _page(asked: Mapping[str, str], people: Sequence[Person]) -> str:
    links = "".join(
        f'<li><a href="/authorize?{escape(urlencode({**asked, "person": f"{each.organization_id}/{each.subject}"}, quote_via=quote))}">'
        f"<strong>{escape(each.name)}</strong>, {escape(each.role)}, {escape(each.organization)}</a>"
        for each in people
    )
    nobody = "<p>The directory has nobody yet. Import one with: <code>bulkreg directory import DIR</code>, then reload this page."
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Who are you?</title><style>{_STYLE}</style><main><h1>Who are you?</h1>"
        "<p>This stands in for your organization's login on a developer's machine, and asks for no password.</p>"
        f"{f'<ul>{links}</ul>' if people else nobody}</main>"
    )


def _signing_key(secret: str) -> ec.EllipticCurvePrivateKey:
    """The same key at each start of one home, so that the API need not fetch it again."""
    number = int.from_bytes(hmac.digest(secret.encode(), b"development provider", "sha256"))
    # The group's order is a little below 2^256.
    return ec.derive_private_key(number >> 1 or 1, ec.SECP256R1())


@asynccontextmanager
async def serving_provider(provider: DevelopmentProvider) -> AsyncIterator[None]:
    """Serves at the port of the issuer, on 127.0.0.1 and nowhere else, while the block runs."""
    runner = web.AppRunner(provider.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", urlsplit(provider.issuer).port).start()
        yield
    finally:
        await runner.cleanup()


async def _serve(settings: Settings) -> None:
    engine = create_engine(settings.worker_url, pool_pre_ping=True)

    def people() -> Sequence[Person]:
        with engine.connect() as connection:
            return [Person(*row) for row in connection.execute(_PEOPLE)]

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with serving_provider(DevelopmentProvider(settings, people)):
        await stopping.wait()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(Settings()))
    except RefusedStartError as error:
        sys.exit(str(error))
