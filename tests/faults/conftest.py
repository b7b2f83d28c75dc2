"""Fixtures of the fault catalogue's tests."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from orchestrator.process.settings import Settings
from tests.faults.proxy import PostgresProxy


@pytest.fixture
def proxy(settings: Settings) -> Iterator[PostgresProxy]:
    proxy = PostgresProxy(settings.worker_url.host or "", settings.worker_url.port or 5432)
    yield proxy
    proxy.close()


@pytest.fixture
def proxied(settings: Settings, proxy: PostgresProxy) -> Settings:
    """The settings of the same deployment, with its database behind the proxy."""

    def through(url: URL) -> SecretStr:
        return SecretStr(url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False))

    # New settings, because a copy would keep the addresses that the original has computed.
    given = settings.model_dump(include=settings.model_fields_set)
    return Settings(**given, worker_database_url=through(settings.worker_url), api_database_url=through(settings.api_url))
