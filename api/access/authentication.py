"""Authenticates requests: checks a bearer JWT's signature, `exp`, `iss` and `aud`, and `nbf` where it has one."""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol
from urllib.parse import urlsplit

import jwt
from jwt.types import Options
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from api.access.identity import ANY_ORGANIZATION, ORGANIZATION_ID_PATTERN, Identity
from api.access.jwks import Jwks
from api.http.problems import ProblemError, bad_token
from orchestrator.batches.model import Role
from orchestrator.process.outgoing import check_address
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import LOOPBACK, Settings
from schemas.fields import Id, canonical_id

# A verified token is not verified again for this long, or until it expires: verification is a tenth of the cost of a small submission. A key
# that the identity provider has withdrawn is still accepted for this long, so it is short.
BELIEVED_S = 30.0
_MOST_BELIEVED = 4_096

# `nbf` is optional (RFC 7519, 4.1.5), and several identity providers leave it out. `iat` and `jti` are for the issuer of the token.
_OPTIONS: Options = {"require": ["exp", "iss", "aud", "sub"], "verify_iat": False, "verify_jti": False}


class KeySource(Protocol):
    """The keys for checking signatures."""

    algorithms: Sequence[str]
    """The accepted algorithms. A token can't choose another one."""

    async def key(self, header: Mapping[str, Any]) -> Any:
        """Returns the key for a token with this (unverified) header. Raises ProblemError `bad_token` when there is none.

        It may read only `kid` and `alg` of the header: the sender controls `jku`, `x5u` and `jwk`.
        """


class SharedKey:
    """The development key (HS256)."""

    algorithms: Sequence[str] = ("HS256",)

    def __init__(self, key: str) -> None:
        self._key = key

    async def key(self, header: Mapping[str, Any]) -> Any:
        """Returns the only key."""
        return self._key


OrganizationId = Annotated[str, StringConstraints(pattern=ORGANIZATION_ID_PATTERN, strict=True), BeforeValidator(canonical_id)]


class _Claims(BaseModel):
    """The claims that say what a caller may do."""

    model_config = ConfigDict(extra="ignore")

    sub: Id
    role: Role
    exp: float
    org: OrganizationId | None = None
    orgs: tuple[OrganizationId, ...] | None = None


class Authenticator(Protocol):
    """Returns who sends a request, given its `Authorization` header."""

    async def authenticate(self, authorization: str | None) -> Identity:
        """Returns the caller. Raises ProblemError `no_token` or `bad_token`."""


class TokenAuthenticator:
    """Reads bearer tokens."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, leeway_s: float) -> None:
        """`leeway_s`: how far the issuer's clock may differ from ours."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway_s = leeway_s
        self._believed: OrderedDict[str, tuple[Identity, float]] = OrderedDict()

    async def authenticate(self, authorization: str | None) -> Identity:
        """Returns the caller that the token names. Raises ProblemError."""
        scheme, token, *more = [*(authorization or "").split(), "", ""][:3]
        if scheme.lower() != "bearer" or not token or any(more):
            raise ProblemError(
                "no_token", "Send the header Authorization: Bearer <token>.", headers={"WWW-Authenticate": "Bearer"}
            )
        if not token.isascii():
            raise bad_token("it contains characters that are not allowed in a token")
        identity, until = self._believed.get(token, (None, 0.0))
        if identity is None or time.time() >= until:
            identity = await self._verified(token)
            self._believe(token, identity)
        return identity

    def _believe(self, token: str, identity: Identity) -> None:
        self._believed[token] = identity, min(identity.expires_at, time.time() + BELIEVED_S)
        self._believed.move_to_end(token)
        if len(self._believed) > _MOST_BELIEVED:
            self._believed.popitem(last=False)

    async def _verified(self, token: str) -> Identity:
        claims = await verified_claims(token, self._keys, issuer=self._issuer, audience=self._audience, leeway_s=self._leeway_s)
        return _identity(claims, self._leeway_s)


async def verified_claims(token: str, keys: KeySource, *, issuer: str, audience: str, leeway_s: float) -> Mapping[str, Any]:
    """Returns the claims of a JWT whose signature, `exp`, `iss`, `aud` and `nbf` are right. Raises ProblemError."""
    try:
        key = await keys.key(jwt.get_unverified_header(token))
        claims: Mapping[str, Any] = jwt.decode(
            token, key, algorithms=keys.algorithms, issuer=issuer, audience=audience, leeway=leeway_s, options=_OPTIONS
        )
    except jwt.PyJWTError as error:
        # Only the name of the failed check is returned, because the message could quote the token.
        raise bad_token(type(error).__name__) from error
    return claims


def _identity(raw: Mapping[str, Any], leeway_s: float) -> Identity:
    try:
        claims = _Claims.model_validate(raw)
    except ValidationError as error:
        raise bad_token(f"claim {error.errors()[0]['loc'][0]}") from error
    if claims.role is Role.SERVICE:
        if claims.orgs is None:
            raise bad_token("a service token needs the claim orgs")
        return Identity(claims.sub, claims.role, claims.orgs, claims.exp + leeway_s)
    if claims.org is None:
        raise bad_token("claim org")
    return Identity(claims.sub, claims.role, (claims.org,), claims.exp + leeway_s)


class NoAuthentication:
    """For loopback only: every caller is a service for all organizations."""

    async def authenticate(self, authorization: str | None) -> Identity:
        """Always the same caller."""
        return Identity("unauthenticated", Role.SERVICE, (ANY_ORGANIZATION,), expires_at=math.inf)


class UnsafeStartError(RefusedStartError):
    """The settings would let anyone use the API. The message says which setting to change."""


def authenticator(settings: Settings) -> Authenticator:
    """The authenticator that the settings select. Raises UnsafeStartError if there is none beyond loopback, and RefusedStartError."""
    keys: KeySource
    if settings.jwt_hs256_key is not None and settings.jwt_jwks_url is not None:
        raise UnsafeStartError(
            "BULKREG_JWT_JWKS_URL and BULKREG_JWT_HS256_KEY are both set. Unset the latter: with it, anyone could impersonate any caller"
        )
    if settings.jwt_jwks_url is not None:
        keys = Jwks(safe_url(settings.jwt_jwks_url, "BULKREG_JWT_JWKS_URL"))
    elif settings.jwt_hs256_key is not None:
        keys = SharedKey(settings.jwt_hs256_key.get_secret_value())
    elif settings.api_host in LOOPBACK:
        return NoAuthentication()
    else:
        raise UnsafeStartError(
            f"api_host is {settings.api_host}, which other machines can reach, and there is no authentication: set BULKREG_JWT_JWKS_URL "
            "(or, for development, BULKREG_JWT_HS256_KEY), or BULKREG_API_HOST=127.0.0.1"
        )
    return TokenAuthenticator(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience, leeway_s=settings.jwt_leeway_s)


def safe_url(url: str, name: str) -> str:
    """Returns the URL if it can be called, and nobody can change its response in transit. `name`: what says it. Raises UnsafeStartError."""
    try:
        check_address(url)
        parts = urlsplit(url)
    except ValueError as error:
        raise UnsafeStartError(f"{name} is not a URL: {error}") from error
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return url
    raise UnsafeStartError(f"{name} must be https. Anyone who can change the response in transit could sign tokens")
