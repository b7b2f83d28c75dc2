"""Rejects submissions while the backlog is larger than can be processed in a reasonable time.

Accepted items are kept in the tables, in the outbox while Kafka is down, and in the topics while the database is slow. None of them may
grow without bound. A rejected caller gets a Retry-After, computed from how fast the backlog shrinks.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable

from api.http.problems import overloaded
from orchestrator.storage.backlog import Backlog

# One query serves all requests of a process. The limit may be exceeded by what other processes admit between two queries.
LOOK_EVERY_S = 1.0
# With very many running batches the query takes longer. It may use a tenth of one connection's time, as long as the numbers stay fresh.
LOOK_SHARE = 0.1
LOOK_AT_LEAST_EVERY_S = 10.0
# The window for measuring speed: longer than a pause of the sweeper or a restart, short enough to follow a change.
MEASURED_OVER_S = 30.0
# While nothing moves, no speed can be measured. This is soon enough after an outage, and causes no retry storm.
RETRY_AFTER_STANDSTILL_S = 30.0
RETRY_AFTER_MAX_S = 300.0


class Admission:
    """Admits or rejects submissions. The threads that submit share it."""

    def __init__(self, look: Callable[[], Backlog], *, most_items: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`look` queries the backlog; at most `most_items` items may wait."""
        self._look = look
        self._most_items = most_items
        self._clock = clock
        self._lock = threading.Lock()
        self._is_looking = False
        self._next_look_at = -math.inf
        self._looks: deque[tuple[float, Backlog]] = deque()
        self._admitted_since = 0

    def admit(self, items: int) -> None:
        """Returns if this many more items may wait. Raises ProblemError `overloaded`, or what the database raises."""
        self._look_if_due()
        with self._lock:
            if not self._looks:
                return  # another thread is making the first query
            too_many = self._looks[-1][1].pending + self._admitted_since + items - self._most_items
            if too_many <= 0:
                self._admitted_since += items
                return
            wait_s = self._time_for(too_many)
        raise overloaded(
            "Too many items are waiting. Nothing of this request was accepted; repeat it after Retry-After.", retry_after_s=wait_s
        )

    def _look_if_due(self) -> None:
        """One thread queries. The others use the last result, so that they do not queue here when the database is slow."""
        with self._lock:
            began = self._clock()
            if self._is_looking or began < self._next_look_at:
                return
            self._is_looking = True
        try:
            seen = self._look()
        finally:
            with self._lock:
                self._is_looking = False
        with self._lock:
            wanted_pause_s = max(LOOK_EVERY_S, (self._clock() - began) / LOOK_SHARE)
            self._next_look_at = began + min(wanted_pause_s, LOOK_AT_LEAST_EVERY_S)
            self._looks.append((began, seen))
            self._admitted_since = 0
            while began - self._looks[0][0] > MEASURED_OVER_S:
                self._looks.popleft()

    def _time_for(self, items: int) -> float:
        (began, first), (ended, last) = self._looks[0], self._looks[-1]
        folded = last.folded - first.folded
        if folded <= 0:
            return RETRY_AFTER_STANDSTILL_S
        return min(RETRY_AFTER_MAX_S, items * (ended - began) / folded)
