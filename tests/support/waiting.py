"""Waits for another process or thread: checks again until a deadline, instead of sleeping for luck."""

import time
from collections.abc import Callable
from typing import TypeVar

Returned = TypeVar("Returned")

# How long a test waits for what must come. Far beyond what it takes: a machine may be slow, and may stand still for seconds.
# A wait that succeeds costs nothing, whatever the limit is.
PATIENCE_S = 60.0
# How long what a test holds up waits to be released. Longer than the test waits for what must come meanwhile.
HELD_S = 10 * PATIENCE_S

LOOK_EVERY_S = 0.01


def eventually(look: Callable[[], Returned], *, within_s: float = PATIENCE_S, what: str = "") -> Returned:
    """Returns the first true result of `look`. Raises AssertionError when there is none in time."""
    deadline = time.monotonic() + within_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what or look}; the last answer was {answer!r}"
        time.sleep(LOOK_EVERY_S)
    return answer
