"""JSON as RFC 8259 means it, for what strangers send: no duplicate keys, no NaN, no overflowing number, no bottomless nesting."""

import json
import math
import re
from typing import Any, NoReturn


class BadJsonError(ValueError):
    """The text is not acceptable JSON; the message says why, and never quotes the text (it may hold notes)."""


def _no_constant(name: str) -> NoReturn:
    raise BadJsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise BadJsonError("a number is too large")
    return number


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadJsonError("an object has the same key twice")
    return result


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


# Everything that is no bracket, and every string with what is in it.
_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[^\[\]{}"]+', re.DOTALL)


def _check_depth(text: str, max_depth: int) -> None:
    """Refuses nesting before the parser recurses into it."""
    if text.count("[") + text.count("{") <= max_depth:
        return
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > max_depth:
            raise BadJsonError(f"nested deeper than {max_depth} levels")


def loads(raw: bytes, *, max_depth: int) -> Any:
    """Parses a UTF-8 JSON document. Raises BadJsonError on everything that is not one."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadJsonError("not UTF-8") from error
    _check_depth(text, max_depth)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJsonError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        # An integer of more digits than Python converts (its denial-of-service limit).
        raise BadJsonError(str(error) if isinstance(error, BadJsonError) else "a number is too large") from error
