"""The organization's OpenID Connect provider: its addresses, the exchange of a code, and the person that the ID token names."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from api.access.authentication import OrganizationId, safe_url, verified_claims
from api.access.jwks import Jwks, fetch_document
from api.console.attempts import Attempt
from api.console.client_key import ASSERTION_TYPE, ClientKey
from api.http.problems import ProblemError
from orchestrator.batches.model import Role
from orchestrator.process.outgoing import heeds_environment, usable_way
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings
from schemas import strict_json
from schemas.fields import Id

CALLBACK_PATH = "/console/callback"
HOME_PATH = "/console/"

# A provider changes its addresses once in years. A corrected address takes effect after this time.
_FRESH_FOR_S = 600.0

_TIMEOUT_S = 5.0

# An ID token with many claims has some kilobytes.
_MAX_BYTES = 256 * 1024

# How many logins may wait for the provider at once. Anybody can send codes; this limits how many reach the provider.
_AT_ONCE = 8

_ROLES = (Role.COORDINATOR, Role.ADMIN, Role.AUDITOR)
_SUBJECT: TypeAdapter[str] = TypeAdapter(Id)
_ORGANIZATION: TypeAdapter[str] = TypeAdapter(OrganizationId)


class LoginError(Exception):
    """The login failed. `reason` selects a text of the login-failed page; `detail` is for the log and quotes no input."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


