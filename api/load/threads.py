"""Worker threads with a queue of limited length, and a deadline after which a request is answered in any case."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from api.http.problems import RETRY_AFTER_UNAVAILABLE_S, ProblemError, overloaded, retry_after

Result = TypeVar("Result")

# A request that waited this long for a thread is rejected: its client has probably given up, and the queue empties quickly.
_MAX_WAIT_S = 5.0


class Threads:
    """Some threads for one kind of work. When they all hang, only work of this kind waits."""

    def __init__(self, name: str, *, threads: int, most_waiting: int, deadline_s: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"api-{name}")
        self._room = threading.BoundedSemaphore(most_waiting)
        self._deadline_s = deadline_s

    async def run(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in a thread. Raises ProblemError: `overloaded` when too much is waiting, or it waited too long for a thread;
        `database_unavailable` when it has not returned by the deadline. It may still have an effect then: a thread can't be stopped.
        """
        if not self._room.acquire(blocking=False):
            raise overloaded("Too many requests are waiting. Repeat the request after Retry-After.")
        latest = time.monotonic() + _MAX_WAIT_S

        def in_turn() -> Result:
            if time.monotonic() > latest:
                raise overloaded("The request waited too long for its turn. Nothing was changed; repeat it after Retry-After.")
            return work()

        future = self._pool.submit(in_turn)
        future.add_done_callback(lambda _: self._room.release())
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.cancelled():
                raise overloaded(
                    "The request waited too long for its turn. Nothing was changed; repeat it after Retry-After."
                ) from None
            raise ProblemError(
                "database_unavailable",
                f"The database did not respond within {self._deadline_s:g} s. The result is unknown. "
                "Repeat the request with the same Idempotency-Key.",
                headers=retry_after(RETRY_AFTER_UNAVAILABLE_S),
            ) from None

    def close(self) -> None:
        """Waits for running work."""
        self._pool.shutdown()
