"""Log lines: one JSON object each, on standard error."""

import contextlib
import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from orchestrator.process.actions import Line
from orchestrator.process.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Sets up logging for the whole process; libraries' lines come out in the same form."""
    handler = _StandardError()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """Writes a record as JSON. A line of ours has its action and fields, a library's its text as `event`."""

    def format(self, record: logging.LogRecord) -> str:
        """The JSON object, without the end of the line."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        written: dict[str, object] = {"timestamp": moment, "level": record.levelname.lower(), "logger": record.name}
        if isinstance(record.msg, Line):
            written |= {"action": record.msg.action.label, **record.msg.fields}
        else:
            written["event"] = record.getMessage()
        if record.exc_info:
            written["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            written["stack"] = self.formatStack(record.stack_info)
        return _json(written)


class _StandardError(logging.Handler):
    """Standard error, for lines that may get lost: the caller goes on when the disk is full or when nothing reads."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record as one line."""
        try:
            line = self.format(record).encode() + b"\n"
        except Exception:
            # A library's line whose arguments don't fit its text. The handler says so, as the standard library's do.
            self.handleError(record)
            return
        with contextlib.suppress(OSError):
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()


def _json(fields: Mapping[str, object]) -> str:
    try:
        return orjson.dumps(fields, default=repr).decode()
    except TypeError:
        # Lone surrogates, integers beyond 64 bits, what contains itself: whatever others have sent, the line is written.
        return json.dumps({_text(name): _plain(value) for name, value in fields.items()})


def _plain(value: object) -> object:
    """The value where every reader of JSON takes it; else how Python writes it."""
    if isinstance(value, str):
        return _text(value)
    return value if isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value)) else _text(repr(value))


def _text(value: str) -> str:
    """The text with `\\ud800` and the like spelled out: they have no place in UTF-8."""
    return value.encode(errors="backslashreplace").decode()
