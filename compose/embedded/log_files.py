"""Keeps the logs of a home from filling its disk while what writes them goes on running."""

import contextlib
import os
import shutil
from pathlib import Path

LOG_LIMIT_BYTES = 20 * 1024 * 1024  # of one log; with the one before it a log takes twice as much
LOOK_EVERY_S = 5.0  # the API writes 1 MB in a second at most: a log is over its limit by a quarter when somebody looks

_BEFORE = ".1.log"


def shorten_logs(directory: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Sets aside what each log that is too long holds (`api.log` as `api.1.log`, in the place of the one before), and empties it.

    It is copied, because its writers keep it open; they append, so their next line is the first. A line that is written between the copy and
    the emptying, some microseconds, is lost. Where the disk has no room for the copy, the log is emptied all the same.
    """
    for log in directory.glob("*.log"):
        if log.name.endswith(_BEFORE):
            continue
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > limit_bytes:
                _set_aside(log)


def _set_aside(log: Path) -> None:
    unfinished = log.with_suffix(".1.new")
    with log.open("r+b") as content:
        try:
            with unfinished.open("wb") as copy:
                os.fchmod(copy.fileno(), 0o600)
                shutil.copyfileobj(content, copy, 1024 * 1024)
            unfinished.replace(log.with_suffix(_BEFORE))
        except OSError:
            unfinished.unlink(missing_ok=True)
        content.truncate(0)
