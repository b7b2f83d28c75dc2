"""Canonical JSON (RFC 8785): each document has exactly one text, so that its hash means something."""

import json
from typing import Any

_LARGEST_INTEGER = 2**53 - 1
"""A larger integer is not exact in every reader of JSON (RFC 8785 refers to I-JSON, RFC 7493)."""


def canonical_json(document: Any) -> bytes:
    """The only text of a document of objects, lists, texts, integers and booleans. Raises ValueError for anything else.

    Receipts need no other values, so numbers with a fraction and null are refused instead of written.
    """
    return json.dumps(_ordered(document), ensure_ascii=False, separators=(",", ":")).encode()


def _ordered(value: Any) -> Any:
    """The value with the keys of every object in the order of their UTF-16 code units, as the RFC has it."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value, key=_utf16)}
    if isinstance(value, list | tuple):
        return [_ordered(each) for each in value]
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INTEGER:
        return value
    raise ValueError(f"canonical JSON of a receipt has no {type(value).__name__} like this one")


def _utf16(key: str) -> bytes:
    return key.encode("utf-16-be")
