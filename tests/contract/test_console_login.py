"""Login to the console: a browser's way to the provider and back, what it receives, and each way in which the login can be wrong."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr, ValidationError

from api.access.authentication import UnsafeStartError
from api.app import refuse_unsafe_start
from api.console.attempts import Attempt
from api.console.client_key import ASSERTION_TYPE, ClientKey
from api.console.provider import IdentityProvider
from api.console.routes import ATTEMPT_COOKIE
from api.console.sessions import SESSION_COOKIE
from compose.embedded.provider import DevelopmentProvider
from orchestrator.process.actions import Action
from orchestrator.process.logs import JsonFormatter
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings
from tests.support.api_server import ApiServer, running_api
from tests.support.console import ME, Browser, Provider, browser, question, running_console, running_provider, with_console
from tests.support.databases import fresh_database
from tests.support.log_lines import logged
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def console(infrastructure: Stack, template_database: str) -> Iterator[tuple[ApiServer, Provider]]:
    with (
        fresh_database(infrastructure.postgres_url, template=template_database) as url,
        running_console(with_console(Settings(database_url=SecretStr(url)))) as running,
    ):
        yield running


@pytest.fixture
def provider(console: tuple[ApiServer, Provider]) -> Iterator[Provider]:
    yield console[1]
    console[1].other_claims = {}


@pytest.fixture
def person(console: tuple[ApiServer, Provider]) -> Iterator[Browser]:
    with browser(console[0]) as person:
        yield person


def reason(response: httpx.Response) -> str:
    """The code of the reason for which the login failed."""
    assert response.status_code == 302, response.text
    found = re.fullmatch(r"/console/login-failed\?reason=(\w+)", response.headers["Location"])
    assert found is not None, response.headers["Location"]
    return found[1]


def test_a_login_through_the_provider(console: tuple[ApiServer, Provider], person: Browser) -> None:
    server, provider = console
    asked = person.open(server.url + "/console/login")
    given = question(asked.headers["Location"])
    attempt = Attempt.of_cookie(person.cookies[ATTEMPT_COOKIE])
    assert attempt is not None
    assert asked.headers["Location"].startswith(f"{provider.issuer}/authorize?")
    assert given == {
        "response_type": "code",
        "client_id": "console",
        "redirect_uri": f"{server.url}/console/callback",
        "scope": "openid",
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": attempt.code_challenge,
        "code_challenge_method": "S256",
    }
    assert "SameSite=Lax" in asked.headers["Set-Cookie"]
    last = person.log_in()
    assert last.status_code == 200
    # A redirect would continue the navigation that began at the provider, and then the browser sends no Strict cookie.
    assert 'http-equiv=refresh content="0; url=/console/"' in last.text
    [session, forgotten] = last.headers.get_list("Set-Cookie")
    assert re.fullmatch(f"{SESSION_COOKIE}=[A-Za-z0-9_-]{{43}}; HttpOnly; Path=/; SameSite=Strict; Secure", session)
    assert forgotten.startswith(f'{ATTEMPT_COOKIE}=""; ')
    for response in (asked, last):
        assert (response.headers["Cache-Control"], response.headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    found = person.fetch("GET", ME).json()
    assert (found["subject"], found["role"], found["organization"]["organization_id"]) == (
        COORDINATOR,
        "coordinator",
        ORGANIZATION,
    )


@pytest.mark.parametrize(("subject", "role"), [("boss", "admin"), ("eye", "auditor")])
def test_other_roles(person: Browser, subject: str, role: str) -> None:
    person.log_in(subject)
    assert person.fetch("GET", ME).json()["role"] == role


def test_each_login_begins_its_own_session(person: Browser) -> None:
    person.log_in()
    first = person.cookies[SESSION_COOKIE]
    person.log_in()
    assert person.cookies[SESSION_COOKIE] != first


WRONG_CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "another nonce": ({"nonce": "x"}, "bad_id_token"),
    "no nonce": ({"nonce": None}, "bad_id_token"),
    "another issuer": ({"iss": "https://elsewhere.example"}, "bad_id_token"),
    "for another client": ({"aud": "other"}, "bad_id_token"),
    "for another party": ({"azp": "other"}, "bad_id_token"),
    "for several, without a party": ({"aud": ["console", "other"]}, "bad_id_token"),
    "expired": ({"exp": 1}, "bad_id_token"),
    "no end": ({"exp": None}, "bad_id_token"),
    "no subject": ({"sub": None}, "bad_id_token"),
    "a subject that is no id": ({"sub": ""}, "no_access"),
    "no organization": ({"org": None}, "no_access"),
    "two organizations": ({"org": ["a", "b"]}, "no_access"),
    "an organization with a control character": ({"org": "a\x1fb"}, "no_access"),
    "no role": ({"role": None}, "no_access"),
    "a role that the console does not have": ({"role": "service"}, "no_access"),
    "two roles": ({"role": ["admin", "auditor"]}, "no_access"),
    "a role that is no text": ({"role": {"admin": True}}, "no_access"),
}


@pytest.mark.parametrize(("claims", "expected"), WRONG_CLAIMS.values(), ids=WRONG_CLAIMS.keys())
def test_an_invalid_id_token_is_refused(provider: Provider, person: Browser, claims: dict[str, Any], expected: str) -> None:
    provider.other_claims = claims
    refused = person.log_in()
    assert reason(refused) == expected
    assert person.cookies == {}


@pytest.mark.parametrize(
    "claims", [{"role": ["user", "admin"], "org": [ORGANIZATION]}, {"aud": ["console", "other"], "azp": "console"}]
)
def test_unusual_claims_of_some_providers_are_accepted(provider: Provider, person: Browser, claims: dict[str, Any]) -> None:
    provider.other_claims = claims
    assert person.log_in("boss").status_code == 200
    assert person.fetch("GET", ME).json()["role"] == "admin"


def test_a_callback_that_belongs_to_no_login_of_this_browser_is_refused(
    console: tuple[ApiServer, Provider], person: Browser
) -> None:
    server, provider = console
    callback = f"{server.url}/console/callback?"
    asked = person.open(server.url + "/console/login")
    secret = person.cookies[ATTEMPT_COOKIE]
    sent_back = person.open(f"{asked.headers['Location']}&person={ORGANIZATION}/{COORDINATOR}").headers["Location"]
    for cookie, url in (
        (None, sent_back),
        ("x", sent_back),
        (Attempt.begin().secret, sent_back),
        (secret, callback + urlencode({"code": question(sent_back)["code"]})),
        (secret, callback + "state=%ff&code=x"),
    ):
        person.cookies = {} if cookie is None else {ATTEMPT_COOKIE: cookie}
        assert reason(person.open(url)) == "login_expired"
    # None of the refused callbacks has used up the code.
    person.cookies = {ATTEMPT_COOKIE: secret}
    other = person.open(sent_back.replace("iss=", "iss=x"))
    assert reason(other) == "bad_id_token"
    person.cookies = {ATTEMPT_COOKIE: secret}
    refused = callback + urlencode({"state": question(sent_back)["state"], "iss": provider.issuer, "error": "access_denied"})
    assert reason(person.open(refused)) == "refused"
    person.cookies = {ATTEMPT_COOKIE: secret}
    assert person.open(sent_back).status_code == 200
    # A code works once.
    person.cookies = {ATTEMPT_COOKIE: secret}
    assert reason(person.open(sent_back)) == "login_expired"


def test_a_code_needs_the_verifier_of_its_login(
    person: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = person.open(person.url + "/console/login")
    sent_back = person.open(f"{asked.headers['Location']}&person={ORGANIZATION}/boss").headers["Location"]
    monkeypatch.setattr(Attempt, "code_verifier", "x" * 43)
    assert reason(person.open(sent_back)) == "login_expired"
    assert [line["reason"] for line in logged(caplog, Action.CONSOLE_LOGIN_REFUSED)] == ["login_expired"]


def test_an_unavailable_provider_is_reported(settings: Settings) -> None:
    with_provider = with_console(settings)
    with running_api(with_provider, port=with_provider.api_port) as server, browser(server) as person:
        assert reason(person.open(server.url + "/console/login")) == "provider_unavailable"
        with running_provider(with_provider):
            assert person.log_in().status_code == 200
        # The provider's addresses are cached for a while, but the code can't be exchanged.
        asked = person.open(server.url + "/console/login")
        state = question(asked.headers["Location"])["state"]
        assert reason(person.open(f"{server.url}/console/callback?state={state}&code=x")) == "provider_unavailable"
        assert person.fetch("GET", ME).status_code == 200


def test_the_providers_addresses_are_read_again_every_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it can't be reached: otherwise each login would wait for it, one after the other."""
    settings = with_console(Settings())
    issuer = settings.oidc_issuer or ""
    now, read_at, away = [1_000.0], list[float](), list[bool]()

    def fetch(url: str) -> object:
        assert url == issuer + "/.well-known/openid-configuration"
        read_at.append(now[0])
        if away:
            raise httpx.ConnectError("away")
        ends = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
        return {"issuer": issuer, **{name: issuer + path for name, path in ends.items()}}

    async def log_in() -> None:
        provider = IdentityProvider(settings)
        for now[0] in (1_000.0, 1_599.0, 1_600.0):
            assert (await provider.login_url(Attempt.begin())).startswith(issuer + "/authorize?")
        away.append(True)
        for now[0] in (2_200.0, 2_300.0, 2_800.0):
            assert (await provider.login_url(Attempt.begin())).startswith(issuer + "/authorize?")

    monkeypatch.setattr("api.console.provider.fetch_document", fetch)
    monkeypatch.setattr("api.console.provider.time", SimpleNamespace(monotonic=lambda: now[0]))
    asyncio.run(log_in())
    assert read_at == [1_000, 1_600, 2_200, 2_800]


