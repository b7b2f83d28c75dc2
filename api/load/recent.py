"""What was shown of running batches a moment ago, so that a long poll that continues a `GET` need not read the batch again at its start.

Everything that changes a batch is notified. So a state still holds if this process has heard no notification about the batch since it began to
read that state. A notification that is still on its way wakes the follower when it arrives.
"""

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# A client that follows a batch continues at once.
HOLDS_FOR_S = 5.0


@dataclass(frozen=True, slots=True)
class _State:
    version: int
    read_at: float


class RecentlyShown:
    """States by what identifies a caller and a representation. Only the event loop's thread uses it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._states: dict[tuple[str, Hashable], _State] = {}
        """By batch and key, in the order in which they were shown. Two batches may have the same tag."""
        self._changed_at: dict[str, float] = {}
        """When each batch was last notified, in that order."""
        self._hears_since: float | None = None

    def hears(self) -> None:
        """From now on the process hears all notifications."""
        self._hears_since = self.clock()

    def hears_nothing(self) -> None:
        """The process may miss notifications: nothing that was shown counts any more."""
        self._hears_since = None
        self._states.clear()
        self._changed_at.clear()

    def changed(self, batch_ids: Iterable[str]) -> None:
        """Notes notifications."""
        now = self.clock()
        for batch_id in batch_ids:
            self._changed_at.pop(batch_id, None)
            self._changed_at[batch_id] = now
        _drop_old(self._changed_at, lambda at: at, now)

    def shown(self, key: Hashable, batch_id: str, version: int, read_at: float) -> None:
        """Notes what was shown. `read_at` is before the read began, by the clock."""
        if self._hears_since is None or read_at < self._hears_since:
            return
        self._states.pop((batch_id, key), None)
        self._states[batch_id, key] = _State(version, read_at)
        _drop_old(self._states, lambda state: state.read_at, self.clock())

    def unchanged(self, key: Hashable, batch_id: str) -> int | None:
        """Returns the version of what was shown of the batch under this key, if it still holds."""
        state = self._states.pop((batch_id, key), None)
        if state is None or state.read_at < self.clock() - HOLDS_FOR_S:
            return None
        return state.version if self._changed_at.get(batch_id, float("-inf")) < state.read_at else None


def _drop_old(entries: dict[Key, Value], at: Callable[[Value], float], now: float) -> None:
    """Removes from the beginning what no longer counts."""
    while entries and at(entries[first := next(iter(entries))]) < now - HOLDS_FOR_S:
        del entries[first]
