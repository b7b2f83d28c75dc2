"""The first steps of operations on a batch: the lock, the caller's rights, the version that the caller has seen, and the Idempotency-Key."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from orchestrator.batches.access import visible
from orchestrator.batches.errors import KeyReusedError, NotFoundError, PreconditionError
from orchestrator.batches.model import Actor, BatchView, Idempotency
from orchestrator.batches.repository import ActivityRepository, KeyUse

# Where a stored result has the id of the call that stored it. Results that older versions stored have none.
_CALL = "call_id"


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """The stored result of a key's earlier use. `replayed` is False if this very call stored it, and only the acknowledgement was lost."""

    result: Mapping[str, Any]
    replayed: bool


def lock_visible(repository: ActivityRepository, actor: Actor, batch_id: UUID) -> BatchView:
    """Locks a batch that the caller may see. Checks visibility first, so that no caller locks a batch they may not see. Raises
    NotFoundError."""
    visible(repository, actor, batch_id)
    batch = repository.lock_batch(batch_id)
    if batch is None:
        raise NotFoundError
    return batch


def present(repository: ActivityRepository, batch_id: UUID) -> BatchView:
    """The present state of a batch that this transaction has locked."""
    batch = repository.find_batch(batch_id)
    assert batch is not None, "the batch is locked by this transaction"
    return batch


def matches_nothing(allowed: Set[int] | None) -> bool:
    """Whether the caller sent only tags that belong to no version. Such a call is refused even if it would change nothing."""
    return allowed is not None and not allowed


def check_edit_version(batch: BatchView, allowed: Set[int] | None) -> None:
    """Raises PreconditionError unless the caller has seen the newest edit, or does not send a version."""
    if allowed is not None and batch.edit_version not in allowed:
        raise PreconditionError(
            "changed_since", "The batch was edited since you read it. Read it again, then repeat the request with the new ETag."
        )


def earlier_result(
    repository: ActivityRepository, actor: Actor, idempotency: Idempotency | None, batch_id: UUID
) -> EarlierResult | None:
    """The stored result of the key's earlier use; None at its first use. Raises KeyReusedError."""
    if idempotency is None:
        return None
    used = repository.use_keys([KeyUse(actor, idempotency, batch_id)]).get(batch_id)
    if used is None:
        return None
    if used.request_hash != idempotency.request_hash or used.result is None:
        raise KeyReusedError
    return EarlierResult(used.result, replayed=used.result.get(_CALL) != str(idempotency.call_id))


def store_result(repository: ActivityRepository, actor: Actor, idempotency: Idempotency, result: Mapping[str, Any]) -> None:
    """Stores the result that a repetition of the request returns."""
    repository.store_result(actor, idempotency, {**result, _CALL: str(idempotency.call_id)})
