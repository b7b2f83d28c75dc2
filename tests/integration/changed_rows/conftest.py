"""One set of batches for all tests of changed rows."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from tests.support.changed_rows import Bystanders
from tests.support.databases import fresh_database
from tests.support.pipeline import Pipeline, standard_directory
from tests.support.stack import Stack


@pytest.fixture(scope="package")
def pipeline(infrastructure: Stack, template_database: str) -> Iterator[Pipeline]:
    """One set for all tests. What a test leaves behind are additional bystanders."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        engine = create_database_engine(settings.worker_url, settings, connections=5, application_name="test")
        standard_directory(engine, mentor_count=1_000)
        pipeline = Pipeline(settings, engine)
        yield pipeline
        pipeline.close()
        engine.dispose()


@pytest.fixture(scope="package")
def bystanders(pipeline: Pipeline) -> Bystanders:
    return Bystanders(pipeline)


@pytest.fixture(autouse=True)
def nothing_waits(pipeline: Pipeline, bystanders: Bystanders) -> None:
    """Drops the events of earlier tests."""
    pipeline.relay()
    pipeline.queues.clear()
