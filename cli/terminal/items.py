"""Shows items to people: what failed and why, with the row of the spreadsheet if there is one."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from cli.terminal.output import table

MOST_ITEMS_LISTED = 50
"""As many as a person reads. Longer lists belong in a file."""


def failed_items(items: Sequence[Mapping[str, Any]], rows: Sequence[int] = ()) -> list[RenderableType]:
    """Returns the failed items as a table; nothing if none failed. `rows`: the table row of each position, for items that came from a
    table."""
    if not items:
        return []
    content = [
        (
            rows[item["position"]] if rows else item["position"],
            item["mentor_id"],
            item["error"]["code"],
            item["error"]["message"],
            item["error"].get("field", ""),
        )
        for item in items[:MOST_ITEMS_LISTED]
    ]
    return [table(["row" if rows else "position", "mentor", "error", "because", "field"], content)]


def without_items(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a batch as a listing shows it."""
    return {name: value for name, value in batch.items() if name not in {"items", "next_item_cursor"}}
