"""The time zone of the tests' own process."""

import contextlib
import time
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def local_time(zone: str) -> Iterator[None]:
    """In the block, the process and those that it starts have the local time of this zone, such as `Pacific/Kiritimati`."""
    with contextlib.ExitStack() as ended:
        ended.callback(time.tzset)
        patched = ended.enter_context(pytest.MonkeyPatch.context())
        patched.setenv("TZ", zone)
        time.tzset()
        yield
