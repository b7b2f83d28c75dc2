"""Requests to other processes: those to loopback never use a proxy, and an unusable proxy is reported in one sentence."""

import asyncio
from collections.abc import Mapping

import pytest
from pydantic import SecretStr

from api.access.authentication import authenticator
from api.access.jwks import Jwks
from cli.remote.api_client import opened
from cli.remote.target import Target
from cli.terminal.failures import BadInputError
from consumers.external.http_client import refuse_unusable_way
from orchestrator.process.loopback import is_this_machine
from orchestrator.process.outgoing import UnusableWayError, heeds_environment
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings

ELSEWHERE = "https://provider.example.org/keys"

UNUSABLE = [
    {"ALL_PROXY": "socks5://127.0.0.1:1080"},
    {"HTTPS_PROXY": "socks4://user:secret@127.0.0.1:1080"},
    {"all_proxy": "ftp://127.0.0.1"},
    {"https_proxy": "http://host:notaport"},
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
