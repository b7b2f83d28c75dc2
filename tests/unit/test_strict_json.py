"""The fast JSON parser never returns anything other than the strict one."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import strict_json

MAX_DEPTH = 4

TEXTS = st.text(st.sampled_from('ab":,{}[]\\\u00e6\u0001 '), max_size=6)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**63, 2**70), st.floats(allow_nan=False, allow_infinity=False), TEXTS
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def answer(read: Any, raw: bytes) -> Any:
    try:
        return read(raw, max_depth=MAX_DEPTH)
    except strict_json.BadJsonError:
        return "refused"


def strictly(raw: bytes, *, max_depth: int) -> Any:
    return strict_json._any(raw, max_depth)


@given(
    document=st.dictionaries(TEXTS, DOCUMENTS, max_size=4),
    ascii_only=st.booleans(),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (",", " :")]),
    damage=st.tuples(
        st.integers(0, 200), st.sampled_from([b"", b'"', b":", b'"a":1,', b"{", b"]", b"1e400", b"NaN", b"\xff", b"0"])
    ),
)
@example(document={"a": 1, "b": {"a": 2}}, ascii_only=False, separators=(",", ":"), damage=(1, b'"a":1,'))
@example(document={"a": 1}, ascii_only=False, separators=(",", " :"), damage=(1, b'"a":1,'))
@example(document={"a": [[[[1]]]]}, ascii_only=False, separators=(",", ":"), damage=(0, b""))
def test_it_reads_and_refuses_the_same_documents_as_the_strict_parser(
    document: dict[str, Any], ascii_only: bool, separators: tuple[str, str], damage: tuple[int, bytes]
) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode()
    place, inserted = damage
    raw = raw[:place] + inserted + raw[place:]
    assert repr(answer(strict_json.loads, raw)) == repr(answer(strictly, raw))


@pytest.mark.parametrize(
    "raw", [b'{"a":1,"b":[{"a":"x"}]}', '{"æ":"ø"}'.encode(), rb'{"a":"line\n\"quoted\" \\","b\"":"\u00e6"}', rb'{"a":"\\"}']
)
def test_an_ordinary_document_takes_the_fast_way(raw: bytes) -> None:
    assert strict_json._plain(raw, MAX_DEPTH) == json.loads(raw)


@given(document=DOCUMENTS, separators=st.sampled_from([(",", ":"), (", ", ": ")]), ascii_only=st.booleans())
@example(document={"a": ",,,,,", 'b"': '["\\'}, separators=(",", ":"), ascii_only=True)
def test_as_many_values_as_allowed_are_read(document: Any, separators: tuple[str, str], ascii_only: bool) -> None:
    raw = json.dumps(document, ensure_ascii=ascii_only, separators=separators).encode()
    assert repr(strict_json.loads(raw, max_depth=50, max_values=values(document))) == repr(document)


def values(document: Any) -> int:
    inner = document if isinstance(document, list) else list(document.values()) if isinstance(document, dict) else None
    return 1 + sum(map(values, inner or ()))


@pytest.mark.parametrize(
    "raw",
    [
        b"[" + b"1," * 100 + b"1]",
        b"[" + b"{}," * 60 + b"1]",
        b'{"a":[' + b'"",' * 150 + b"1]}",
        b'{"a":"",' + b"[" * 60,
    ],
    ids=["numbers", "objects", "strings", "damaged"],
)
def test_too_many_values_are_refused_before_they_are_parsed(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_plain", None)
    with pytest.raises(strict_json.BadJsonError, match="more than 50 values"):
        strict_json.loads(raw, max_depth=MAX_DEPTH, max_values=50)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("{}".encode("utf-8-sig"), "byte order mark"),
        ("{}".encode("utf-16"), "UTF-16"),
        ("{}".encode("utf-16-le"), "UTF-16"),
        ("{}".encode("utf-16-be"), "UTF-16"),
        ("{}".encode("utf-32"), "UTF-16 or UTF-32"),
        ("{}".encode("utf-32-be"), "UTF-16 or UTF-32"),
        ("1".encode("utf-16-le"), "UTF-16"),
    ],
)
def test_another_encoding_is_named(raw: bytes, said: str) -> None:
    with pytest.raises(strict_json.BadJsonError, match=said):
        strict_json.loads(raw, max_depth=MAX_DEPTH)


def test_no_ordinary_document_is_mistaken_for_another_encoding() -> None:
    assert strict_json.loads(b"1", max_depth=MAX_DEPTH) == 1
    assert strict_json.loads('"Ā"'.encode(), max_depth=MAX_DEPTH) == "Ā"
