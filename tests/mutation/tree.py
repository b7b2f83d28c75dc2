"""Finds what can be mutated. It searches the tree, because modules and statements move."""

import ast
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.mutation import python, sql
from tests.mutation.mutant import Mutant, apply

PACKAGES = ("api", "consumers", "orchestrator", "producers", "schemas")
# These files decide nothing: a schema's history, generated or published documents, examples, and code that only measures or prints.
_LEFT_OUT = re.compile(
    r"/(migrations|console)/|/(__init__|openapi|documentation|asyncapi|examples|publish|metrics|logs|failpoints|access_log|memory)\.py$"
)

_NAMED = re.compile(r"^-- name: *(\w+)", re.MULTILINE)


def modules(root: Path) -> list[Path]:
    """The files that decide something, relative to the root."""
    found = [path.relative_to(root) for package in PACKAGES for path in sorted((root / package).rglob("*"))]
    return [path for path in found if path.suffix in (".py", ".sql") and not _LEFT_OUT.search(f"/{path.as_posix()}")]


def all_mutants(root: Path) -> list[Mutant]:
    """Every mistake that can be made in the tree, in a fixed order."""
    paths = modules(root)
    members = python.enumerations([(root / path).read_bytes() for path in paths if path.suffix == ".py"])
    return [mutant for path in paths for mutant in _mutants(path.as_posix(), (root / path).read_bytes(), members)]


def _mutants(path: str, content: bytes, members: python.Members) -> Iterator[Mutant]:
    if path.endswith(".py"):
        yield from python.mutants(path, content, members)
        return
    yield from _in_statements(path, content.decode())


def _in_statements(path: str, text: str) -> Iterator[Mutant]:
    """Each statement by itself, because a condition does not continue in the next one."""
    lines = text.splitlines()
    begun = [*_NAMED.finditer(text)]
    ends = [*(found.start() for found in begun[1:]), len(text)]
    for found, end in zip(begun, ends, strict=True):
        for edit in sql.edits(text[found.start() : end]):
            first, last = found.start() + edit.start, found.start() + edit.end
            line = text.count("\n", 0, first) + 1
            yield Mutant(
                path=path,
                start=len(text[:first].encode()),
                end=len(text[:last].encode()),
                replacement=edit.replacement,
                kind=edit.kind,
                line=line,
                end_line=text.count("\n", 0, last) + 1,
                original=text[first:last],
                names=frozenset([found[1]]),
                # Two statements may have the same line.
                context=f"{found[1]}: {lines[line - 1].strip()}",
            )


def sample(root: Path, mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """This many, drawn at random, half of them in SQL. No two change the same bytes, so all of them can be applied at once.

    An edit that leaves no valid program is not drawn, such as one that removes only one parenthesis. Nobody makes such a mistake. Nor is one
    that changes nothing, such as `true` for `true`.
    """
    generator = random.Random(seed)
    chosen: list[Mutant] = []
    for is_sql in (True, False):
        pool = [mutant for mutant in mutants if mutant.kind.is_sql is is_sql]
        generator.shuffle(pool)
        wanted = len(chosen) + count // 2
        for mutant in pool:
            if len(chosen) == wanted:
                break
            # A module may have the same line twice. The session could not tell these mutants apart.
            is_new = not any(_touch(mutant, other) or mutant.id == other.id for other in chosen)
            if is_new and _is_mistake(root, mutant):
                chosen.append(mutant)
    return chosen


def _is_mistake(root: Path, mutant: Mutant) -> bool:
    if mutant.original == mutant.replacement:
        return False
    if not mutant.path.endswith(".py"):
        return True
    try:
        ast.parse(apply((root / mutant.path).read_bytes(), [mutant]))
    except (SyntaxError, ValueError):
        return False
    return True


def _touch(one: Mutant, other: Mutant) -> bool:
    return one.path == other.path and one.start <= other.end and other.start <= one.end
