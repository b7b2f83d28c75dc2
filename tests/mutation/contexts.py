"""A pytest plugin that tells coverage which test is running, also in the processes that the test starts, and how long each test took.

Only `python -m tests.mutation map` uses it.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

# With the prefix that tests/conftest.py leaves in the environment.
CONTEXT = "BULKREG_TEST_COVERAGE_CONTEXT"
DURATIONS = "BULKREG_TEST_COVERAGE_DURATIONS"
_took_s: dict[str, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Everything that runs from here on belongs to this test."""
    running = coverage.Coverage.current()
    if running is not None:
        running.switch_context(item.nodeid)
    os.environ[CONTEXT] = item.nodeid
    # This variable holds the context of this process, and would take precedence over the file, which uses the variable above.
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)
    began_s = time.monotonic()
    result = yield
    _took_s[item.nodeid] = time.monotonic() - began_s
    return result


def pytest_sessionfinish() -> None:
    """Each worker of a parallel run writes a file of its own."""
    Path(os.environ[DURATIONS], f"{os.getpid()}.json").write_text(json.dumps(_took_s))
