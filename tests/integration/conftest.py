"""Fixtures of the flow's tests."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from orchestrator.process.settings import Settings
from tests.support.pipeline import Pipeline, standard_directory
from tests.support.stack import Stack, durable


@pytest.fixture(scope="module")
def durable_server(infrastructure: Stack) -> Iterator[None]:
    """Checks that PostgreSQL is configured as a deployment's should be."""
    with durable(infrastructure.postgres_url):
        yield


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    """The flow with the standard directory, without a broker."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()


@pytest.fixture
def owner(settings: Settings) -> Iterator[Engine]:
    """The database with the owner's rights: a test damages rows, or looks at all of them."""
    engine = create_engine(settings.owner_url)
    yield engine
    engine.dispose()
