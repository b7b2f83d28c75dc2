"""Keys of an identity provider, and limits per caller: what depends on time, with a clock of the test's own."""

import asyncio
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from api.access import jwks, rate_limits
from api.access.authentication import TokenAuthenticator, UnsafeStartError, authenticator
from api.access.identity import Identity
from api.access.jwks import Jwks
from api.access.rate_limits import RateLimits
from api.http.problems import ProblemError
from orchestrator.batches.model import Role
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from tests.support.identity_provider import PRIVATE, Provider, public, running_provider, signed
from tests.support.log_lines import logged
from tests.support.waiting import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as running:
        yield running


LEEWAY_S = 10

token = partial(signed, issuer="i", audience="a")


def answer(checks: TokenAuthenticator, *tokens: str) -> list[str]:
    """The subject, or the problem's code, for each token in turn."""

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
    return TokenAuthenticator(Jwks(f"{provider.url}/keys", clock=clock), issuer="i", audience="a", leeway_s=LEEWAY_S)


def test_each_kind_of_key_is_accepted_and_fetched_once(provider: Provider) -> None:
    assert answer(checker(provider, Clock()), *map(token, PRIVATE)) == ["coord-1"] * 3
    assert provider.asked == ["/keys"]


def _public_pem() -> bytes:
    key: rsa.RSAPublicKey = PRIVATE["RS256"].public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _signed_with_the_public_key() -> str:
    # PyJWT refuses to make such a token, but a forger does not use PyJWT.
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
def test_a_forged_token_is_refused(provider: Provider, forge: Callable[[], str]) -> None:
    secret = jwt.utils.base64url_encode(b"secret-of-the-set-that-is-long-enough!").decode()
    provider.keys.append({"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": secret})
    assert answer(checker(provider, Clock()), forge()) == ["bad_token"]


def test_no_address_in_a_token_is_ever_fetched(provider: Provider) -> None:
    addresses = {name: f"{provider.url}/{name}" for name in ("jku", "x5u")}
    tokens = [token("ES256", kid=f"{provider.url}/kid", **addresses), token("ES256", **addresses)]
    assert answer(checker(provider, Clock()), *tokens) == ["bad_token", "coord-1"]
    assert set(provider.asked) == {"/keys"}


def test_unknown_keys_do_not_cause_repeated_fetches(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, *(token("ES256", kid=f"unknown-{n}") for n in range(20))) == ["bad_token"] * 20
    assert len(provider.asked) == 1
    clock.now += 31
    assert answer(checks, token("ES256", kid="unknown")) == ["bad_token"]
    assert len(provider.asked) == 2