KEYS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(public_exponent=65_537, key_size=2_048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def pem(key: Any) -> SecretStr:
    """A private key as an operator sets it."""
    return SecretStr(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_client_proves_itself_by_its_key(settings: Settings, algorithm: str) -> None:
    key = pem(KEYS[algorithm]())
    signing = with_console(settings, oidc_client_secret=None, oidc_client_key=key, oidc_client_key_id="console-1")
    with running_console(signing) as (server, provider), browser(server) as person:
        assert person.log_in("boss").status_code == 200
        assert person.fetch("GET", ME).json()["subject"] == "boss"

        def told(assertion: str) -> tuple[int, str]:
            form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion, "code": "x"}
            response = httpx.post(provider.issuer + "/token", data=form)
            return response.status_code, response.json()["error"]

        client_key = ClientKey.read(key.get_secret_value(), "console-1")
        assertion = client_key.assertion("console", provider.issuer + "/token")
        assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "console-1", "typ": "JWT"}
        assert told(assertion) == (400, "invalid_grant"), "the client is accepted, and the code is not"
        assert told(assertion) == (401, "invalid_client"), "an assertion is for one request"
        assert told(client_key.assertion("console", "https://other.example/token")) == (401, "invalid_client")
        other = ClientKey.read(pem(KEYS[algorithm]()).get_secret_value(), None)
        assert told(other.assertion("console", provider.issuer + "/token")) == (401, "invalid_client")


