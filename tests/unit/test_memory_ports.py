"""The ports in memory behave like those on PostgreSQL, so a test on them says something about the product."""

import pytest

from tests.support.memory import MemoryStorage
from tests.support.port_contract import ActivityRepositoryContract, PartStoreContract, TemplateStoreContract
from tests.support.storage import Storage


class InMemory:
    """A new storage for each test."""

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestActivityRepository(InMemory, ActivityRepositoryContract):
    """`MemoryRepository`."""


class TestPartStore(InMemory, PartStoreContract):
    """`MemoryParts`."""


class TestTemplateStore(InMemory, TemplateStoreContract):
    """`MemoryTemplates`."""