def test_a_rotated_key_replaces_the_old_one(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.keys = [public("EdDSA", "new")]
    clock.now += 31
    # A new key is found as soon as it signs, and the same fetch removes the old one.
    assert answer(checks, token("EdDSA", kid="new"), token("ES256")) == ["coord-1", "bad_token"]


def test_a_withdrawn_key_is_refused_when_the_set_is_old(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.keys = [public("EdDSA", "new")]
    clock.now += 601
    assert answer(checks, token("ES256")) == ["bad_token"]


def test_an_unavailable_provider(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    provider.status = 500
    assert answer(checker(provider, clock), token("ES256")) == ["keys_unavailable"]
    assert [line["error"] for line in logged(caplog, Action.JWKS_REFRESH_FAILED)] == ["HTTPStatusError"]
    provider.status = 200
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.status = 500
    clock.now += 3_600
    assert answer(checks, token("ES256")) == ["coord-1"]  # Known keys work during an outage,
    clock.now += 0.5
    assert answer(checks, token("ES256")) == ["keys_unavailable"]  # but not forever.


def asked_at(provider: Provider, clock: Clock, checks: TokenAuthenticator, *moments: float, kid: str = "ES256") -> list[int]:
    """How often the provider was asked after a new token arrived at each of these times."""
    began, asked = clock.now, []
    for moment in moments:
        clock.now = began + moment
        answer(checks, token("ES256", kid=kid))
        asked.append(len(provider.asked))
    return asked


def test_keys_are_fetched_again_when_they_are_old_and_not_before(provider: Provider) -> None:
    clock = Clock()
    assert asked_at(provider, clock, checker(provider, clock), 0, 599, 600, 600.5, 1_200.5, 1_201) == [1, 1, 1, 2, 2, 3]


def test_unknown_keys_cause_a_fetch_every_half_minute(provider: Provider) -> None:
    clock = Clock()
    assert asked_at(provider, clock, checker(provider, clock), 0, 29.5, 30, 59.5, 60, kid="?") == [1, 1, 2, 2, 3]


def test_an_unavailable_provider_is_not_asked_for_each_token(provider: Provider) -> None:
    clock = Clock()
    provider.status = 500
    assert asked_at(provider, clock, checker(provider, clock), 0, 0, 29.5, 30, 30) == [1, 1, 1, 2, 2]


def test_known_keys_work_for_an_hour_without_their_provider(provider: Provider) -> None:
    clock = Clock()
    checks = checker(provider, clock)
    assert answer(checks, token("ES256")) == ["coord-1"]
    provider.status = 500
    clock.now += 3_600
    assert answer(checks, token("ES256")) == ["coord-1"]
    clock.now += 0.5
    with pytest.raises(ProblemError) as refused:
        asyncio.run(checks.authenticate(f"Bearer {token('ES256')}"))
    assert (refused.value.code, refused.value.headers) == ("keys_unavailable", {"Retry-After": "2"})


def test_simultaneous_requests_wait_for_one_fetch(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, all_have_come = jwks.fetch_document, threading.Event()

    def slow(url: str) -> Any:
        assert all_have_come.wait(PATIENCE_S)
        return fetch(url)

    monkeypatch.setattr(jwks, "fetch_document", slow)
    checks = checker(provider, Clock())

    async def ask() -> list[Identity]:
        asking = [asyncio.create_task(checks.authenticate(f"Bearer {token('ES256')}")) for _ in range(5)]
        await asyncio.sleep(0)
        all_have_come.set()
        return await asyncio.gather(*asking)

    assert [each.subject for each in asyncio.run(ask())] == ["coord-1"] * 5
    assert provider.asked == ["/keys"]


def test_a_redirect_is_not_followed(provider: Provider) -> None:
    provider.status, provider.location = 302, f"{provider.url}/elsewhere"
    assert answer(checker(provider, Clock()), token("ES256")) == ["keys_unavailable"]
    assert provider.asked == ["/keys"]


@pytest.mark.parametrize(("size", "expected"), [(256 * 1024, "coord-1"), (256 * 1024 + 1, "keys_unavailable")])
def test_the_size_of_a_key_set_is_limited(provider: Provider, size: int, expected: str) -> None:
    body = json.dumps({"keys": [GOOD]}).encode()
    provider.body = body + b" " * (size - len(body))
    assert answer(checker(provider, Clock()), token("ES256")) == [expected]


# --- Which key ---------------------------------------------------------------------------------------------------------------------

NAMELESS = {algorithm: {name: value for name, value in public(algorithm, "").items() if name != "kid"} for algorithm in PRIVATE}
OTHER_EC = jwt.get_algorithm_by_name("ES256").to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)

KEY_SETS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "one key without an id, and a token without": ([NAMELESS["ES256"]], {"kid": None}, "coord-1"),
    "one key without an id, and a token with one": ([NAMELESS["ES256"]], {"kid": "any"}, "coord-1"),
    "one key with an id, and a token without": ([public("ES256", "a")], {"kid": None}, "coord-1"),
    "one key with another id": ([public("ES256", "a")], {"kid": "b"}, "bad_token"),
    "its id is null": ([NAMELESS["ES256"] | {"kid": None}], {"kid": None}, "coord-1"),
    "one for each algorithm, none with an id": (list(NAMELESS.values()), {"kid": None}, "coord-1"),
    "one for each algorithm, and a token with an id": (list(NAMELESS.values()), {"kid": "x"}, "coord-1"),
    "one of the same algorithm has its id": ([OTHER_EC, public("ES256", "a")], {"kid": "a"}, "coord-1"),
    "two of its algorithm, and a token without an id": (
        [OTHER_EC | {"kid": "b"}, public("ES256", "a")],
        {"kid": None},
        "bad_token",
    ),
    "another key has its id, of another algorithm": ([public("RS256", "a"), public("ES256", "b")], {"kid": "a"}, "bad_token"),
    "the same id for two algorithms": ([public("ES256", "a"), public("RS256", "a")], {"kid": "a"}, "coord-1"),
    "two of its id and algorithm, of which the last one counts": (
        [OTHER_EC | {"kid": "a"}, public("ES256", "a")],
        {"kid": "a"},
        "coord-1",
    ),
    "two of its id and algorithm, of which the first one signed": (
        [public("ES256", "a"), OTHER_EC | {"kid": "a"}],
        {"kid": "a"},
        "bad_token",
    ),
    "an encryption key beside it": ([NAMELESS["ES256"], OTHER_EC | {"use": "enc"}], {"kid": None}, "coord-1"),
    "a key for other operations beside it": (
        [NAMELESS["ES256"], OTHER_EC | {"key_ops": ["deriveKey"]}],
        {"kid": None},
        "coord-1",
    ),
    "its operations are named": ([NAMELESS["ES256"] | {"key_ops": ["verify"]}], {"kid": None}, "coord-1"),
    "an algorithm that is not accepted beside it": (
        [NAMELESS["ES256"], NAMELESS["RS256"] | {"alg": "RSA-OAEP"}],
        {"kid": None},
        "coord-1",
    ),
    "its algorithm is named": ([NAMELESS["ES256"] | {"alg": "ES256"}], {"kid": None}, "coord-1"),
    "its use is not named": ([{**NAMELESS["ES256"], "use": None}], {"kid": None}, "coord-1"),
    "the only key is not the one that signed": ([OTHER_EC], {"kid": None}, "bad_token"),
    "the only key is of another algorithm": ([NAMELESS["RS256"]], {"kid": None}, "bad_token"),
}


@pytest.mark.parametrize(("keys", "header", "expected"), KEY_SETS.values(), ids=KEY_SETS)
def test_the_key_of_a_token(provider: Provider, keys: list[dict[str, Any]], header: dict[str, Any], expected: str) -> None:
    provider.keys = keys
    assert answer(checker(provider, Clock()), token("ES256", **header)) == [expected]


def test_a_token_whose_key_id_is_no_text_is_refused(provider: Provider) -> None:
    _, payload, signature = token("ES256").split(".")
    head = jwt.utils.base64url_encode(json.dumps({"alg": "ES256", "kid": ["ES256"]}).encode()).decode()
    assert answer(checker(provider, Clock()), f"{head}.{payload}.{signature}") == ["bad_token"]


# --- When -----------------------------------------------------------------------------------------------------------------------------

NOW = 1_800_000_000

CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "without nbf": ({"nbf": ...}, "coord-1"),
    "without exp": ({"exp": ...}, "bad_token"),
    "without iss": ({"iss": ...}, "bad_token"),
    "without aud": ({"aud": ...}, "bad_token"),
    "without sub": ({"sub": ...}, "bad_token"),
    "issued in the future": ({"iat": NOW + 1_000}, "coord-1"),
    "issued at a fraction": ({"iat": NOW + 0.5}, "coord-1"),
    "issued at something that is not a time": ({"iat": "yesterday"}, "coord-1"),
    "an id that is a number": ({"jti": 7}, "coord-1"),
    "expires at a fraction": ({"exp": NOW + 60.5}, "coord-1"),
    "expired within the leeway": ({"exp": NOW - LEEWAY_S + 1}, "coord-1"),
    "expired": ({"exp": NOW - LEEWAY_S}, "bad_token"),
    "begins within the leeway": ({"nbf": NOW + LEEWAY_S}, "coord-1"),
    "begins later": ({"nbf": NOW + LEEWAY_S + 1}, "bad_token"),
    "begins at something that is not a time": ({"nbf": "soon"}, "bad_token"),
    "expires never": ({"exp": 1e400}, "bad_token"),
    "several audiences": ({"aud": ["other", "a"]}, "coord-1"),
    "other audiences": ({"aud": ["other", "b"]}, "bad_token"),
    "another issuer": ({"iss": "j"}, "bad_token"),
}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time as the checks see it."""
    clock = Clock()
    clock.now = float(NOW)

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Frozen":
            return cls.fromtimestamp(clock.now, tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", Frozen)
    monkeypatch.setattr("api.access.authentication.time.time", clock)
    return clock


@pytest.mark.parametrize(("changed", "expected"), CLAIMS.values(), ids=CLAIMS)
def test_the_claims_of_a_token(provider: Provider, now: Clock, changed: dict[str, Any], expected: str) -> None:
    claims = {"iss": "i", "aud": "a", "nbf": NOW - 60, "exp": NOW + 60, "sub": "coord-1", "role": "coordinator", "org": "o"}
    kept = {name: value for name, value in (claims | changed).items() if value is not ...}
    made = jwt.encode(kept, PRIVATE["ES256"], algorithm="ES256", headers={"kid": "ES256"})
    assert answer(checker(provider, Clock()), made) == [expected]


@pytest.mark.parametrize("lives_s", [5, 29, 31, 600])
def test_an_accepted_token_is_refused_after_its_end(provider: Provider, now: Clock, lives_s: int) -> None:
    checks = checker(provider, Clock())
    claims = {"iss": "i", "aud": "a", "exp": NOW + lives_s, "sub": "coord-1", "role": "coordinator", "org": "o"}
    made = jwt.encode(claims, PRIVATE["ES256"], algorithm="ES256", headers={"kid": "ES256"})
    assert answer(checks, made) == ["coord-1"]
    now.now = NOW + lives_s + LEEWAY_S - 0.5
    assert answer(checks, made) == ["coord-1"]
    now.now += 0.5
    assert answer(checks, made) == ["bad_token"]


SCHEMES: dict[str, tuple[str, str]] = {
    "lower case": ("bearer {}", "coord-1"),
    "upper case": ("BEARER {}", "coord-1"),
    "several blanks": ("Bearer   {}", "coord-1"),
    "a tab": ("Bearer\t{}", "coord-1"),
    "blanks around it": (" Bearer {}  ", "coord-1"),
    "nothing behind it": ("Bearer", "no_token"),
    "only blanks behind it": ("Bearer  ", "no_token"),
    "no scheme": ("{}", "no_token"),
    "another scheme": ("Basic {}", "no_token"),
    "two tokens": ("Bearer {0} {0}", "no_token"),
    "a comma": ("Bearer {0},{0}", "bad_token"),
}


@pytest.mark.parametrize(("header", "expected"), SCHEMES.values(), ids=SCHEMES)
def test_the_authorization_header_of_a_token(provider: Provider, header: str, expected: str) -> None:
    async def ask() -> str:
        try:
            return (await checker(provider, Clock()).authenticate(header.format(token("ES256")))).subject
        except ProblemError as problem:
            return problem.code

    assert asyncio.run(ask()) == expected


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
def test_an_invalid_key_set_counts_as_an_outage_of_the_provider(provider: Provider, body: bytes) -> None:
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
def test_one_invalid_key_does_not_affect_the_others(provider: Provider, change: dict[str, Any]) -> None:
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


def test_the_rate_limit_is_per_caller_and_returns_a_waiting_time() -> None:
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


def test_a_caller_over_the_limit_is_not_forgotten_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_MAX_REMEMBERED", 2)
    clock = Clock()
    limits = RateLimits({Role.COORDINATOR: 1}, clock=clock)

    def is_welcome(subject: str) -> bool:
        try:
            limits.check(Identity(subject, Role.COORDINATOR, ("o",), expires_at=0))
        except ProblemError:
            return False
        return True

    assert [is_welcome(each) for each in ("early", *"abc")] == [True] * 4
    clock.now += 30
    assert [is_welcome(each) for each in ("early", *"abc", *"defg")] == [False] * 4 + [True] * 4
    clock.now += 30
    assert [is_welcome(each) for each in ("early", *"abc", *"defg")] == [True] * 4 + [False] * 4
