"""Canonical JSON as RFC 8785 has it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.receipts.canonical import canonical_json

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_keys_are_in_the_order_of_their_utf_16_code_units() -> None:
    """The example of section 3.2.3: the emoji, which is two surrogates, comes before U+FB33."""
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = json.loads(canonical_json(dict.fromkeys(keys, True)))
    assert list(ordered) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_texts_are_escaped_no_more_than_needed() -> None:
    """The example of section 3.2.2.2."""
    text = "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f"
    assert canonical_json(text) == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'


def test_short_escapes_are_used_where_json_has_them() -> None:
    assert canonical_json("\b\t\n\f\r\x00\x1f\x7f\u2028") == b'"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\xe2\x80\xa8"'


@given(VALUES)
def test_a_document_has_one_text_and_the_text_one_document(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers(0, 9)))
def test_the_order_of_insertion_makes_no_difference(document: dict[str, int]) -> None:
    assert canonical_json(document) == canonical_json(dict(reversed(document.items())))


@pytest.mark.parametrize("value", [1.0, None, 2**53, -(2**53), {"a": [0.5]}, b"bytes", "\ud800"])
def test_what_a_receipt_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"canonical JSON|surrogates"):
        canonical_json(value)
