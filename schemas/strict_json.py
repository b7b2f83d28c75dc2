"""Strict JSON (RFC 8259) for documents from others: refuses duplicate keys, NaN, numbers that overflow, and deep nesting."""

import json
import math
import re
from typing import Any, NoReturn

import orjson

MAX_JSON_DEPTH = 20
"""The default limit for every document from others. No request, event or key set has more than five levels."""


class BadJsonError(ValueError):
    """The text is not acceptable JSON. The message says why, but never quotes the text, which may contain notes."""


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


# A string without escapes, with its quotes; also an unterminated string at the end of the text.
_STRING = re.compile(rb'"[^"]*"?')

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

# The byte order marks of UTF-16 and UTF-32 in both orders.
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def _check_encoding(raw: bytes) -> None:
    """Raises a helpful error for another encoding. A parser would only report that the first character is wrong."""
    if raw.startswith(b"\xef\xbb\xbf"):
        raise BadJsonError("it begins with a byte order mark; send UTF-8 without one")
    # JSON begins with one or two ASCII characters, each of which has zero bytes in UTF-16 and UTF-32.
    if raw.startswith(_BYTE_ORDER_MARKS) or b"\x00" in raw[:2]:
        raise BadJsonError("it looks like UTF-16 or UTF-32; send UTF-8")


def _without_escapes(raw: bytes) -> bytes:
    """The text without escaped backslashes and quotes, so that each remaining quote begins or ends a string."""
    return raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw


def _check_size(raw: bytes, max_values: int) -> None:
    """Refuses too many values before the parser creates an object for each: three bytes of text can become seventy in memory."""
    if len(raw) <= max_values or _values(raw) <= max_values:
        return
    # Slower but exact, because texts may contain many commas.
    quoted = _without_escapes(raw)
    # A value has at most two strings: itself, and its key in an object.
    if quoted.count(b'"') > 4 * max_values or _values(_STRING.sub(b"", quoted)) > max_values:
        raise BadJsonError(f"it has more than {max_values:,} values; send less at once")


def _values(raw: bytes) -> int:
    """The most values that a text can have: one at its beginning, one after each comma, and one in each list or object that is not empty."""
    empty = raw.count(b"[]") + raw.count(b"{}")
    return 1 + raw.count(b",") + raw.count(b"[") + raw.count(b"{") - empty


def _check_depth(raw: bytes, max_depth: int) -> None:
    """Refuses nesting before the parser recurses into it."""
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    depth = 0
    for bracket in _STRING.sub(b"", _without_escapes(raw)).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise BadJsonError(f"nested deeper than {max_depth} levels")


def loads(raw: bytes, *, max_depth: int, max_values: int | None = None) -> Any:
    """Parses a UTF-8 JSON document. Raises BadJsonError if it is invalid, or has more values than `max_values`.

    A value is a number, a text, true, false, null, a list or an object, at any level. The number of values limits the memory that the document
    takes, and the time for reading it.
    """
    _check_encoding(raw)
    if max_values is not None:
        _check_size(raw, max_values)
    document = _plain(raw, max_depth)
    return _any(raw, max_depth) if document is None else document


def _plain(raw: bytes, max_depth: int) -> dict[str, Any] | None:
    """The document if a fast parser is enough to validate it; None if `_any` has to check it. Five times as fast as `_any`: 30 instead of 160 µs
    for a batch of 25, which the API and the splitter each read once.

    orjson checks the whole grammar, but keeps the last of two equal keys and accepts 1e400. So the document must have no floats, and as many
    keys as the text. Without escapes, every quote begins or ends a string, so a key is followed by a quote and a colon, apart from blanks.
    Counting too many (a string that begins with a colon) only costs the check by `_any`.
    """
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    keys = 0
    level: list[Any] = [document]
    for _ in range(max_depth):
        below: list[Any] = []
        for container in level:
            if isinstance(container, dict):
                keys += len(container)
                container = container.values()
            for value in container:
                kind = type(value)
                if kind is dict or kind is list:
                    below.append(value)
                elif kind is float:
                    return None
        if not below:
            return document if keys == _without_escapes(raw).translate(None, b" \t\r\n").count(b'":') else None
        level = below
    return None  # too deep


def _any(raw: bytes, max_depth: int) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadJsonError("not UTF-8") from error
    _check_depth(raw, max_depth)
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise BadJsonError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except ValueError as error:
        # An integer of more digits than Python converts (its denial-of-service limit).
        raise BadJsonError(str(error) if isinstance(error, BadJsonError) else "a number is too large") from error
