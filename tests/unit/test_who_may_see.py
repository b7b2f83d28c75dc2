"""Who may see a batch and change it, and what is shown of an item."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from orchestrator.batches.access import may_see
from orchestrator.batches.erasing import erase_notes
from orchestrator.batches.errors import ForbiddenError, NotFoundError
from orchestrator.batches.model import Actor, BatchFilter, BatchView, Idempotency, RetryRequest, RevocationRequest, Role
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    dismiss_batch,
    get_item,
    list_batches,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.revoke import foresee_revocation, revoke_activity, revoke_batch
from orchestrator.batches.templates import create_template, delete_template, replace_template
from schemas.ids import DerivedIds, new_batch_id
from tests.support.memory_flow import MemoryFlow
from tests.support.pipeline import ADMIN, COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, mentors
from tests.support.told import failing, finish, submit, the_batch


def test_a_batch_is_visible_to_its_organization_and_to_its_own_coordinator(flow: MemoryFlow) -> None:
    batch = flow.status(submit(flow, the_batch(*mentors(1)))).batch
    seen = {
        (role, subject, organization): may_see(Actor(organization, subject, role), batch)
        for role in Role
        for subject in (COORDINATOR, "somebody")
        for organization in (ORGANIZATION, "org-other")
    }
    assert {caller for caller, sees in seen.items() if sees} == {
        (role, subject, ORGANIZATION)
        for role in Role
        for subject in (COORDINATOR, "somebody")
        if role is not Role.COORDINATOR or subject == COORDINATOR
    }


AUDITOR = Actor(ORGANIZATION, "auditor", Role.AUDITOR)
NOBODYS = new_batch_id()
NOTHING = cast("Any", None)

CHANGES: dict[str, Callable[[ActivityRepository, Actor], object]] = {
    "submit": lambda repository, actor: submit_bulk_registration(repository, actor, the_batch(*mentors(1))),
    "retry": lambda repository, actor: retry_failed_items(repository, actor, NOBODYS, RetryRequest()),
    "cancel": lambda repository, actor: cancel_batch(repository, actor, NOBODYS, None),
    "relabel": lambda repository, actor: relabel_batch(repository, actor, NOBODYS, "new"),
    "dismiss": lambda repository, actor: dismiss_batch(repository, actor, NOBODYS),
    "delete": lambda repository, actor: delete_batch(repository, actor, NOBODYS),
    "erase notes": lambda repository, actor: erase_notes(repository, NOTHING, actor, NOBODYS, NOBODYS),
    "revoke a batch": lambda repository, actor: revoke_batch(
        repository, NOTHING, actor, NOBODYS, RevocationRequest("x", None), NOTHING
    ),
    "foresee a revocation": lambda repository, actor: foresee_revocation(
        repository, NOTHING, actor, NOBODYS, RevocationRequest("x", None), NOTHING
    ),
    "revoke an activity": lambda repository, actor: revoke_activity(repository, NOTHING, actor, NOBODYS, "x", NOTHING),
    "create a template": lambda repository, actor: create_template(
        repository, NOTHING, actor, NOTHING, Idempotency("key", b"hash")
    ),
    "replace a template": lambda repository, actor: replace_template(
        repository, NOTHING, actor, NOBODYS, NOTHING, Idempotency("key", b"hash")
    ),
    "delete a template": lambda repository, actor: delete_template(
        repository, NOTHING, actor, NOBODYS, Idempotency("key", b"hash")
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_auditor_is_refused_each_change_before_anything_is_looked_up(
    flow: MemoryFlow, change: Callable[[ActivityRepository, Actor], object]
) -> None:
    """The API refuses auditors before it calls an operation. The operation does not rely on that."""
    with pytest.raises(ForbiddenError) as refused:
        flow.call(change, AUDITOR)
    assert refused.value.code == "role_may_not"


OF_A_BATCH: dict[str, Callable[[ActivityRepository, Actor, UUID], object]] = {
    "retry": lambda repository, actor, batch_id: retry_failed_items(repository, actor, batch_id, RetryRequest()),
    "cancel": lambda repository, actor, batch_id: cancel_batch(repository, actor, batch_id, None),
    "relabel": lambda repository, actor, batch_id: relabel_batch(repository, actor, batch_id, "new"),
    "dismiss": lambda repository, actor, batch_id: dismiss_batch(repository, actor, batch_id),
    "delete": lambda repository, actor, batch_id: delete_batch(repository, actor, batch_id),
    "erase notes": lambda repository, actor, batch_id: erase_notes(
        repository, NOTHING, actor, batch_id, DerivedIds(batch_id).item_id(0)
    ),
    "revoke": lambda repository, actor, batch_id: revoke_batch(
        repository, NOTHING, actor, batch_id, RevocationRequest("x", None), NOTHING
    ),
}


@pytest.mark.parametrize("change", OF_A_BATCH.values(), ids=OF_A_BATCH)
@pytest.mark.parametrize("stranger", [replace(COORDINATOR_ACTOR, subject="coord-2"), replace(ADMIN, organization_id="org-other")])
def test_nobody_locks_a_batch_that_they_may_not_see(
    flow: MemoryFlow,
    monkeypatch: pytest.MonkeyPatch,
    stranger: Actor,
    change: Callable[[ActivityRepository, Actor, UUID], object],
) -> None:
    """Otherwise a stranger who asks again and again could delay those whose batch it is."""
    batch_id = submit(flow, the_batch(*mentors(1)))
    locked: list[UUID] = []
    with flow.storage.transaction() as (repository, _):
        lock = repository.lock_batch

        def noting(batch_id: UUID, *, or_deleted: bool = False) -> BatchView | None:
            locked.append(batch_id)
            return lock(batch_id, or_deleted=or_deleted)

        monkeypatch.setattr(repository, "lock_batch", noting)
        with pytest.raises(NotFoundError):
            change(repository, stranger, batch_id)
        assert locked == []
        changed = relabel_batch(repository, COORDINATOR_ACTOR, batch_id, "new")
        assert (changed.label, locked) == ("new", [batch_id])


def test_a_coordinator_can_not_list_batches_of_colleagues(flow: MemoryFlow) -> None:
    submit(flow, the_batch(*mentors(1)))
    for wanted, found in ((COORDINATOR, 1), (None, 1), ("coord-2", 0)):
        page = flow.call(list_batches, COORDINATOR_ACTOR, BatchFilter(coordinator_id=wanted))
        assert (len(page.batches), page.total) == (found, found)
        theirs = flow.call(list_batches, replace(COORDINATOR_ACTOR, subject="coord-2"), BatchFilter(coordinator_id=wanted))
        assert (len(theirs.batches), theirs.total) == (0, 0)


def test_an_item_is_shown_only_with_its_own_history(flow: MemoryFlow) -> None:
    batch_id = submit(flow, the_batch(*failing(2)))
    finish(flow)
    ids = DerivedIds(batch_id)
    flow.call(retry_failed_items, ADMIN, batch_id, RetryRequest(item_ids=[ids.item_id(0)]))
    finish(flow)
    for position, attempts in ((0, [1]), (1, [])):
        shown, history = flow.call(get_item, ADMIN, batch_id, ids.item_id(position))
        assert (shown.position, shown.values.mentor_id, [each.attempt for each in history]) == (
            position,
            f"nobody-{position}",
            attempts,
        )
    for stranger in (ids.item_id(2), DerivedIds(new_batch_id()).item_id(0)):
        with pytest.raises(NotFoundError) as refused:
            flow.call(get_item, ADMIN, batch_id, stranger)
        assert refused.value.code == "item_not_found"
