"""Mistakes in a statement, found in its text, in a Python string or in a `.sql` file.

A pair of braces in an f-string is one opaque token, and so is a quoted string.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.mutation.mutant import Kind

LOOKS_LIKE_SQL = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|WHERE|ORDER BY|FROM unnest|JOIN)\b")

_TOKEN = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\{[^{}]*\}|:\w+|%\(\w+\)s|\w+(?:\.\w+)*|<>|<=|>=|!=|::|\|\||[^\s\w]")

# Words that end a condition or a list at their own depth.
_ENDS = re.compile(
    "WHERE|GROUP|ORDER|LIMIT|RETURNING|FOR|ON|JOIN|LEFT|INNER|CROSS|UNION|HAVING|SET|FROM|USING|DO|THEN|ELSE|END|WHEN|WITH|VALUES|WINDOW|SELECT"
)

# The words of a row lock. OF is followed by the name of a table.
_LOCK_WORDS = ("UPDATE", "SHARE", "KEY", "OF", "SKIP", "LOCKED", "NOWAIT")


@dataclass(frozen=True, slots=True)
class Edit:
    """Character offsets in the statement's text."""

    start: int
    end: int
    replacement: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int
    depth: int

    @property
    def word(self) -> str:
        return self.text.upper() if self.text.isupper() else ""


def edits(text: str) -> Iterator[Edit]:
    """Every mistake of these kinds that can be made in this text."""
    tokens = list(_tokens(text))
    for index, token in enumerate(tokens):
        yield from _boundaries(tokens, index)
        yield from _conditions(tokens, index)
        yield from _lists(tokens, index)
        yield from _words(tokens, index, token)


def _tokens(text: str) -> Iterator[_Token]:
    depth = 0
    for found in _TOKEN.finditer(text):
        if found[0].startswith("--"):
            continue
        if found[0] == ")":
            depth -= 1
        yield _Token(found[0], found.start(), found.end(), depth)
        if found[0] == "(":
            depth += 1


def _boundaries(tokens: Sequence[_Token], index: int) -> Iterator[Edit]:
    token = tokens[index]
    other = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}.get(token.text)
    if other is not None and index and tokens[index - 1].text not in ("-", "<", ">", "=", "@") and tokens[index + 1].text != "@":
        yield Edit(token.start, token.end, other, Kind.SQL_BOUNDARY)
    if token.text == "1" and index and tokens[index - 1].text in ("+", "-"):
        yield Edit(token.start, token.end, "2", Kind.SQL_BOUNDARY)
    if token.word == "LIMIT" and index + 1 < len(tokens) and tokens[index + 1].text != "(":
        limit = tokens[index + 1]
        yield Edit(limit.end, limit.end, " + 1", Kind.SQL_BOUNDARY)


def _conditions(tokens: Sequence[_Token], index: int) -> Iterator[Edit]:
    """One condition of several, or the only one."""
    token = tokens[index]
    if token.word in ("AND", "OR") and not _is_between(tokens, index):
        end = _end_of(tokens, index + 1, also=("AND", "OR"))
        if end > index + 1:
            yield Edit(token.start, tokens[end - 1].end, "", Kind.SQL_CLAUSE)
    if token.word in ("WHERE", "ON") and index + 1 < len(tokens) and not _is_no_condition(tokens, index):
        first = index + 1
        end = _end_of(tokens, first, also=("AND", "OR"))
        # A condition that the text does not contain completely can't be judged.
        if end > first and not (token.word == "ON" and tokens[first].text == "("):
            yield Edit(tokens[first].start, tokens[end - 1].end, "true", Kind.SQL_CLAUSE)


def _is_no_condition(tokens: Sequence[_Token], index: int) -> bool:
    """Whether something else than a condition stands behind WHERE or ON, or nothing that could be left out."""
    return tokens[index + 1].word == "CONFLICT" or tokens[index + 1].text == "true" or _is_of_index(tokens, index)


def _is_of_index(tokens: Sequence[_Token], index: int) -> bool:
    return tokens[index].word == "ON" and any(token.word == "INDEX" for token in tokens[max(0, index - 3) : index])


def _is_between(tokens: Sequence[_Token], index: int) -> bool:
    depth = tokens[index].depth
    for earlier in reversed(tokens[:index]):
        if earlier.depth < depth:
            return False
        if earlier.depth == depth and earlier.word in ("AND", "OR", "WHERE", "ON"):
            return False
        if earlier.depth == depth and earlier.word == "BETWEEN":
            return True
    return False


