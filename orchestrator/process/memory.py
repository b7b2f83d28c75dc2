"""Tunes the C library's allocator and Python's garbage collector in processes that hold much memory."""

import ctypes
import gc
import threading
from collections.abc import Callable

# Only GNU's libc has malloc_trim. Another C library decides by itself when to return free memory.
_TRIM: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)

# The cyclic collector runs when this many more objects were made than freed (700 by default) and walks the living ones. With some thousand
# records in the lanes, it would walk all of them several times for each micro-batch and find nothing. Measured with the loop alone: 28
# instead of 48 µs of CPU per record. Reference counts free the records, and `free_memory_until` the cycles.
THRESHOLDS = (50_000, 20, 100)

# Each error of the database is a cycle of some 70 objects, with all that the functions on its way had in hand: a micro-batch, say. They are too
# few for these thresholds: a process whose servers are harmed would keep an hour of them, some tens of MB. And what Kafka's client queues during
# an outage leaves free pages between used ones: 50,000 results took 58 MB, and 52 MB stayed after they had been freed. Both together take some
# milliseconds, up to 40 after an outage. No lock of Python is held while pages are returned.
FREE_EVERY_S = 60.0


def give_free_memory_back() -> None:
    """Collects cycles, such as an exception and its traceback, and returns all free pages to the system (malloc_trim(3)).

    By itself the allocator returns only the free memory at the end of a heap. So the API kept 40 MB after one batch of 10,000, and 86 MB after
    one refused body of 16 MiB.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


def postpone_collector() -> None:
    """Keeps the collector from running until `relieve_collector`. A process that runs roles calls this before its imports: what they make
    stays, and walking it again and again took a sixth of the CPU of a start."""
    gc.disable()


def relieve_collector() -> None:
    """Makes the collector run rarely. A process that runs roles calls this once, after its imports."""
    gc.collect()
    # Modules, classes and statements live as long as the process, so the collector need not walk them again.
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()


def free_memory_until(ended: threading.Event, every_s: float = FREE_EVERY_S) -> None:
    """Gives free memory back at intervals. Returns when the event is set."""
    while not ended.wait(every_s):
        give_free_memory_back()
