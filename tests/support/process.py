"""Processes that a test starts, and ends if it fails."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from pydantic import SecretStr

from orchestrator.process.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Returns the environment that gives another process these settings."""
    given = settings.model_dump(include=settings.model_fields_set)
    return os.environ | {
        f"BULKREG_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in given.items()
    }


@contextlib.contextmanager
def started(
    command: Sequence[str], env: Mapping[str, str], *, stdout: int | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that runs the command. Kills it at the end if it lives: `Popen` alone waits for it then, for ever after a test that
    has failed."""
    with subprocess.Popen(command, env=env, stdout=stdout, stderr=stderr) as process:
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def in_process(main: Callable[[], None], settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Yields a process that runs `main`, a function of a module, with these settings. Kills it at the end if it lives."""
    command = [sys.executable, "-c", f"from {main.__module__} import {main.__name__}; {main.__name__}()"]
    with started(command, environment(settings)) as process:
        yield process
