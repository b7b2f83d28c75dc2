"""Tokens and tickets: what each claim means, how long a checked token is trusted, and whom a caller may name."""

import asyncio
import time
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, cast
from uuid import UUID

import jwt
import pytest
from multidict import CIMultiDict
from pydantic import SecretStr

from api.access import authentication
from api.access.authentication import SharedKey, TokenAuthenticator, authenticator
from api.access.identity import ORGANIZATION_HEADER, Identity
from api.access.tickets import Tickets, ticket_key
from api.access.tokens import make_development_token
from api.endpoints.calls import Call, Service
from api.http.problems import ProblemError
from orchestrator.batches.model import Actor, Role
from orchestrator.process.settings import Settings
from schemas.api.reading import RefusedRequestError

KEY = "a key for tests only, 32 bytes or more"
NOW = 1_800_000_000
LEEWAY_S = 10
BATCH = UUID("0190a1b2-0000-7000-8000-00000000abcd")
COORDINATOR_CLAIMS = {"iss": "i", "aud": "a", "exp": NOW + 600, "sub": "c", "role": "coordinator", "org": "o"}
SERVICE_CLAIMS = {"iss": "i", "aud": "a", "exp": NOW + 600, "sub": "s", "role": "service", "orgs": ["o", "p"]}


class Counted(SharedKey):
    """The development key, and how many tokens it was asked for."""

    asked = 0

    async def key(self, header: Mapping[str, Any]) -> Any:
        self.asked += 1
        return await super().key(header)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time at which a checked token is trusted. Signatures are checked at the end of time."""
    moment = [float(NOW)]
    monkeypatch.setattr("api.access.authentication.time.time", lambda: moment[0])
    monkeypatch.setattr("jwt.api_jwt.PyJWT._validate_exp", lambda *_: None)
    return moment


def checking(keys: SharedKey) -> TokenAuthenticator:
    return TokenAuthenticator(keys, issuer="i", audience="a", leeway_s=LEEWAY_S)


def identity(checks: TokenAuthenticator, claims: Mapping[str, Any]) -> Identity:
    return asyncio.run(checks.authenticate(f"Bearer {jwt.encode(dict(claims), KEY)}"))


def test_each_claim_becomes_its_field(at: list[float]) -> None:
    checks = checking(SharedKey(KEY))
    ends = NOW + 600.0 + LEEWAY_S
    assert identity(checks, COORDINATOR_CLAIMS) == Identity("c", Role.COORDINATOR, ("o",), ends)
    assert identity(checks, SERVICE_CLAIMS) == Identity("s", Role.SERVICE, ("o", "p"), ends)
    # A person's claims do not make a service, nor a service's claims a person.
    assert identity(checks, COORDINATOR_CLAIMS | {"orgs": ["x"]}).organizations == ("o",)
    assert identity(checks, SERVICE_CLAIMS | {"org": "x"}).organizations == ("o", "p")


ORGANIZATIONS: dict[str, tuple[Any, str | None]] = {
    "one character": ("x", "x"),
    "none": ("", None),
    "as long as may be": ("x" * 100, "x" * 100),
    "too long": ("x" * 101, None),
    "no text": (5, None),
    "a control character": ("a\x1fb", None),
    "DEL": ("a\x7fb", None),
    "NUL": ("a\0b", None),
    "decomposed": (unicodedata.normalize("NFD", "ås"), "ås"),
}


@pytest.mark.parametrize(("given", "read"), ORGANIZATIONS.values(), ids=ORGANIZATIONS)
def test_the_organization_of_a_token(at: list[float], given: Any, read: str | None) -> None:
    checks = checking(SharedKey(KEY))
    for claims in (COORDINATOR_CLAIMS | {"org": given}, SERVICE_CLAIMS | {"orgs": ["o", given]}):
        if read is None:
            with pytest.raises(ProblemError) as refused:
                identity(checks, claims)
            assert refused.value.code == "bad_token"
        else:
            assert identity(checks, claims).organizations[-1] == read


def test_a_token_is_checked_once_in_half_a_minute(at: list[float]) -> None:
    keys = Counted(KEY)
    checks = checking(keys)
    asked = []
    for moment in (0, 29.5, 30, 30.5, 59.5, 60):
        at[0] = NOW + moment
        identity(checks, COORDINATOR_CLAIMS)
        asked.append(keys.asked)
    # A withdrawn key is still accepted for this long, and no longer.
    assert asked == [1, 1, 2, 2, 2, 3]


def test_another_token_is_not_trusted_because_one_was(at: list[float]) -> None:
    keys = Counted(KEY)
    checks = checking(keys)
    assert identity(checks, COORDINATOR_CLAIMS).role is Role.COORDINATOR
    assert identity(checks, COORDINATOR_CLAIMS | {"role": "admin"}).role is Role.ADMIN
    assert keys.asked == 2


def test_the_most_recently_checked_tokens_are_trusted(at: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "_MOST_BELIEVED", 2)
    keys = Counted(KEY)
    checks = checking(keys)

    def is_checked(subject: str) -> bool:
        before = keys.asked
        identity(checks, COORDINATOR_CLAIMS | {"sub": subject})
        return keys.asked > before

    assert [is_checked(each) for each in ("a", "b", "a", "b")] == [True, True, False, False]
    at[0] += 30
    # "a" is checked again, so "b" is the oldest when there are too many.
    assert [is_checked(each) for each in ("a", "c", "a", "c", "b")] == [True, True, False, False, True]


def test_the_settings_say_which_tokens_are_accepted() -> None:
    given = {"jwt_issuer": "the-issuer", "jwt_audience": "the-audience", "jwt_leeway_s": 40}
    settings = Settings(jwt_hs256_key=SecretStr(KEY)).model_copy(update=given)
    checks = authenticator(settings)
    now = int(time.time())
    good = {"iss": "the-issuer", "aud": "the-audience", "exp": now - 20, "sub": "c", "role": "coordinator", "org": "o"}
    assert asyncio.run(checks.authenticate(f"Bearer {jwt.encode(good, KEY)}")).expires_at == now + 20
    for change in ({"iss": "x"}, {"aud": "x"}, {"exp": now - 60}):
        with pytest.raises(ProblemError, match="bad_token"):
            asyncio.run(checks.authenticate(f"Bearer {jwt.encode(good | change, KEY)}"))
    keys_elsewhere = Settings().model_copy(update={"jwt_jwks_url": "https://login.example.org/keys", "api_host": "0.0.0.0"})
    assert isinstance(authenticator(keys_elsewhere), TokenAuthenticator)


# --- Whom a caller may name -------------------------------------------------------------------------------------------------------

UNKNOWN = "org-unknown"


def named(caller: Identity, header: str | None, in_body: str | None) -> str:
    """The organization, or the code of the refusal."""
    try:
        actor = caller.actor(header=header, in_body=in_body)
    except ProblemError as refused:
        return " ".join([refused.code, *(each.pointer for each in refused.errors)])
    assert (actor.subject, actor.role) == (caller.subject, caller.role)
    return actor.organization_id


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("organizations", [("o",), ("*",), ("o", "p"), ("o", "*"), ()])
def test_the_organization_of_a_request(role: Role, organizations: tuple[str, ...]) -> None:
    caller = Identity("somebody", role, organizations, 0)
    is_any = role is Role.SERVICE and "*" in organizations
    for header, in_body in product((None, "o", UNKNOWN, "*"), repeat=2):
        if header is not None and in_body is not None and header != in_body:
            expected = "organization_differs /organization_id"
        elif (wanted := in_body or header) is None:
            expected = "o" if organizations == ("o",) else "organization_required /organization_id"
        elif wanted == "*" or not (is_any or wanted in organizations):
            expected = "not_your_organization"
        else:
            expected = wanted
        assert named(caller, header, in_body) == expected, (header, in_body)


def with_headers(*headers: tuple[str, str]) -> Call:
    caller = Identity("s", Role.SERVICE, ("o", "p"), 0)
    return Call(cast("Service", None), caller, {}, (), CIMultiDict(headers), b"")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("o",), "o"),
        (("o", "o"), "o"),
        (("o", "p"), "repeated"),
        (("p", "o"), "repeated"),
        (("o", ""), "repeated"),
        (("o", "o", "p"), "repeated"),
    ],
)
def test_a_header_has_one_value(values: Sequence[str], expected: str | None) -> None:
    """In every case of its name."""
    for name in (ORGANIZATION_HEADER, "Idempotency-Key"):
        call = with_headers(*zip((name, name.lower(), name.upper()), values, strict=False))
        if expected != "repeated":
            assert call.header(name) == expected
            continue
        with pytest.raises(RefusedRequestError) as refused:
            call.actor() if name == ORGANIZATION_HEADER else call.idempotency("submit")
        assert [(each.pointer, each.code) for each in refused.value.mistakes] == [(f"/headers/{name}", "repeated")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("x" * 100, "x" * 100),
        ("x" * 101, "not_your_organization"),
        ("", "not_your_organization"),
        ("a\x1fb", "not_your_organization"),
        ("a\x7fb", "not_your_organization"),
        ("a\udcffb", "not_your_organization"),
        (unicodedata.normalize("NFD", "ås"), "ås"),
    ],
    ids=ascii,
)
def test_an_invalid_organization_id_is_refused(header: str, expected: str) -> None:
    assert named(Identity("s", Role.SERVICE, ("*",), 0), header, None) == expected


def test_one_organization_in_two_spellings_is_the_same() -> None:
    assert named(Identity("s", Role.SERVICE, ("ås",), 0), unicodedata.normalize("NFD", "ås"), "ås") == "ås"


# --- Tokens of our own --------------------------------------------------------------------------------------------------------------


def test_a_development_token_names_its_person_and_its_lifetime() -> None:
    settings = Settings(jwt_hs256_key=SecretStr(KEY), jwt_issuer="i", jwt_audience="a")
    before = int(time.time())
    made = make_development_token(settings, sub="s", role=Role.SERVICE, orgs=("o", "p"), ttl_s=60)
    claims = jwt.decode(made, KEY, algorithms=["HS256"], audience="a")
    began = claims["iat"]
    assert before <= began <= time.time()
    expected = {
        "iss": "i",
        "aud": "a",
        "iat": began,
        "nbf": began,
        "exp": began + 60,
        "sub": "s",
        "role": "service",
        "orgs": ["o", "p"],
    }
    assert claims == expected
    for role in (Role.COORDINATOR, Role.ADMIN, Role.AUDITOR):
        made = make_development_token(settings, sub="s", role=role, orgs=("o",), ttl_s=60)
        claims = jwt.decode(made, KEY, algorithms=["HS256"], audience="a")
        assert (claims["role"], claims["org"], "orgs" in claims) == (role.value, "o", False)


@pytest.mark.parametrize(("role", "orgs"), [(Role.SERVICE, ()), (Role.ADMIN, ()), (Role.COORDINATOR, ("o", "p"))])
def test_a_development_token_of_no_or_several_organizations(role: Role, orgs: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="organization"):
        make_development_token(Settings(jwt_hs256_key=SecretStr(KEY)), sub="s", role=role, orgs=orgs, ttl_s=60)
    with pytest.raises(ValueError, match="BULKREG_JWT_HS256_KEY"):
        make_development_token(Settings(), sub="s", role=Role.ADMIN, orgs=("o",), ttl_s=60)


# --- Tickets ------------------------------------------------------------------------------------------------------------------------


def test_a_ticket_belongs_to_its_caller_for_a_minute() -> None:
    tickets = Tickets(b"k" * 32)
    before = time.time()
    for role in Role:
        ticket, expires_at = tickets.issue(Actor("o", "s", role), BATCH, stream_ends_at=NOW + 0.5)
        assert before + 59 <= expires_at <= time.time() + 60
        assert jwt.decode(ticket, options={"verify_signature": False})["exp"] == expires_at
        for spelling in (str(BATCH), str(BATCH).upper()):
            assert tickets.identity(ticket, spelling) == Identity("s", role, ("o",), NOW + 0.5)


@pytest.mark.parametrize("left_out", ["exp", "aud", "sub"])
def test_an_incomplete_ticket_is_refused(left_out: str) -> None:
    tickets = Tickets(b"k" * 32)
    ticket, _ = tickets.issue(Actor("o", "s", Role.ADMIN), BATCH, stream_ends_at=NOW)
    claims = jwt.decode(ticket, options={"verify_signature": False})
    del claims[left_out]
    for bad in (jwt.encode(claims, tickets.key), ticket + "é", ticket[:-4] + "AAAA"):
        with pytest.raises(ProblemError) as refused:
            tickets.identity(bad, str(BATCH))
        assert refused.value.code == "bad_token"


def test_processes_with_the_same_secret_accept_each_others_tickets() -> None:
    one, other = (Settings(jwt_hs256_key=SecretStr(letter * 32)) for letter in "ab")
    assert ticket_key(one) == ticket_key(one.model_copy()) != ticket_key(other)
    without = Settings(api_database_url=SecretStr("postgresql://api@localhost/x"))
    assert ticket_key(without) != ticket_key(without), "without a configured secret, each process must draw its own"
