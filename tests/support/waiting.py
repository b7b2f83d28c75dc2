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

# A look takes CPU from what is waited for. So the pauses between two looks grow to a tenth of the time waited, up to the longer one.
SHORTEST_PAUSE_S = 0.01
LONGEST_PAUSE_S = 0.05


def eventually(look: Callable[[], Returned], *, within_s: float = PATIENCE_S, what: str = "") -> Returned:
    """Returns the first true result of `look`. Raises AssertionError when there is none in time."""
    began_s = time.monotonic()
    while not (answer := look()):
        waited_s = time.monotonic() - began_s
        assert waited_s < within_s, f"not within {within_s} s: {what or look}; the last answer was {answer!r}"
        time.sleep(min(max(SHORTEST_PAUSE_S, waited_s / 10), LONGEST_PAUSE_S))
    return answer
