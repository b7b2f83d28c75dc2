"""Builds commands from pending items, for the splitter, and for the sweeper when a command was lost."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from orchestrator.batches.repository import OutcomeKey
from orchestrator.storage.expansion import PendingItem, pending_items
from schemas import event_builders, events
from schemas.envelope import OutgoingEvent


def commands_for(
    connection: Connection, keys: Sequence[OutcomeKey], *, is_bulk: Callable[[int], bool]
) -> list[tuple[PendingItem, OutgoingEvent]]:
    """A command for every named item that is pending in that attempt. `is_bulk` returns from the key's index whether it uses the bulk lane."""
    headers: dict[str, event_builders.ItemEventHeaders] = {}
    commands = []
    for item in pending_items(connection, keys):
        of_batch = headers.get(item.trace_id) or headers.setdefault(item.trace_id, event_builders.ItemEventHeaders(item.trace_id))
        envelope = of_batch.of(events.REGISTER_ACTIVITY, item.data["item_id"], item.data["attempt"], item.attempt_at)
        commands.append((item, event_builders.register_activity(item.data, envelope, bulk=is_bulk(item.index))))
    return commands