class _Addresses(BaseModel):
    """The fields that we need of the provider's description of itself (OpenID Connect Discovery, 3)."""

    model_config = ConfigDict(extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    end_session_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


@dataclass(frozen=True, slots=True)
class Person:
    """A person whom the provider has logged in."""

    subject: str
    role: Role
    organization_id: str


class IdentityProvider:
    """The provider that the settings name. Only the event loop's thread uses it."""

    def __init__(self, settings: Settings) -> None:
        """Raises RefusedStartError if the issuer's URL, the proxy for it, or the client's key can't be used."""
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        assert settings.public_url is not None
        self._issuer = safe_url(settings.oidc_issuer, "BULKREG_OIDC_ISSUER")
        with usable_way(self._issuer):
            httpx.Client(trust_env=heeds_environment(self._issuer)).close()
        self._settings = settings
        self._client_id = settings.oidc_client_id
        key = settings.oidc_client_key
        self._client_key = None if key is None else ClientKey.read(key.get_secret_value(), settings.oidc_client_key_id)
        self._redirect_uri = settings.public_url + CALLBACK_PATH
        self._home = settings.public_url + HOME_PATH
        self._known: tuple[_Addresses, Jwks] | None = None
        self._known_at = 0.0
        self._finding = asyncio.Lock()
        self._exchanges = asyncio.Semaphore(_AT_ONCE)

    async def login_url(self, attempt: Attempt) -> str:
        """Returns the address at which the browser logs in. Raises LoginError."""
        addresses, _ = await self._found()
        question = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._redirect_uri,
            "scope": self._settings.oidc_scope,
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.code_challenge,
            "code_challenge_method": "S256",
        }
        return _with(addresses.authorization_endpoint, question)

    async def logout_url(self) -> str | None:
        """Returns the address that ends the provider's session; None if the provider offers none or can't be reached."""
        try:
            addresses, _ = await self._found()
        except LoginError:
            return None
        if addresses.end_session_endpoint is None:
            return None
        return _with(addresses.end_session_endpoint, {"client_id": self._client_id, "post_logout_redirect_uri": self._home})

    async def person(self, attempt: Attempt, code: str) -> Person:
        """Returns the person who has logged in, for the code of the provider's redirect. Raises LoginError."""
        if self._exchanges.locked():
            raise LoginError("provider_unavailable", "too many logins at the same moment")
        async with self._exchanges:
            addresses, keys = await self._found()
            token = await asyncio.to_thread(self._exchange, addresses, attempt, code)
        try:
            claims = await verified_claims(
                token, keys, issuer=self._issuer, audience=self._client_id, leeway_s=self._settings.jwt_leeway_s
            )
        except ProblemError as error:
            reason = "provider_unavailable" if error.code == "keys_unavailable" else "bad_id_token"
            raise LoginError(reason, error.detail) from error
        self._check_purpose(claims, attempt)
        return self._person(claims)

    async def _found(self) -> tuple[_Addresses, Jwks]:
        async with self._finding:
            if self._known is not None and time.monotonic() - self._known_at < _FRESH_FOR_S:
                return self._known
            try:
                document = await asyncio.to_thread(fetch_document, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
                addresses = self._usable(document)
                # If the address is unchanged, keep the keys and the limit on how often they are fetched.
                is_same = self._known is not None and self._known[0].jwks_uri == addresses.jwks_uri
                keys = self._known[1] if is_same and self._known is not None else Jwks(addresses.jwks_uri)
            except (httpx.HTTPError, ValueError) as error:
                if self._known is None:
                    raise LoginError("provider_unavailable", type(error).__name__) from error
            else:
                self._known = addresses, keys
            self._known_at = time.monotonic()
            return self._known

    def _usable(self, document: Any) -> _Addresses:
        """Raises ValueError if the description is of another issuer, or names an address that is neither https nor loopback."""
        addresses = _Addresses.model_validate(document)
        if addresses.issuer != self._issuer:
            raise ValueError("the description is of another issuer")
        for url in (
            addresses.authorization_endpoint,
            addresses.token_endpoint,
            addresses.jwks_uri,
            addresses.end_session_endpoint,
        ):
            if url is not None:
                safe_url(url, "an address of the identity provider")
        return addresses

    def _exchange(self, addresses: _Addresses, attempt: Attempt, code: str) -> str:
        """Returns the ID token for a code. Raises LoginError. Follows no redirects, because they could send the secret to another server."""
        auth, credentials = self._credentials(addresses)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": attempt.code_verifier,
            **credentials,
        }
        try:
            with (
                httpx.Client(timeout=_TIMEOUT_S, trust_env=heeds_environment(addresses.token_endpoint), auth=auth) as client,
                client.stream("POST", addresses.token_endpoint, data=form, headers={"Accept": "application/json"}) as answer,
            ):
                content = bytearray()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > _MAX_BYTES:
                        raise LoginError("bad_id_token", "the provider's response is too large")
                if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise LoginError("provider_unavailable", f"the provider returned {answer.status_code} for the code")
                if answer.status_code != httpx.codes.OK:
                    raise LoginError("login_expired", f"the provider returned {answer.status_code} for the code")
            token = strict_json.loads(bytes(content), max_depth=strict_json.MAX_JSON_DEPTH)["id_token"]
        except httpx.HTTPError as error:
            raise LoginError("provider_unavailable", type(error).__name__) from error
        except (ValueError, KeyError, TypeError) as error:
            raise LoginError("bad_id_token", "the provider's response has no ID token") from error
        if not isinstance(token, str) or not token.isascii():
            raise LoginError("bad_id_token", "the ID token is no token")
        return token

    def _credentials(self, addresses: _Addresses) -> tuple[httpx.BasicAuth | None, dict[str, str]]:
        """Returns how the console shows the provider who it is: the header, and fields of the form."""
        secret = self._settings.oidc_client_secret
        if self._client_key is not None:
            assertion = self._client_key.assertion(self._client_id, addresses.token_endpoint)
            return None, {"client_id": self._client_id, "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
        if secret is None:
            return None, {"client_id": self._client_id}
        if "client_secret_basic" in addresses.token_endpoint_auth_methods_supported:
            # Each is form-encoded first (RFC 6749, 2.3.1).
            return httpx.BasicAuth(quote(self._client_id, safe=""), quote(secret.get_secret_value(), safe="")), {}
        return None, {"client_id": self._client_id, "client_secret": secret.get_secret_value()}

    def _check_purpose(self, claims: Mapping[str, Any], attempt: Attempt) -> None:
        """Refuses an ID token that was made for another attempt or another client (OpenID Connect Core, 3.1.3.7)."""
        if claims.get("nonce") != attempt.nonce:
            raise LoginError("bad_id_token", "nonce")
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        if claims.get("azp", self._client_id if len(audiences) == 1 else None) != self._client_id:
            raise LoginError("bad_id_token", "azp")

    def _person(self, claims: Mapping[str, Any]) -> Person:
        settings = self._settings
        try:
            subject = _SUBJECT.validate_python(_one(claims.get(settings.oidc_subject_claim)))
            organization_id = _ORGANIZATION.validate_python(_one(claims.get(settings.oidc_organization_claim)))
        except ValidationError as error:
            raise LoginError("no_access", "the claim of the subject or of the organization") from error
        given = claims.get(settings.oidc_role_claim)
        roles = [role for role in _ROLES if role == given or (isinstance(given, list) and role.value in given)]
        if len(roles) != 1:
            raise LoginError("no_access", "the claim of the role")
        return Person(subject, roles[0], organization_id)


def check_provider(settings: Settings) -> None:
    """Raises RefusedStartError if the provider that the settings name can't be used."""
    public = safe_url(settings.public_url or "", "BULKREG_PUBLIC_URL")
    if not public.isascii():
        raise RefusedStartError("BULKREG_PUBLIC_URL must be ASCII, as browsers send it: an international name begins with xn--")
    IdentityProvider(settings)


def _one(value: Any) -> Any:
    """Returns the value of a claim. Some providers send it as a list of one."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _with(url: str, question: Mapping[str, str]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(question)}"
