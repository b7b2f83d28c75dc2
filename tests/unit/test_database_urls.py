"""URLs with one host, and with several."""

from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from orchestrator.process.database_urls import database_url, hosts_of
from orchestrator.process.settings import Settings


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("postgresql://u:p@one:1/db", "one", 1),
        ("postgresql://u:p@one:1,two:2/db?sslmode=require", "one,two", "1,2"),
        ("postgresql://u:p@one:1,two:2", "one,two", "1,2"),
        ("postgresql://u:p@/db?host=one:1&host=two:2", "one,two", "1,2"),
        ("postgresql://u:a,b@one:1/db", "one", 1),
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
        ("postgresql:///db?host=/var/run/postgresql", ["/var/run/postgresql"]),
    ],
)
def test_hosts_of_a_url(text: str, hosts: Sequence[str]) -> None:
    assert hosts_of(database_url(text)) == hosts


def test_the_roles_connect_to_the_same_hosts_as_the_owner() -> None:
    settings = Settings(database_url=SecretStr("postgresql://owner:secret@one:1,two:2/db"))
    for url in (settings.owner_url, settings.worker_url, settings.api_url):
        assert hosts_of(url) == ["one", "two"]