def _end_of(tokens: Sequence[_Token], first: int, *, also: Sequence[str] = ()) -> int:
    """The index behind the expression that begins at `first`: at the end of its depth, or at a word that ends it."""
    if first >= len(tokens):
        return first
    depth, cases = tokens[first].depth, 0
    for index in range(first, len(tokens)):
        token = tokens[index]
        if token.depth < depth or (
            token.depth == depth and token.text == ")" and index > first and tokens[first].depth > token.depth
        ):
            return index
        if token.depth == depth and token.word == "CASE":
            cases += 1
        elif token.depth == depth and cases:
            cases -= token.word == "END"
        elif (
            token.depth == depth
            and index > first
            and ((_ENDS.fullmatch(token.word) and not _is_distinct_from(tokens, index)) or token.word in also)
        ):
            if token.word in also and _is_between(tokens, index):
                continue
            return index
        elif token.depth == depth and token.text == ";":
            return index
    return len(tokens)


def _is_distinct_from(tokens: Sequence[_Token], index: int) -> bool:
    return tokens[index].word == "FROM" and index > 0 and tokens[index - 1].word == "DISTINCT"


def _lists(tokens: Sequence[_Token], index: int) -> Iterator[Edit]:
    """The columns of ORDER BY, the assignments of SET, the columns of USING."""
    token = tokens[index]
    if token.word == "BY" and index and tokens[index - 1].word == "ORDER":
        elements = _elements(tokens, index + 1)
        if len(elements) > 1:
            yield from _dropped(tokens, elements[-1:], elements, Kind.SQL_ORDER)
        elif elements:
            yield Edit(tokens[index - 1].start, tokens[elements[0][1] - 1].end, "", Kind.SQL_ORDER)
    if token.word == "SET" and (not index or tokens[index - 1].word != "TRANSACTION"):
        elements = _elements(tokens, index + 1)
        if len(elements) > 1 and all("=" in (one.text for one in tokens[first:end]) for first, end in elements):
            yield from _dropped(tokens, elements, elements, Kind.SQL_FIELD)
    if token.word == "USING" and index + 2 < len(tokens) and tokens[index + 1].text == "(" and tokens[index + 2].word != "SELECT":
        elements = _elements(tokens, index + 2)
        if len(elements) > 1:
            yield from _dropped(tokens, elements, elements, Kind.SQL_FIELD)


def _elements(tokens: Sequence[_Token], first: int) -> list[tuple[int, int]]:
    """The index ranges of the elements between commas, from `first` to the end of the list."""
    if first >= len(tokens):
        return []
    end = _end_of(tokens, first)
    elements, begin = [], first
    for index in range(first, end):
        if tokens[index].text == "," and tokens[index].depth == tokens[first].depth:
            elements.append((begin, index))
            begin = index + 1
    elements.append((begin, end))
    return [(begin, end) for begin, end in elements if end > begin]


def _dropped(
    tokens: Sequence[_Token], which: Sequence[tuple[int, int]], elements: Sequence[tuple[int, int]], kind: Kind
) -> Iterator[Edit]:
    for first, end in which:
        is_last = (first, end) == elements[-1]
        start = tokens[first - 1].start if is_last else tokens[first].start
        yield Edit(start, tokens[end - 1].end if is_last else tokens[end].end, "", kind)


def _words(tokens: Sequence[_Token], index: int, token: _Token) -> Iterator[Edit]:
    following = tokens[index + 1].word if index + 1 < len(tokens) else ""
    if token.word == "DESC":
        yield Edit(token.start, token.end, "ASC", Kind.SQL_ORDER)
    elif token.word == "LEFT" and following == "JOIN":
        yield Edit(token.start, token.end, "INNER", Kind.SQL_JOIN)
    elif (
        token.word == "DISTINCT"
        and following not in ("FROM", "ON")
        and (not index or tokens[index - 1].word not in ("IS", "NOT"))
    ):
        yield Edit(token.start, token.end, "", Kind.SQL_JOIN)
    elif token.text.lower() in ("greatest", "least", "max", "min") and index + 1 < len(tokens) and tokens[index + 1].text == "(":
        other = {"greatest": "least", "least": "greatest", "max": "min", "min": "max"}[token.text.lower()]
        yield Edit(token.start, token.end, other, Kind.SQL_JOIN)
    elif token.word == "FOR" and following in ("UPDATE", "SHARE", "KEY", "NO"):
        end = index + 2
        while end < len(tokens) and (tokens[end - 1].word == "OF" or tokens[end].word in _LOCK_WORDS):
            end += 1
        yield Edit(token.start, tokens[end - 1].end, "", Kind.SQL_LOCK)
