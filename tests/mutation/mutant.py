"""One plausible mistake: an edit of one file, and the lines that a test has to run to notice it."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of mistakes that people make in such code."""

    BOUNDARY = "boundary"
    """`<` for `<=`, one too few, floor for ceiling, the smallest for the largest."""
    CONDITION = "condition"
    """A guard, or one operand of a condition, is missing."""
    LEFT_OUT = "left out"
    """A call that publishes, records or locks something is missing."""
    FIELD = "field"
    """An element is missing from a hash, a comparison, a copy, a message or a list of codes."""
    ORDER = "order"
    """Two steps are in the other order."""
    UNIT = "unit"
    """Seconds for milliseconds, days for hours."""
    NEIGHBOUR = "neighbour"
    """A state, a code or a topic is mistaken for a similar one."""
    SQL_CLAUSE = "SQL: clause"
    """A condition is missing from WHERE, ON or FILTER."""
    SQL_BOUNDARY = "SQL: boundary"
    """An inclusive bound becomes exclusive, or is one more or less."""
    SQL_ORDER = "SQL: order"
    """A column is missing from ORDER BY, or its direction is reversed."""
    SQL_FIELD = "SQL: field"
    """An assignment is missing from SET, or a column from USING."""
    SQL_JOIN = "SQL: join"
    """An outer join becomes an inner one, duplicates are kept or removed, or the greatest is taken for the least."""
    SQL_LOCK = "SQL: lock"
    """A row lock is missing."""

    @property
    def is_sql(self) -> bool:
        """Whether it is an edit of a statement."""
        return self.value.startswith("SQL")


@dataclass(frozen=True, slots=True)
class Mutant:
    """`start` and `end` are byte offsets in the file. `names` are the constants that the edit changes.

    In a `.sql` file, `names` is the statement.
    """

    path: str
    start: int
    end: int
    replacement: str
    kind: Kind
    line: int
    end_line: int
    original: str
    names: frozenset[str] = frozenset()
    context: str = ""
    """The whole line, for people, and so that an id stays the same when lines above it move."""

    @property
    def id(self) -> str:
        """Stays the same as long as the line and its file do."""
        text = "\0".join((self.path, self.kind, self.context, self.original, self.replacement))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def summary(self) -> str:
        """The change, on one line."""
        return f"{self.path}:{self.line} [{self.kind}] {_one_line(self.original)} -> {_one_line(self.replacement) or 'nothing'}"


def _one_line(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 90 else folded[:87] + "..."


def apply(source: bytes, mutants: Iterable[Mutant]) -> bytes:
    """The source with all of these edits. Raises ValueError if two of them overlap."""
    last = len(source)
    for mutant in sorted(mutants, key=lambda mutant: mutant.start, reverse=True):
        if mutant.end > last:
            raise ValueError(f"overlaps another mutant: {mutant.summary}")
        source = source[: mutant.start] + mutant.replacement.encode() + source[mutant.end :]
        last = mutant.start
    return source


def by_path(mutants: Iterable[Mutant]) -> Mapping[str, list[Mutant]]:
    """The mutants of each file."""
    paths: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        paths.setdefault(mutant.path, []).append(mutant)
    return paths
