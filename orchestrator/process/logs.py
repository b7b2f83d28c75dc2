"""Log lines: one JSON object each, on standard error."""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from orchestrator.process.actions import LogLine
from orchestrator.process.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Sets up logging for the whole process. Lines of libraries have the same form."""
    # No line has them, and reading them for each line takes as long as writing it.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _StandardError()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    # Below that it writes the URL of each request, with the password in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON: a line of ours with its action and fields, a library's line with its text as `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object, without the end of the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        written: dict[str, object] = {"timestamp": moment, "level": record.levelname.lower(), "logger": record.name}
        if isinstance(record.msg, LogLine):
            written |= {"action": record.msg.action.label, **record.msg.fields}
        else:
            written["event"] = record.getMessage()
        if record.exc_info:
            written["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            written["stack"] = self.formatStack(record.stack_info)
        return _json(written)


class _StandardError(logging.Handler):
    """Writes to standard error. A line is dropped, and the caller continues, when the disk is full or nothing reads."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record as one line."""
        try:
            line = self.format(record).encode() + b"\n"
        except Exception:
            # The arguments of a library's line don't fit its text. Reported as the standard library's handlers report it.
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _json(fields: Mapping[str, object]) -> str:
    try:
        return orjson.dumps(fields, default=repr).decode()
    except TypeError:
        # orjson refuses lone surrogates, integers beyond 64 bits and circular references. The line is written all the same.
        return json.dumps({_text(name): _plain(value) for name, value in fields.items()})


def _plain(value: object) -> object:
    """The value if every JSON parser accepts it, else its repr."""
    if isinstance(value, str):
        return _text(value)
    return value if isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value)) else _text(repr(value))


def _text(value: str) -> str:
    """The text with lone surrogates such as `\\ud800` escaped, because UTF-8 can't encode them."""
    return value.encode(errors="backslashreplace").decode()
