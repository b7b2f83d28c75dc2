"""URLs with one host, and with several."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr, ValidationError

from orchestrator.process.database_urls import database_url, hosts_of, shown_url
from orchestrator.process.settings import Settings


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("postgresql://u:p@one:1/db", "one", 1),
        ("postgresql://u:p@one:1,two:2/db?sslmode=require", "one,two", "1,2"),
        ("postgresql://u:p@one:1,two:2", "one,two", "1,2"),
        ("postgresql://u:p@/db?host=one:1&host=two:2", "one,two", "1,2"),
        ("postgresql://u:p@[::1]:1,[fe80::2]:2/db", "::1,fe80::2", "1,2"),
        ("postgresql://u:p@[::1],two:2/db", "::1,two", ",2"),
        ("postgresql://u:a,b@one:1/db", "one", 1),
        ("postgresql://u:p@/db?host=/home/ann@example.org/run&port=5433", "/home/ann@example.org/run", "5433"),
    ],
)
def test_the_driver_gets_every_host_with_its_port(text: str, host: str, port: object) -> None:
    url = database_url(text)
    _, arguments = url.get_dialect()().create_connect_args(url)
    assert (arguments["host"], arguments["port"], url.username) == (host, port, "u")


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("postgresql:///db", []),
        ("postgresql://one:1/db", ["one"]),
        ("postgresql://one:1,two:2/db", ["one", "two"]),
        ("postgresql:///db?host=one:1&host=two:2", ["one", "two"]),
        ("postgresql:///db?host=one,two", ["one", "two"]),
        ("postgresql://[::1]:1,[::2]/db", ["::1", "::2"]),
        ("postgresql:///db?host=/var/run/postgresql", ["/var/run/postgresql"]),
    ],
)
def test_hosts_of_a_url(text: str, hosts: Sequence[str]) -> None:
    assert hosts_of(database_url(text)) == hosts


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:short-secret@127.0.0.1:x,127.0.0.1:1/db",
        "postgresql://u:short-secret@127.0.0.1:99999,127.0.0.1:1/db",
        "postgresql://u:short-secret@127.0.0.1:1,127.0.0.1:0/db",
        "postgresql://u:short-secret@[::1]:x,[::2]:1/db",
        "postgresql://u:short-secret@one,two:1:1/db",
        "postgresql://u:short-secret@one,two,three/db?port=1,2",
        "postgresql://u:short-secret@/db?host=one&port=99999",
        "postgresql://u:short-secret@/db?host=one&port=x",
        "postgresql://u:short-secret@/db?host=one:0&host=two:1",
        "postgresql://u:short-secret@/db?host=[::1]:1&host=[::2]:2",
        "postgresql://u:p@short-secret@one/db",
    ],
)
def test_hosts_and_ports_that_cannot_be_are_refused_without_the_password(text: str) -> None:
    with pytest.raises(ValidationError, match="must be a URL like") as refused:
        Settings(database_url=SecretStr(text))
    assert "short-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p%40s@one:65535,two/db",
        "postgresql://u:p@[::1]:1,[::2]:2/db",
        "postgresql:///db?host=/var/run/postgresql",
        "postgresql:///db?host=@abstract",
        "postgresql://u@/db?host=one,two&port=1,2",
    ],
)
def test_hosts_that_may_be_are_accepted(text: str) -> None:
    Settings(database_url=SecretStr(text))


def test_a_message_shows_no_password_of_a_url() -> None:
    shown = shown_url(
        database_url("postgresql://u:short-secret@one/db?sslmode=require&sslpassword=short-secret&password=short-secret")
    )
    assert "short-secret" not in shown
    assert "one" in shown
    assert "sslmode=require" in shown


def test_the_roles_connect_to_the_same_hosts_as_the_owner() -> None:
    settings = Settings(database_url=SecretStr("postgresql://owner:secret@one:1,two:2/db"))
    for url in (settings.owner_url, settings.worker_url, settings.api_url):
        assert hosts_of(url) == ["one", "two"]
