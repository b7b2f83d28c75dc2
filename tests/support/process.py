"""Runs a function of a test module in a process of its own, so that the test can kill it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

from pydantic import SecretStr

from orchestrator.process.settings import Settings
from tests.support.waiting import PATIENCE_S


def environment(settings: Settings) -> dict[str, str]:
    """Returns the environment that gives another process these settings."""
    given = settings.model_dump(include=settings.model_fields_set)
    return os.environ | {
        f"BULKREG_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
    }


@contextlib.contextmanager
def in_process(main: Callable[[], None], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that runs `main`, a function of a module, with these settings. Kills it at the end if it lives."""
    command = [sys.executable, "-c", f"from {main.__module__} import {main.__name__}; {main.__name__}()"]
    with subprocess.Popen(command, env=environment(settings)) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE_S)
