"""Whether a loop's client has a connection to its group's coordinator, from librdkafka's statistics (its STATISTICS.md describes the fields)."""

import time
from collections.abc import Callable, Mapping
from typing import Any

# A client that was cut off finds its coordinator within seconds after it is back.
LOST_AFTER_S = 60.0


class Membership:
    """Tracks for how long a client looks for its coordinator in vain, although the coordinator serves another client.

    After the coordinator was lost at the wrong moment, librdkafka may never connect to any broker again. It reports no error (row 78 of
    docs/faults.md).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks_since: float | None = None

    def joins(self) -> None:
        """Notes that a new client joins the group now."""
        self._looks_since = None

    def report(self, group: Mapping[str, Any], *, is_served: bool) -> None:
        """Takes the statistics of the group in. The time in which the coordinator serves nobody (`is_served`) does not count."""
        if group["state"] == "up" or not is_served:
            self._looks_since = None
        elif self._looks_since is None:
            self._looks_since = self._clock()

    @property
    def is_lost(self) -> bool:
        """Whether the client has looked for so long that it will not find the coordinator any more."""
        return self._looks_since is not None and self._clock() - self._looks_since >= LOST_AFTER_S
