"""The ports on PostgreSQL."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from tests.support.databases import fresh_database
from tests.support.port_contract import ActivityRepositoryContract, PartStoreContract, TemplateStoreContract
from tests.support.postgres_storage import PostgresStorage
from tests.support.stack import Stack
from tests.support.storage import Storage


@pytest.fixture(scope="module")
def workers(infrastructure: Stack, template_database: str) -> Iterator[Engine]:
    """Connections of the workers' role to one database for all tests."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        yield engine
        engine.dispose()


class OnPostgres:
    """One storage for all tests."""

    @pytest.fixture
    def storage(self, workers: Engine) -> Storage:
        return PostgresStorage(workers)


class TestActivityRepository(OnPostgres, ActivityRepositoryContract):
    """`PostgresActivityRepository`."""


class TestPartStore(OnPostgres, PartStoreContract):
    """`CollectedParts`."""


class TestTemplateStore(OnPostgres, TemplateStoreContract):
    """`PostgresTemplates`."""
