"""What the C library's allocator and Python's garbage collector are told, in processes that hold much memory."""

import ctypes
import gc
from collections.abc import Callable

# GNU's libc has it; where another one keeps free memory, or doesn't, it decides itself.
_TRIM: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)

# The cyclic collector walks all living objects each time so many more objects were made than freed, 700 by default: with some thousand
# records in the lanes, that is all of them several times over for each micro-batch, to find nothing. Measured with the loop alone: 28
# instead of 48 µs of CPU per record. Reference counts free the records; cycles (of errors, mostly) wait a little longer.
THRESHOLDS = (50_000, 20, 100)


def give_free_memory_back() -> None:
    """Frees what only cycles hold, as those of an exception and its traceback, and returns the free pages between those in use to the
    system (malloc_trim(3)).

    By itself the allocator gives back only what is free at its end. After one batch of 10,000 the API kept 40 MB so, after one refused
    body of 16 MiB 86 MB.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


def relieve_collector() -> None:
    """To be called once by a process that runs roles, when it has imported what it needs."""
    gc.collect()
    # Modules, classes and statements live as long as the process: they are not walked again.
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
