"""A gate for the processes of a home: they start early, load their code, and wait until everything that they need is ready."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def closed(gate: Path) -> Iterator[None]:
    """Keeps the gate closed in the block. The kernel opens it, too, if this process ends."""
    with gate.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def pass_through(gate: Path) -> None:
    """Returns at once if the gate is open, and otherwise when it opens."""
    with gate.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
