"""The API with the console and the development provider, and a client that keeps cookies as a browser does."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from pydantic import SecretStr

from compose.embedded.provider import DevelopmentProvider, Person, serving_provider
from orchestrator.process.settings import Settings
from schemas.paths import API_ROOT
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.ports import free_port

ME = f"{API_ROOT}/me"
PEOPLE = (
    Person(ORGANIZATION, "Standard", COORDINATOR, "Coordinator", "coordinator"),
    Person(ORGANIZATION, "Standard", "boss", "Boss", "admin"),
    Person(ORGANIZATION, "Standard", "eye", "Auditor", "auditor"),
)


class Provider(DevelopmentProvider):
    """The development provider, which can be told to send other claims."""

    other_claims: Mapping[str, Any] = {}

    def claims(self, person: Person, nonce: str | None) -> dict[str, Any]:
        """The usual claims, but for the others; without those that are None."""
        claims = {**super().claims(person, nonce), **self.other_claims}
        return {name: value for name, value in claims.items() if value is not None}


@contextlib.contextmanager
def running_provider(settings: Settings, people: Sequence[Person] = PEOPLE) -> Iterator[Provider]:
    """Serves in a thread while the block runs."""
    provider = Provider(settings, lambda: people)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    started = threading.Event()

    async def main() -> None:
        async with serving_provider(provider):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), name="provider")
    thread.start()
    assert started.wait(30)
    try:
        yield provider
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def with_console(settings: Settings, **others: Any) -> Settings:
    """The settings of an API with a console, at a port of its own, whose provider is on loopback."""
    port, provider_port = free_port(), free_port()
    return settings.model_copy(
        update={
            "jwt_hs256_key": SecretStr(KEY),
            "api_port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "oidc_issuer": f"http://127.0.0.1:{provider_port}",
            "oidc_client_id": "console",
            "oidc_client_secret": SecretStr("secret of the console: & +%"),
            **others,
        }
    )


@contextlib.contextmanager
def running_console(settings: Settings) -> Iterator[tuple[ApiServer, Provider]]:
    """The API with a console, and its provider."""
    with running_provider(settings) as provider, running_api(settings, port=settings.api_port) as server:
        yield server, provider


class Browser:
    """Sends requests as a page of the console would, and keeps cookies by name."""

    def __init__(self, server: ApiServer, client: httpx.Client) -> None:
        self.url = server.url
        self.cookies: dict[str, str] = {}
        self._client = client

    def open(self, url: str) -> httpx.Response:
        """Follows a link that leads to another site or comes from there."""
        return self._send("GET", url, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})

    def fetch(self, method: str, path: str, **headers: str | None) -> httpx.Response:
        """What a script of the console sends; `headers` replace its own, and None leaves one out."""
        usual = {"Sec-Fetch-Site": "same-origin", "X-Bulkreg-Console": "1"} | ({} if method == "GET" else {"Origin": self.url})
        changed = {**usual, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self._send(method, self.url + path, {name: value for name, value in changed.items() if value is not None})

    def log_in(self, subject: str = COORDINATOR) -> httpx.Response:
        """Goes through the login and returns its last response."""
        asked = self.open(self.url + "/console/login")
        assert asked.status_code == 302, asked.text
        chosen = self.open(f"{asked.headers['Location']}&person={ORGANIZATION}/{subject}")
        assert chosen.status_code == 303, chosen.text
        return self.open(chosen.headers["Location"])

    def _send(self, method: str, url: str, headers: Mapping[str, str]) -> httpx.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = self._client.request(method, url, headers={**headers, **({"Cookie": cookie} if cookie else {})})
        for line in response.headers.get_list("Set-Cookie"):
            for name, morsel in SimpleCookie(line).items():
                assert (morsel["secure"], morsel["httponly"], morsel["path"], morsel["domain"]) == (True, True, "/", ""), line
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return response


@contextlib.contextmanager
def browser(server: ApiServer) -> Iterator[Browser]:
    """A new browser."""
    with httpx.Client(timeout=30, verify=NO_TLS) as client:
        yield Browser(server, client)


def question(url: str) -> dict[str, str]:
    """The query of a URL."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
