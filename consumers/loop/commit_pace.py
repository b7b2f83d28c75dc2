"""When a consumer commits its offsets: immediately after a pause, and at intervals under load."""

import time
from collections.abc import Callable

# A commit costs the broker and the client as much as some tens of records. A crash redelivers what was done since the last one, which changes
# nothing and takes no longer than doing it did.
COMMIT_EVERY_S = 0.25


class CommitPace:
    """Says how long the next commit has to wait."""

    def __init__(self, every_s: float = COMMIT_EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._due_at = float("-inf")

    @property
    def due_in_s(self) -> float:
        """Seconds until offsets may be committed; 0 or less: now."""
        return self._due_at - self._clock()

    def committed(self) -> None:
        """Notes a commit, or the attempt of one."""
        self._due_at = self._clock() + self._every_s
