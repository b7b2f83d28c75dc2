"""A transaction on a template that is repeated after a lost acknowledgement changes nothing more."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from orchestrator.batches import templates
from orchestrator.batches.errors import NotFoundError
from orchestrator.batches.model import Idempotency, TemplateValues, TemplateView
from schemas.ids import new_batch_id
from tests.support.memory import MemoryStorage
from tests.support.pipeline import COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION

VALUES = TemplateValues("Mondays", ("m-1",), "visit", 60, None)
NEW = TemplateView(new_batch_id(), ORGANIZATION, COORDINATOR, VALUES, 1, datetime(1970, 1, 1, tzinfo=UTC))


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.know_coordinator(ORGANIZATION, COORDINATOR)
    return storage


def created(storage: MemoryStorage, key: str = "k") -> templates.Saved:
    with storage.template_transaction() as (repository, store):
        return templates.create_template(repository, store, COORDINATOR_ACTOR, NEW, Idempotency(key, b"h"))


def replaced(storage: MemoryStorage, name: str, key: str, versions: set[int]) -> TemplateView:
    with storage.template_transaction() as (repository, store):
        values = replace(VALUES, name=name)
        return templates.replace_template(
            repository, store, COORDINATOR_ACTOR, NEW.template_id, values, Idempotency(key, b""), versions
        )


def deleted(storage: MemoryStorage, key: str) -> None:
    with storage.template_transaction() as (repository, store):
        templates.delete_template(repository, store, COORDINATOR_ACTOR, NEW.template_id, Idempotency(key, b""), {1})


def test_a_repeated_creation_creates_once_and_is_no_replay(storage: MemoryStorage) -> None:
    first = created(storage)
    assert created(storage) == first == templates.Saved(first.template, replayed=False)
    assert list(storage.tables.templates.values()) == [first.template]


def test_a_repeated_change_stays_whatever_has_changed_since(storage: MemoryStorage) -> None:
    created(storage)
    assert replaced(storage, "Tuesdays", "first", {1}).version == 2
    assert replaced(storage, "Fridays", "second", {2}).version == 3
    assert replaced(storage, "Tuesdays", "first", {1}).values.name == "Fridays"
    assert storage.tables.templates[NEW.template_id].version == 3


def test_a_repeated_deletion_succeeds(storage: MemoryStorage) -> None:
    created(storage)
    deleted(storage, "first")
    deleted(storage, "first")
    with pytest.raises(NotFoundError):
        deleted(storage, "another")
