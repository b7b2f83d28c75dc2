"""Leaves out log lines that repeat the same trouble.

While no broker accepts connections, a client of librdkafka logs about ten lines a second for each address, whatever its back-off. A broker that
is away for ten minutes would push everything else out of a log that rotates.
"""

import logging
import threading
import time
from collections.abc import Callable

QUIET_S = 60.0
"""A line that repeats comes again after this, so an operator sees within a minute that the trouble lasts."""


class RepeatedLines(logging.Filter):
    """Passes the first of several lines that differ only in how long the attempt took. The next one that passes says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}
        """By trouble: when a line of it passed, and how many were left out since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is logged."""
        line, now = record.getMessage(), self._clock()
        # librdkafka's lines end like this: `Connection refused (after 0ms in state CONNECT, 30 identical error(s) suppressed)`.
        trouble = line.rpartition(" (after ")[0] or line
        with self._lock:
            passed_at, left_out = self._seen.get(trouble, (now - QUIET_S, 0))
            if now - passed_at < QUIET_S:
                self._seen[trouble] = passed_at, left_out + 1
                return False
            # Trouble that is over is forgotten, or every text would stay in memory.
            self._seen = {each: seen for each, seen in self._seen.items() if now - seen[0] < 2 * QUIET_S}
            self._seen[trouble] = now, 0
        if left_out:
            record.msg, record.args = f"{line}; {left_out} more lines like this were left out", ()
        return True
