"""When an event is tried again, and when a webhook is disabled."""

import random
from collections.abc import Callable
from datetime import timedelta

TRIED_FOR = timedelta(days=3)
"""After this time an event counts as not delivered."""

DISABLED_AFTER = timedelta(days=7)
"""A webhook that has failed for this long, without a success in between, is disabled."""

_FIRST_PAUSE_S = 5.0
_FACTOR = 3.0
_LONGEST_PAUSE_S = 12 * 3600.0


def pause_after(attempts: int, jitter: Callable[[], float] = random.random) -> timedelta:
    """The pause after so many failed attempts: 5 s, then three times as long each, at most 12 hours; with jitter between half and all of it.

    That is about fifteen attempts in three days.
    """
    longest_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * _FACTOR ** min(attempts - 1, 20))
    return timedelta(seconds=longest_s * (1 + jitter()) / 2)
