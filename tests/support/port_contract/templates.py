"""The contract of `TemplateStore`."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from orchestrator.batches.model import Actor, TemplateValues, TemplateView
from schemas.ids import new_batch_id
from tests.support.port_contract.common import COORDINATOR, Contract
from tests.support.storage import Storage


class TemplateStoreContract(Contract):
    """`TemplateStore`."""

    VALUES = TemplateValues('Mondays, "north"', ("m-1", "m,2", "m\\3"), "visit", 60, 1)

    def template(self, actor: Actor, **fields: Any) -> TemplateView:
        at = datetime(2026, 3, 25, 12, tzinfo=UTC)
        return replace(TemplateView(new_batch_id(), actor.organization_id, COORDINATOR, self.VALUES, 1, at), **fields)

    def test_what_is_added_is_found(self, storage: Storage, actor: Actor) -> None:
        templates = [self.template(actor), self.template(actor, values=replace(self.VALUES, weekday=None))]
        with storage.template_transaction() as (_, store):
            for each in templates:
                store.add(each)
        with storage.template_transaction() as (_, store):
            for each in templates:
                assert store.find(each.template_id) == store.lock(each.template_id) == each
            assert store.find(uuid4()) is store.lock(uuid4()) is None

    def test_only_what_may_change_is_written(self, storage: Storage, actor: Actor) -> None:
        template, other = self.template(actor), self.template(actor)
        values = TemplateValues("Tuesdays", ("m-9",), "training", 90, 7)
        with storage.template_transaction() as (repository, store):
            store.add(template)
            store.add(other)
            changed = replace(template, values=values, version=2, changed_at=repository.clock())
            store.write(replace(changed, coordinator_id="another", organization_id="another"))
            assert store.find(template.template_id) == changed
            assert store.find(other.template_id) == other
            store.remove(template.template_id)
            assert store.find(template.template_id) is None
            assert store.find(other.template_id) == other

    def test_pages_are_of_an_organization_or_a_coordinator_by_id(self, storage: Storage, actor: Actor) -> None:
        ours = [self.template(actor, coordinator_id=f"coord-{n % 2}") for n in range(5)]
        ours.sort(key=lambda each: each.template_id)
        theirs = self.template(actor, organization_id=f"{actor.organization_id}-2")
        with storage.template_transaction() as (_, store):
            for each in reversed([*ours, theirs]):
                store.add(each)
            assert store.page(actor.organization_id, None, after=None, limit=9) == ours
            for coordinator_id in ("coord-0", "coord-1", "coord-2"):
                own = [each for each in ours if each.coordinator_id == coordinator_id]
                assert store.page(actor.organization_id, coordinator_id, after=None, limit=9) == own
            for place, each in enumerate(ours, start=1):
                for limit in (1, 2, 9):
                    rest = store.page(actor.organization_id, None, after=each.template_id, limit=limit)
                    assert rest == ours[place : place + limit]
