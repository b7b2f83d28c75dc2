"""Requests to other processes: those to loopback never use a proxy, and an unusable proxy is reported in one sentence."""

import asyncio
from collections.abc import Mapping

import pytest
from pydantic import SecretStr, ValidationError

from api.access.authentication import authenticator
from api.access.jwks import Jwks
from api.app import refuse_unsafe_start
from cli.remote.api_client import opened
from cli.remote.target import Target
from cli.terminal.failures import BadInputError
from consumers.external.http_client import refuse_unusable_way
from orchestrator.process.loopback import is_this_machine
from orchestrator.process.outgoing import UnusableWayError, check_address, heeds_environment, without_credentials
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings

ELSEWHERE = "https://provider.example.org/keys"

UNUSABLE = [
    {"ALL_PROXY": "socks5://127.0.0.1:1080"},
    {"HTTPS_PROXY": "socks4://user:secret@127.0.0.1:1080"},
    {"all_proxy": "ftp://127.0.0.1"},
    {"https_proxy": "http://host:notaport"},
    {"HTTPS_PROXY": "http://user:secret#1@127.0.0.1:1"},
    {"HTTPS_PROXY": "http://user:secret@127.0.0.1:65536"},
    {"HTTPS_PROXY": "http://127.0.0.1:65536"},
    {"all_proxy": "127.0.0.1:0"},
    {"HTTPS_PROXY": "http://proxy..example.org:3128"},
    {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "[::1,fe80::/10]:x"},
    {"SSL_CERT_FILE": "/nowhere/ca.pem"},
    {"SSL_CERT_FILE": "/dev/null"},
]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def open_client(url: str) -> None:
    async def use() -> None:
        async with opened(Target(url, "token"), print):
            pass

    asyncio.run(use())


@pytest.mark.parametrize("environment", UNUSABLE, ids=str)
def test_an_unusable_proxy_is_reported_in_a_sentence(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, environment)
    for attempt in (lambda: Jwks(ELSEWHERE), lambda: refuse_unusable_way(ELSEWHERE)):
        with pytest.raises(UnusableWayError) as refused:
            attempt()
        assert all(name in str(refused.value) for name in environment)
        assert "secret" not in str(refused.value)
    with pytest.raises(BadInputError, match=next(iter(environment))):
        open_client(ELSEWHERE)


@pytest.mark.parametrize(
    "environment",
    [
        {"HTTPS_PROXY": "http://user:p[ss@proxy:3128"},
        {"HTTPS_PROXY": "http://user:\u2100@proxy:3128"},
        {"HTTPS_PROXY": "user:p:ss@proxy:3128"},
        {"HTTPS_PROXY": "http://proxy:3128 "},
        {"HTTPS_PROXY": "http://proxy:3128/", "ALL_PROXY": "http://proxy:65536"},
        {"HTTPS_PROXY": "http://proxy:65536", "https_proxy": "http://proxy:3128"},
        {"HTTP_PROXY": "http://proxy:65536"},
        {"HTTPS_PROXY": "http://proxy:65536", "NO_PROXY": "localhost, example.org"},
        {"HTTPS_PROXY": "http://proxy:65536", "NO_PROXY": "provider.example.org:443"},
        {"HTTPS_PROXY": "http://proxy:65536", "NO_PROXY": "other, *"},
    ],
    ids=str,
)
def test_a_proxy_that_can_be_used_or_is_not_used_is_accepted(
    environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, environment)
    url = ELSEWHERE.replace("/keys", ":443/keys")
    Jwks(url)
    refuse_unusable_way(url)
    open_client(url)


@pytest.mark.parametrize("environment", UNUSABLE, ids=str)
def test_no_proxy_is_used_for_this_machine(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, environment)
    for host in ("127.0.0.1", "localhost", "[::1]", "127.9.9.9", "LocalHost."):
        url = f"http://{host}:8080/keys"
        Jwks(url)
        refuse_unusable_way(url)
        open_client(url)


