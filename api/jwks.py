"""Keys of an identity provider (JWKS, RFC 7517): fetched from the one address in the settings, and from nowhere that a token names."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import jwt
import structlog

from api.problems import RETRY_AFTER_UNAVAILABLE_S, ProblemError, bad_token, retry_after
from orchestrator.outgoing import heeds_environment, usable_way
from orchestrator.settings import RefusedStartError
from schemas import strict_json

# A key that the provider withdraws is accepted at most this much longer.
_FRESH_FOR_S = 600.0

# Tokens with unknown keys make us ask the provider; strangers can send any number of those.
_MIN_REFRESH_INTERVAL_S = 30.0

# How long keys are used that could not be refreshed: the provider's outage is not ours, but a withdrawn key must go some time.
_STALE_FOR_S = 3600.0

_TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 1024

# A key set is three levels deep; what a provider adds of its own may be deeper.
_MAX_DEPTH = 20

_log = structlog.get_logger("bulkreg.api")


class Jwks:
    """A `KeySource`. Belongs to the event loop."""

    algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA")

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises RefusedStartError where the URL, or the proxy on the way there, can't be used."""
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise RefusedStartError(f"BULKREG_JWT_JWKS_URL is no address: {error}") from error
        with usable_way(url):
            _client(url).close()
        self._url = url
        self._clock = clock
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._fetched_at = -_STALE_FOR_S
        self._asked_at = -_MIN_REFRESH_INTERVAL_S
        self._refreshing = asyncio.Lock()

    async def key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The key of this id, refreshed when it is unknown or old. Raises ProblemError `bad_token`, `keys_unavailable`."""
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise bad_token("it does not say which key (kid) signed it")
        if key_id not in self._keys or self._age() > _FRESH_FOR_S:
            await self._refresh()
        if self._age() > _STALE_FOR_S:
            detail = "The identity provider's keys can't be had at the moment."
            raise ProblemError("keys_unavailable", detail, headers=retry_after(RETRY_AFTER_UNAVAILABLE_S))
        key = self._keys.get(key_id)
        if key is None:
            raise bad_token("nobody knows the key that signed it")
        # PyJWT holds the token to the key's own algorithm, because it is given as a PyJWK.
        return key

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _refresh(self) -> None:
        async with self._refreshing:
            if self._clock() - self._asked_at < _MIN_REFRESH_INTERVAL_S:
                return
            self._asked_at = self._clock()
            try:
                document = await asyncio.to_thread(_fetch, self._url)
                self._keys = _usable(document, self.algorithms)
                self._fetched_at = self._clock()
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                _log.warning("jwks_refresh_failed", error=type(error).__name__)


def _client(url: str) -> httpx.Client:
    return httpx.Client(timeout=_TIMEOUT_S, trust_env=heeds_environment(url))


def _fetch(url: str) -> Any:
    """The document. Raises httpx.HTTPError, ValueError. Redirects are not followed: they would name another address."""
    with _client(url) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > _MAX_BYTES:
                raise ValueError("the key set is too large")
    return strict_json.loads(bytes(content), max_depth=_MAX_DEPTH)


def _usable(document: Any, algorithms: Sequence[str]) -> Mapping[str, jwt.PyJWK]:
    """The public signing keys of a key set, by id; others (symmetric ones above all) are not keys to check a token with.

    Raises ValueError for what is no key set, or has none of these. One key that is not as it should be leaves the others usable.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("this is no key set")
    keys = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
            continue
        key_id = entry.get("kid")
        if not isinstance(key_id, str) or entry.get("alg") not in (None, *algorithms):
            continue
        try:
            key = jwt.PyJWK(entry)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # broken, or a kind of key that is newer than this program
        if key.algorithm_name in algorithms:
            keys[key_id] = key
    if not keys:
        raise ValueError("the key set has no usable key")
    return keys
