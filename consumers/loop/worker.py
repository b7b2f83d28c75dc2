"""A thread that runs one task at a time for another thread."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

Returned = TypeVar("Returned")


class Worker(Generic[Returned]):
    """Its thread is a daemon, unlike those of a ThreadPoolExecutor: one that waits for a frozen database must not keep the process
    alive."""

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Callable[[], Returned], Future[Returned]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: Callable[[], Returned]) -> Future[Returned]:
        """Runs the task in the thread. The future gets its result, or its exception."""
        future: Future[Returned] = Future()
        self._tasks.put((task, future))
        return future

    def close(self) -> None:
        """Ends the thread after the tasks it has been given. Does not wait."""
        self._tasks.put(None)

    def _run(self) -> None:
        while (given := self._tasks.get()) is not None:
            task, future = given
            try:
                answer = task()
            except BaseException as error:  # the other thread handles it
                future.set_exception(error)
            else:
                future.set_result(answer)