@pytest.mark.parametrize("url", ["https://[::1", "https://host:port/keys"])
def test_an_invalid_address_of_keys_ends_the_start(url: str) -> None:
    with pytest.raises(RefusedStartError, match="BULKREG_JWT_JWKS_URL"):
        authenticator(Settings(jwt_jwks_url=url, database_url=SecretStr("postgresql://x:y@localhost/x")))


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        *(("127.0.0.1", True), ("127.200.0.1", True), ("localhost", True), ("LOCALHOST.", True), ("api.localhost", True)),
        *(("::1", True), ("[::1]", True), ("0:0:0:0:0:0:0:1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", True)),
        *(
            ("10.0.0.1", False),
            ("localhost.example.org", False),
            ("example.org", False),
            ("::2", False),
            ("", False),
            ("128.0.0.1", False),
        ),
    ],
)
def test_which_hosts_are_this_machine(host: str, is_ours: bool) -> None:
    assert is_this_machine(host) is is_ours


def test_a_proxy_is_used_only_for_other_machines() -> None:
    assert heeds_environment(ELSEWHERE)
    assert not heeds_environment("http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "place",
    [
        "127.0.0.1:65536",
        "127.0.0.1:99999",
        "127.0.0.1:0",
        "127.0.0.1:-1",
        "127.0.0.1:x",
        "a..example.org",
        "a" * 64 + ".org",
        "[::1",
    ],
)
def test_an_address_that_nobody_can_call_is_refused_before_it_is_used(place: str) -> None:
    """asyncio raises OverflowError for such a port when it connects, and `getaddrinfo` counts modulo 65536."""
    url = f"https://{place}/"
    with pytest.raises(BadInputError, match="not a valid URL"):
        open_client(url)
    with pytest.raises(ValidationError, match="registration_url"):
        Settings(registration_url=url)
    for settings in (
        {"jwt_jwks_url": url},
        {"oidc_issuer": url, "oidc_client_id": "x", "public_url": "https://bulkreg.example.org"},
    ):
        with pytest.raises(RefusedStartError, match="is not a URL"):
            refuse_unsafe_start(Settings.model_validate({**settings, "plan_signing_key": "x" * 32}))


PASSWORDS = ["hemmelig#1", "hemmelig/1", "hemmelig?1", "\u2100hemmelig", "[hemmelig"]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_refused_address_does_not_show_its_password(password: str) -> None:
    url = f"https://svc:{password}@reg.example.org"
    refusals = []
    with pytest.raises(BadInputError, match="not a valid URL") as of_command:
        open_client(url)
    refusals.append(of_command.value.args[0])
    with pytest.raises(ValidationError, match="registration_url") as of_setting:
        Settings(registration_url=url)
    refusals.append(str(of_setting.value))
    for settings in (
        {"jwt_jwks_url": url},
        {"oidc_issuer": url, "oidc_client_id": "x", "public_url": "https://bulkreg.example.org"},
    ):
        with pytest.raises(RefusedStartError, match="percent-encoded") as of_start:
            refuse_unsafe_start(Settings.model_validate({**settings, "plan_signing_key": "x" * 32}))
        refusals.append(str(of_start.value))
    assert not [each for each in refusals if "hemmelig" in each]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://svc:secret@reg.example.org/v1", "https://***@reg.example.org/v1"),
        ("https://svc:se/cr@e#t@reg.example.org", "https://***@reg.example.org"),
        ("svc:secret@reg.example.org", "***@reg.example.org"),
        ("https://reg.example.org:8443/v1", "https://reg.example.org:8443/v1"),
    ],
)
def test_what_a_message_shows_of_an_address(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


@pytest.mark.parametrize("port", [0, 65_536])
def test_a_database_at_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(ValidationError, match="must be a URL like"):
        Settings(database_url=SecretStr(f"postgresql://user:password@127.0.0.1:{port}/database"))


@pytest.mark.parametrize("place", ["127.0.0.1:65535", "[::1]:1", "a_b.example.org.", "bulkreg", "bl\u00e5b\u00e6r.example:8443"])
def test_an_address_that_may_exist_is_accepted(place: str) -> None:
    check_address(f"https://{place}/")
