"""Saves a download in a file: a new file appears whole or not at all, and an existing special file stays what it is."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cli.terminal.failures import UnwritableError
from cli.terminal.output import printable

# Folders with names of files that are open elsewhere. Through such a name, another program holds the file.
_OPEN_ELSEWHERE = (Path("/dev"), Path("/proc"))


@contextmanager
def saved_to(file: Path) -> Iterator[IO[bytes]]:
    """Yields a file. What is written to it is saved when the block ends, and not at all when the block fails. Raises UnwritableError.

    A regular file, or the target of a link, is replaced and keeps its permissions. A device, a pipe, or a file with several names is
    written to in place.
    """
    try:
        target = file.resolve()
        with _replacement(target) if _is_replaced(file, target) else _content_of(file) as out:
            yield out
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise UnwritableError(f"{printable(file)} can't be written: {reason}") from error


def _is_replaced(file: Path, target: Path) -> bool:
    """Whether a complete file may replace what is there: nothing, or a regular file with one name, in a folder of ours."""
    if any(file.absolute().is_relative_to(folder) for folder in _OPEN_ELSEWHERE):
        return False
    if not os.access(target.parent, os.W_OK | os.X_OK):
        return False
    try:
        found = target.stat()
    except FileNotFoundError:
        return True
    # A file that may not be written is not replaced either; opening it raises the error.
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid() and os.access(target, os.W_OK)


@contextmanager
def _replacement(target: Path) -> Iterator[IO[bytes]]:
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask()
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name[:50]}.", delete=False) as out:
        unfinished = Path(out.name)
        try:
            yield out
            out.flush()
            unfinished.chmod(mode)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def _content_of(file: Path) -> Iterator[IO[bytes]]:
    # Collect everything before writing the first byte, because half a file of results looks like a whole one.
    with tempfile.TemporaryFile() as whole:
        yield whole
        whole.seek(0)
        with file.open("wb") as out:
            shutil.copyfileobj(whole, out)


def _umask() -> int:
    """Returns this process's umask: the permissions that new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
