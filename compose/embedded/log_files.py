"""Keeps the logs of a home from filling the disk while their writers keep running."""

import contextlib
import os
import shutil
from pathlib import Path

LOG_LIMIT_BYTES = 20 * 1024 * 1024  # of one log; together with its predecessor a log takes twice as much
LOOK_EVERY_S = 5.0  # the API writes 1 MB a second at most, so a log exceeds its limit by a quarter at most

_BEFORE = ".1.log"


def shorten_logs(directory: Path, limit_bytes: int = LOG_LIMIT_BYTES) -> None:
    """Moves the content of each log that is too long aside (`api.log` to `api.1.log`, replacing the one before), and empties the log.

    The content is copied, because writers keep the log open. They append, so their next line becomes the first. A line that is written
    between copying and emptying, within some microseconds, is lost. If the disk has no room for the copy, the log is emptied all the same.
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