def test_a_key_that_can_not_be_used_stops_the_start(settings: Settings) -> None:
    unusable = {
        "must be an RSA key of at least 2048 bits": [
            pem(rsa.generate_private_key(public_exponent=65_537, key_size=1_024)),
            pem(ec.generate_private_key(ec.SECP384R1())),
        ],
        "is not a private key": [SecretStr("x"), SecretStr("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----")],
    }
    for message, keys in unusable.items():
        for key in keys:
            with pytest.raises(RefusedStartError, match=message) as refused:
                refuse_unsafe_start(with_console(settings, oidc_client_secret=None, oidc_client_key=key))
            assert key.get_secret_value() not in str(refused.value)
    given = with_console(settings).model_dump(include={"oidc_issuer", "oidc_client_id", "oidc_client_secret", "public_url"})
    with pytest.raises(ValidationError, match="by one of them"):
        Settings(**given, oidc_client_key=pem(KEYS["ES256"]()))


def test_neither_secrets_nor_names_are_logged(person: Browser, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="bulkreg"):
        asked = person.open(person.url + "/console/login")
        attempt = Attempt.of_cookie(person.cookies[ATTEMPT_COOKIE])
        assert attempt is not None
        sent_back = person.open(f"{asked.headers['Location']}&person={ORGANIZATION}/{COORDINATOR}").headers["Location"]
        person.open(sent_back)
        session = person.cookies[SESSION_COOKIE]
        person.fetch("GET", ME)
        person.fetch("POST", "/console/logout")
    lines = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    assert all(action in lines for action in ("console_login", "console_logout", "/console/callback"))
    for secret in (attempt.secret, attempt.state, attempt.nonce, attempt.code_verifier, question(sent_back)["code"], session):
        assert secret not in lines
    assert "Coordinator" not in lines


