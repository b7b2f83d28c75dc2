"""Selects the items of a retry and their new values (docs/states.md)."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import cast
from uuid import UUID

from orchestrator.batches.errors import ConflictError, InvalidRequestError
from orchestrator.batches.model import BatchView, ItemValues, ItemView, RetryRequest
from orchestrator.batches.repository import ActivityRepository, NewAttempt
from orchestrator.batches.states import ItemStatus
from schemas.corrections import Correction
from schemas.ids import item_position
from schemas.mistakes import MOST_MISTAKES, Mistake

Chosen = Sequence[tuple[ItemView, NewAttempt]]

_NOTHING = Correction()


def choose_attempts(repository: ActivityRepository, batch: BatchView, request: RetryRequest) -> Chosen:
    """The items that begin a new attempt, by position, without those that a concurrent retry has already begun.

    These are the items that the request names and, with `only_retryable`, all others whose error is retryable; by default all failed items.
    Raises InvalidRequestError with every id that is not an item of the batch or is corrected twice, ConflictError for a named item that
    can't be retried.
    """
    corrections = {corrected.item_id: corrected.correction for corrected in request.corrections}
    named = _named(repository, batch, request)
    items = [item for item in named.values() if _can_begin(item, corrections.get(item.item_id, _NOTHING))]
    if request.only_retryable or (request.item_ids is None and not request.corrections):
        others = [each for each in repository.items_by_status(batch.batch_id, ItemStatus.FAILED) if each.item_id not in named]
        items += [each for each in others if not request.only_retryable or _is_retryable(each)]
    items.sort(key=lambda item: item.position)
    return [(item, _new_attempt(item, corrections.get(item.item_id, _NOTHING))) for item in items]


def _named(repository: ActivityRepository, batch: BatchView, request: RetryRequest) -> Mapping[UUID, ItemView]:
    """The items that the request names. Raises InvalidRequestError."""
    references = [(f"/corrections/{index}/item_id", each.item_id) for index, each in enumerate(request.corrections)]
    references += [(f"/item_ids/{index}", item_id) for index, item_id in enumerate(request.item_ids or ())]
    positions = {item_id: item_position(batch.batch_id, item_id) for _, item_id in references}
    items = repository.items_at(batch.batch_id, sorted(each for each in positions.values() if each is not None))
    found = {item.item_id: item for item in items}
    first_corrections = {each.item_id: index for index, each in reversed(list(enumerate(request.corrections)))}
    mistakes = [
        Mistake(pointer, "item_unknown", "The batch has no item with this id.")
        for pointer, item_id in references
        if item_id not in found
    ]
    mistakes += [
        Mistake(f"/corrections/{index}/item_id", "duplicate_item", "The item has two corrections; send one.")
        for index, each in enumerate(request.corrections)
        if first_corrections[each.item_id] != index
    ]
    if mistakes:
        raise InvalidRequestError(mistakes)
    return found


def _is_retryable(item: ItemView) -> bool:
    return item.error is not None and item.error.retryable


def _can_begin(item: ItemView, correction: Correction) -> bool:
    """True for a failed item; False if a concurrent retry already began an attempt with the same values. Raises ConflictError."""
    if item.status is ItemStatus.FAILED:
        return True
    in_later_attempt = item.attempt > 1 and item.status in (ItemStatus.PENDING, ItemStatus.SUCCESS)
    if in_later_attempt and _corrected(item.values, correction) == item.values:
        return False
    if in_later_attempt:
        raise ConflictError(
            "item_retried_already", f"The item at position {item.position} was already retried with other values."
        )
    raise ConflictError(
        "item_not_failed", f"The item at position {item.position} is {item.status}; only failed items can be retried."
    )


def _corrected(values: ItemValues, correction: Correction) -> ItemValues:
    return values._replace(**correction)


def _new_attempt(item: ItemView, correction: Correction) -> NewAttempt:
    values = _corrected(item.values, correction)
    before = item.values._asdict()
    changed = {name: value for name, value in values._asdict().items() if value != before[name]}
    return NewAttempt(item.position, values, cast("Correction", changed) if changed else None)


def reject_duplicate_corrections(repository: ActivityRepository, batch: BatchView, request: RetryRequest, chosen: Chosen) -> None:
    """Raises InvalidRequestError, naming both positions, if a corrected item would equal another item of the batch."""
    corrected = [new for _, new in chosen if new.correction is not None]
    if not corrected:
        return
    becoming = {new.position: new.values.identity for _, new in chosen}
    # Which items have or get each mentor, type and date. One query with distinct values, because many items may be corrected to the same.
    wanted = {new.values.identity: new.values for new in corrected}
    claimed: dict[Hashable, set[int]] = defaultdict(set)
    for position, values in repository.positions_of_identities(batch.batch_id, list(wanted.values())):
        if becoming.get(position, values.identity) == values.identity:
            claimed[values.identity].add(position)
    for position, identity in becoming.items():
        claimed[identity].add(position)
    pointers = {item_position(batch.batch_id, c.item_id): index for index, c in enumerate(request.corrections)}
    mistakes: list[Mistake] = []
    for new in corrected:
        rivals = claimed[new.values.identity] - {new.position}
        for rival in sorted(rivals) if len(mistakes) <= MOST_MISTAKES else ():
            detail = f"The items at positions {new.position} and {rival} would have the same mentor, type and date; correct one of them."
            mistakes.append(Mistake(f"/corrections/{pointers[new.position]}/mentor_id", "duplicate_mentor", detail))
    if mistakes:
        raise InvalidRequestError(mistakes)


def reject_corrections_in_doubt(repository: ActivityRepository, batch: BatchView, chosen: Chosen) -> None:
    """Raises ConflictError if an external service may already have registered an item that is to be corrected.

    A retry without a correction asks the service under the same key, which resolves the doubt (docs/external-registration.md).
    """
    corrected = [new.position for _, new in chosen if new.correction is not None]
    if corrected and (in_doubt := repository.positions_in_doubt(batch.batch_id, corrected)):
        raise ConflictError(
            "item_in_doubt",
            f"It is unknown whether the registration service has registered the item at position {in_doubt[0]}; "
            "retry it without a correction first.",
        )
