"""Keys of an identity provider (JWKS, RFC 7517). They are fetched only from the URL in the settings, never from one in a token."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import jwt

from api.http.problems import RETRY_AFTER_UNAVAILABLE_S, ProblemError, bad_token, retry_after
from orchestrator.process.actions import Action, log_action
from orchestrator.process.outgoing import heeds_environment, usable_way
from orchestrator.process.refused_start import RefusedStartError
from schemas import strict_json

# A withdrawn key is accepted for at most this long.
_FRESH_FOR_S = 600.0

# A token with an unknown key causes a request to the provider, and anyone can send such tokens.
_MIN_REFRESH_INTERVAL_S = 30.0

# How long keys that can't be refreshed stay in use: the API must survive an outage of the provider, but a withdrawn key must expire.
_STALE_FOR_S = 3600.0

_TIMEOUT_S = 5.0
_MAX_BYTES = 256 * 1024


class Jwks:
    """A `KeySource`. Only the event loop's thread uses it."""

    algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA")

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises RefusedStartError if the URL, or the proxy for it, can't be used."""
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise RefusedStartError(f"BULKREG_JWT_JWKS_URL is not a URL: {error}") from error
        with usable_way(url):
            _client(url).close()
        self._url = url
        self._clock = clock
        self._keys: Sequence[jwt.PyJWK] = ()
        self._fetched_at = -_STALE_FOR_S
        self._asked_at = -_MIN_REFRESH_INTERVAL_S
        self._refreshing = asyncio.Lock()

    async def key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """Returns the key to check a token with this header. Raises ProblemError `bad_token`, `keys_unavailable`.

        It is the key of the token's `kid`. If the token has no `kid`, or the set's keys have none, it is the only key of the token's
        algorithm. Fetches the keys again when there is no such key, or when they are old.
        """
        key_id, algorithm = header.get("kid"), header.get("alg")
        if key_id is not None and not isinstance(key_id, str):
            raise bad_token("its key id (kid) is not a string")
        found = self._find(key_id, algorithm)
        if not found or self._age() > _FRESH_FOR_S:
            await self._refresh()
            found = self._find(key_id, algorithm)
        if self._age() > _STALE_FOR_S:
            detail = "The identity provider's keys can't be fetched at the moment. Repeat the request after Retry-After."
            raise ProblemError("keys_unavailable", detail, headers=retry_after(RETRY_AFTER_UNAVAILABLE_S))
        if not found:
            raise bad_token("the key that signed it is unknown")
        if len(found) > 1:
            raise bad_token("it does not name its key (kid), and there are several keys")
        # Given a PyJWK, PyJWT accepts only the key's own algorithm.
        return found[0]

    def _find(self, key_id: str | None, algorithm: object) -> Sequence[jwt.PyJWK]:
        able = [key for key in self._keys if key.algorithm_name == algorithm]
        if key_id is None:
            return able
        # A set with two keys of one id is invalid; use either of them.
        return [key for key in able if key.key_id == key_id][-1:] or [key for key in able if key.key_id is None]

    def _age(self) -> float:
        return self._clock() - self._fetched_at

    async def _refresh(self) -> None:
        async with self._refreshing:
            if self._clock() - self._asked_at < _MIN_REFRESH_INTERVAL_S:
                return
            self._asked_at = self._clock()
            try:
                document = await asyncio.to_thread(fetch_document, self._url)
                self._keys = _usable(document, self.algorithms)
                self._fetched_at = self._clock()
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                log_action(Action.JWKS_REFRESH_FAILED, role="api", error=type(error).__name__)


def _client(url: str) -> httpx.Client:
    return httpx.Client(timeout=_TIMEOUT_S, trust_env=heeds_environment(url))


def fetch_document(url: str) -> Any:
    """Returns a JSON document of the provider. Raises httpx.HTTPError, ValueError. Follows no redirects: they would name another address."""
    with _client(url) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        content = bytearray()
        for piece in answer.iter_bytes():
            content += piece
            if len(content) > _MAX_BYTES:
                raise ValueError("the document is too large")
    return strict_json.loads(bytes(content), max_depth=strict_json.MAX_JSON_DEPTH)


def _usable(document: Any, algorithms: Sequence[str]) -> Sequence[jwt.PyJWK]:
    """Returns the public signing keys of a key set. Other keys, above all symmetric ones, must not be used to check a token.

    Raises ValueError if this is not a key set or contains no such key. A malformed key is skipped.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ValueError("this is not a key set")
    keys = [key for entry in entries if (key := _signing_key(entry, algorithms)) is not None]
    if not keys:
        raise ValueError("the key set has no usable key")
    return keys


def _signing_key(entry: Any, algorithms: Sequence[str]) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") not in (None, "sig"):
        return None
    operations = entry.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    if not isinstance(entry.get("kid"), str | None) or entry.get("alg") not in (None, *algorithms):
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None  # broken, or a kind of key that is newer than this program
    return key if key.algorithm_name in algorithms else None
