"""Keys of an identity provider, and limits per caller: what the clock decides, with a clock of the test's own."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from api.authentication import TokenAuthenticator, UnsafeStartError, authenticator
from api.identity import Identity
from api.jwks import Jwks
from api.problems import ProblemError
from api.rate_limits import RateLimits
from orchestrator.model import Role
from orchestrator.settings import Settings
from tests.support.identity_provider import PRIVATE, Provider, public, running_provider, signed


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


token = partial(signed, issuer="i", audience="a")


def answer(checks: TokenAuthenticator, *tokens: str) -> list[str]:
    """The subject, or the code of the problem, for each token in turn."""

    async def ask() -> list[str]:
        answers = []
        for each in tokens:
            try:
                answers.append((await checks.authenticate(f"Bearer {each}")).subject)
            except ProblemError as problem:
                answers.append(problem.code)
        return answers

    return asyncio.run(ask())


def checker(provider: Provider, clock: Clock) -> TokenAuthenticator:
    return TokenAuthenticator(Jwks(f"{provider.url}/keys", clock=clock), issuer="i", audience="a")


def test_each_kind_of_key_is_accepted_and_asked_for_once(provider: Provider) -> None:
    assert answer(checker(provider, Clock()), *map(token, PRIVATE)) == ["coord-1"] * 3
    assert provider.asked == ["/keys"]


def _public_pem() -> bytes:
    key: rsa.RSAPublicKey = PRIVATE["RS256"].public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _signed_with_the_public_key() -> str:
    # PyJWT refuses to make such a token; a forger does not use PyJWT.
    head, payload, _ = token("RS256").split(".")
    forged = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "kid": "RS256"}).encode()).decode()
    mac = hmac.digest(_public_pem(), f"{forged}.{payload}".encode(), hashlib.sha256)
    assert head != forged
    return f"{forged}.{payload}.{jwt.utils.base64url_encode(mac).decode()}"


def _lying_about_its_algorithm() -> str:
    _, payload, _ = token("RS256").split(".")
    signed = f"{jwt.utils.base64url_encode(json.dumps({'alg': 'ES256', 'kid': 'RS256'}).encode()).decode()}.{payload}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), PRIVATE["RS256"])
    return f"{signed}.{jwt.utils.base64url_encode(signature).decode()}"


FORGED: dict[str, Callable[[], str]] = {
    "HS256 with the public key": _signed_with_the_public_key,
    "another's key under a known id": lambda: token("ES256", ec.generate_private_key(ec.SECP256R1())),
    "one algorithm with the key of another": lambda: token("ES256", kid="RS256"),
    "signed well, with another algorithm in its head": _lying_about_its_algorithm,
    "a key of its own, carried along": lambda: token(
        "EdDSA",
        (key := ed25519.Ed25519PrivateKey.generate()),
        jwk=jwt.get_algorithm_by_name("EdDSA").to_jwk(key.public_key(), as_dict=True),
    ),
    "an unknown key": lambda: token("ES256", kid="unknown"),
    "a symmetric key of the set": lambda: token("HS256", "secret-of-the-set-that-is-long-enough!", kid="symmetric"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_forged_token_is_refused(provider: Provider, forge: Callable[[], str]) -> None:
    secret = jwt.utils.base64url_encode(b"secret-of-the-set-that-is-long-enough!").decode()
    provider.keys.append({"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": secret})
    assert answer(checker(provider, Clock()), forge()) == ["bad_token"]


def test_no_address_in_a_token_is_ever_asked(provider: Provider) -> None:
    addresses = {name: f"{provider.url}/{name}" for name in ("jku", "x5u")}
    tokens = [token("ES256", kid=f"{provider.url}/kid", **addresses), token("ES256", **addresses)]
    assert answer(checker(provider, Clock()), *tokens) == ["bad_token", "coord-1"]
    assert set(provider.asked) == {"/keys"}


def test_unknown_keys_do_not_make_us_ask_again_and_again(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, *(token("ES256", kid=f"unknown-{n}") for n in range(20))) == ["bad_token"] * 20
    assert len(provider.asked) == 1
    clock.now += 31
    assert answer(checks, token("ES256", kid="unknown")) == ["bad_token"]
    assert len(provider.asked) == 2


def test_rotation(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.keys = [public("EdDSA", "new")]
    clock.now += 31
    # A new key is found as soon as it signs, and the old one is gone with the same answer.
    assert answer(checks, token("EdDSA", kid="new"), token("ES256")) == ["coord-1", "bad_token"]


def test_withdrawn_key_is_refused_when_the_set_has_aged(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.keys = [public("EdDSA", "new")]
    clock.now += 601
    assert answer(checks, token("ES256")) == ["bad_token"]


def test_provider_away(provider: Provider) -> None:
    clock = Clock()
    provider.status = 500
    assert answer(checker(provider, clock), token("ES256")) == ["keys_unavailable"]
    provider.status = 200
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.status = 500
    clock.now += 3_000
    assert answer(checks, token("ES256")) == ["coord-1"]  # known keys last through an outage
    clock.now += 700
    assert answer(checks, token("ES256")) == ["keys_unavailable"]  # but not for ever


GOOD = public("ES256", "ES256")


NO_KEY_SETS = {
    "nothing": b"",
    "a page": b"<html>",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "an error": b'{"error": "busy"}',
    "no keys": b'{"keys": null}',
    "keys that are no list": b'{"keys": {}}',
    "no key": b'{"keys": []}',
    "what are no keys": b'{"keys": [null, 1, "key", [], {}]}',
    "bottomless": b"[" * 100_000,
    "a key without an id": json.dumps({"keys": [GOOD | {"kid": ["ES256"]}]}).encode(),
}


@pytest.mark.parametrize("body", NO_KEY_SETS.values(), ids=NO_KEY_SETS.keys())
def test_what_is_no_key_set_is_an_outage_of_the_provider(provider: Provider, body: bytes) -> None:
    provider.body = body
    assert answer(checker(provider, Clock()), token("ES256")) == ["keys_unavailable"]


@pytest.mark.parametrize(
    "change",
    [
        {"kid": []},
        {"kid": 1},
        {"alg": 5},
        {"alg": []},
        {"alg": "none"},
        {"alg": "RS256"},
        {"crv": []},
        {"x": 1},
        {"y": "æ"},
        {"kty": {}},
    ],
    ids=str,
)
def test_one_key_that_is_none_leaves_the_others(provider: Provider, change: dict[str, Any]) -> None:
    provider.keys = [GOOD | {"kid": "odd"} | change, GOOD]
    assert answer(checker(provider, Clock()), token("ES256")) == ["coord-1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"jwt_jwks_url": "http://login.example/keys"},
        {"jwt_jwks_url": "https://login.example/keys", "jwt_hs256_key": SecretStr("k" * 32)},
        {"api_host": "0.0.0.0"},
    ],
)
def test_unsafe_starts_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsafeStartError, match="BULKREG_"):
        authenticator(Settings().model_copy(update=changes))


def test_rate_limit_is_per_caller_and_says_when_to_come_again() -> None:
    clock = Clock()
    limits = RateLimits({Role.COORDINATOR: 60}, clock=clock)

    def ask(subject: str = "a", role: Role = Role.COORDINATOR, organization: str = "o") -> str | None:
        try:
            limits.check(Identity(subject, role, (organization,), expires_at=0))
        except ProblemError as problem:
            return f"{problem.code} {problem.headers['Retry-After']}"
        return None

    assert [ask() for _ in range(60)] == [None] * 60
    assert ask() == "too_many_requests 1"
    assert ask("b") is ask(organization="p") is ask(role=Role.ADMIN) is None
    clock.now += 1
    assert [ask(), ask()] == [None, "too_many_requests 1"]
    clock.now += 3_600
    assert [ask() for _ in range(61)] == [None] * 60 + ["too_many_requests 1"]
