"""Fixtures of the API's contract tests."""

from collections.abc import Iterator

import httpx
import pytest
from pydantic import SecretStr

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.databases import fresh_database
from tests.support.pipeline import Pipeline
from tests.support.stack import Stack


@pytest.fixture
def api(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """The API on the pipeline's database."""
    with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})) as server:
        yield server


@pytest.fixture(scope="module")
def refusing_api(infrastructure: Stack, template_database: str) -> Iterator[ApiServer]:
    """An API on an empty database, for requests that it refuses. Many tests share it, because none of them changes anything."""
    with (
        fresh_database(infrastructure.postgres_url, template=template_database) as url,
        running_api(Settings(database_url=SecretStr(url), jwt_hs256_key=SecretStr(KEY))) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def sender(refusing_api: ApiServer) -> Iterator[httpx.Client]:
    """A coordinator whose requests are refused."""
    with refusing_api.client() as client:
        yield client


@pytest.fixture
def coordinator(api: ApiServer) -> Iterator[httpx.Client]:
    """The standard directory's coordinator."""
    with api.client() as client:
        yield client


@pytest.fixture
def admin(api: ApiServer) -> Iterator[httpx.Client]:
    """An admin of the same organization."""
    with api.client(Role.ADMIN, sub="boss") as client:
        yield client