def test_without_settings_there_is_no_console(refusing_api: ApiServer) -> None:
    for path in ("/console/", "/console/login", "/console/callback"):
        assert httpx.get(refusing_api.url + path).status_code == 404
    with browser(refusing_api) as person:
        person.cookies = {SESSION_COOKIE: "x" * 43}
        assert person.fetch("GET", ME).json()["code"] == "no_token"


def test_incomplete_or_unsafe_settings_are_refused(settings: Settings) -> None:
    whole = with_console(settings)
    refuse_unsafe_start(whole)
    given = whole.model_dump(include={"oidc_issuer", "oidc_client_id", "public_url"})
    for missing in ("oidc_client_id", "public_url"):
        with pytest.raises(ValidationError, match=f"the console also needs {missing}"):
            Settings(**{name: value for name, value in given.items() if name != missing})
    with pytest.raises(ValidationError):
        Settings(**{**given, "public_url": "https://bulkreg.example/console"})
    for name, variable in (("oidc_issuer", "BULKREG_OIDC_ISSUER"), ("public_url", "BULKREG_PUBLIC_URL")):
        with pytest.raises(UnsafeStartError, match=f"{variable} must be https"):
            refuse_unsafe_start(whole.model_copy(update={name: "http://bulkreg.example"}))


def test_the_development_provider_serves_loopback_only(console: tuple[ApiServer, Provider], settings: Settings) -> None:
    whole = with_console(settings)
    for name in ("oidc_issuer", "public_url"):
        with pytest.raises(RefusedStartError, match="is not on loopback"):
            DevelopmentProvider(whole.model_copy(update={name: "https://bulkreg.example"}), list)
    _, provider = console
    rebound = httpx.get(provider.issuer + "/jwks", headers={"Host": "attacker.example"})
    assert (rebound.status_code, rebound.text) == (421, "this provider serves loopback only")
    usual = {"client_id": "console", "response_type": "code", "code_challenge": "x", "code_challenge_method": "S256"}
    usual["redirect_uri"] = f"{console[0].url}/console/callback"
    assert "Who are you?" in httpx.get(provider.issuer + "/authorize", params=usual).text
    for name in usual:
        assert httpx.get(provider.issuer + "/authorize", params={**usual, name: "other"}).status_code == (
            200 if name == "code_challenge" else 400
        )
    assert (
        httpx.get(provider.issuer + "/logout", params={"post_logout_redirect_uri": "https://attacker.example"}).status_code == 400
    )
    assert httpx.post(provider.issuer + "/token", data={"code": "x"}, auth=("console", "other")).status_code == 401
