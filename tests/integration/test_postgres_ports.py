"""Runs the contract of the ports on PostgreSQL."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from orchestrator.batches.model import Actor
from orchestrator.batches.repository import PartHashes
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from tests.support.databases import fresh_database
from tests.support.pipeline import item
from tests.support.port_contract import ActivityRepositoryContract, PartStoreContract, TemplateStoreContract, new_batch
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
        """The storage, without events that an earlier test has left in the outbox."""
        storage = PostgresStorage(workers)
        storage.take_outbox()
        return storage


class TestActivityRepository(OnPostgres, ActivityRepositoryContract):
    """`PostgresActivityRepository`."""


class TestPartStore(OnPostgres, PartStoreContract):
    """`CollectedParts`."""

    @pytest.mark.parametrize("override", [False, True])
    def test_items_of_the_previous_version_have_the_flag_of_their_batch(
        self, storage: Storage, actor: Actor, workers: Engine, override: bool
    ) -> None:
        batch = new_batch([])
        with storage.transaction() as (_, parts):
            parts.begin(actor, batch, content_hash=b"header", parts=1, total=1)
            parts.add(actor.organization_id, batch.batch_id, PartHashes(1, b"c", b"p"), [(0, item("mentor-1"))], data_bytes=9)
        with workers.begin() as connection:
            before = text("UPDATE orchestrator.batch_part SET items = jsonb_build_array((items -> 0) - 7) WHERE batch_id = :id")
            assert connection.execute(before, {"id": batch.batch_id}).rowcount == 1
        with storage.transaction() as (repository, parts):
            [(_, [(_, collected)], _)] = parts.collected(batch.batch_id, override=override)
            parts.finish(batch.batch_id, override=override, at=repository.clock())
            [stored] = repository.items_at(batch.batch_id, [0])
        assert collected.values.override_duplicates is stored.values.override_duplicates is override


class TestTemplateStore(OnPostgres, TemplateStoreContract):
    """`PostgresTemplates`."""
