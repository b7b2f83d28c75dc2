"""The mutation tool makes the mistakes that it lists. Each is an edit that leaves a valid program, and is only made in a copy."""

import ast
from pathlib import Path

import pytest

from orchestrator.storage.statements import read_statements
from tests.mutation import python, sql
from tests.mutation.coverage_map import Users
from tests.mutation.mutant import Kind, Mutant, apply
from tests.mutation.runner import copy_of, mutated
from tests.mutation.session import Session
from tests.mutation.tree import all_mutants, sample
from tests.support.statements import FILES

ROOT = Path(__file__).parents[2]

MODULE = b'''
from enum import StrEnum

class State(StrEnum):
    OPEN = "open"
    DONE = "done"

_FIND = text("SELECT a FROM t WHERE x = 1 AND y < 2 ORDER BY a, b DESC")

def decide(count, limit, state, log):
    """Says WHERE it is decided, SELECT or not."""
    if not state:
        return None
    log.note(count)
    log.close()
    total = (count + 1) // 2
    if count < limit and state is State.OPEN:
        return hashed("x", count=total, limit=limit)
    return timedelta(milliseconds=count / 1000)
'''


def _made(kind: Kind) -> set[tuple[str, str]]:
    members = python.enumerations([MODULE])
    return {
        (" ".join(one.original.split()), " ".join(one.replacement.split()))
        for one in python.mutants("m.py", MODULE, members)
        if one.kind is kind
    }


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (Kind.BOUNDARY, {("<", "<="), ("(count + 1) // 2", "(-(-(count + 1) // (2)))"), ("count + 1", "(count)")}),
        (
            Kind.CONDITION,
            {
                ("not state", "False"),
                ("not state", "state"),
                ("count < limit and state is State.OPEN", "False"),
                ("count < limit and", ""),
                ("and state is State.OPEN", ""),
            },
        ),
        (Kind.LEFT_OUT, {("log.note(count)", "pass"), ("log.close()", "pass")}),
        (Kind.ORDER, {("log.note(count) log.close()", "log.close() log.note(count)")}),
        (Kind.FIELD, {(", count=total", ""), (", limit=limit", "")}),
        (Kind.UNIT, {("milliseconds", "seconds"), ("count / 1000", "(count)")}),
        (Kind.NEIGHBOUR, {("State.OPEN", "State.DONE")}),
        (Kind.SQL_CLAUSE, {("x = 1", "true"), ("AND y < 2", "")}),
        (Kind.SQL_BOUNDARY, {("<", "<=")}),
        (Kind.SQL_ORDER, {(", b DESC", ""), ("DESC", "ASC")}),
    ],
)
def test_mistakes_of_a_kind(kind: Kind, made: set[tuple[str, str]]) -> None:
    assert _made(kind) == made


@pytest.mark.parametrize(
    ("statement", "kind", "mutated_to"),
    [
        ("WHERE a BETWEEN 1 AND 2 AND b", Kind.SQL_CLAUSE, {"WHERE true AND b", "WHERE a BETWEEN 1 AND 2 "}),
        (
            "UPDATE t SET a = f(1, 2), b = 3 WHERE c",
            Kind.SQL_FIELD,
            {"UPDATE t SET  b = 3 WHERE c", "UPDATE t SET a = f(1, 2) WHERE c"},
        ),
        (
            "SELECT a FROM t LEFT JOIN u USING (a, b)",
            Kind.SQL_FIELD,
            {"SELECT a FROM t LEFT JOIN u USING ( b)", "SELECT a FROM t LEFT JOIN u USING (a)"},
        ),
        ("SELECT a FROM t LEFT JOIN u USING (a)", Kind.SQL_JOIN, {"SELECT a FROM t INNER JOIN u USING (a)"}),
        ("SELECT a FROM t FOR UPDATE SKIP LOCKED", Kind.SQL_LOCK, {"SELECT a FROM t "}),
        ("SELECT a FROM t FOR NO KEY UPDATE OF t SKIP LOCKED", Kind.SQL_LOCK, {"SELECT a FROM t "}),
        ("SELECT 'x AND y' -- AND z\nFROM t LIMIT :n", Kind.SQL_BOUNDARY, {"SELECT 'x AND y' -- AND z\nFROM t LIMIT :n + 1"}),
        ("WHERE (a AND b) OR c", Kind.SQL_CLAUSE, {"WHERE true OR c", "WHERE (a ) OR c", "WHERE (a AND b) "}),
        ("CREATE INDEX ON t (a) WHERE b", Kind.SQL_CLAUSE, {"CREATE INDEX ON t (a) WHERE true"}),
        ("CREATE INDEX CONCURRENTLY i ON t (a) WHERE b", Kind.SQL_CLAUSE, {"CREATE INDEX CONCURRENTLY i ON t (a) WHERE true"}),
        ("SELECT a FROM t LEFT JOIN u ON true WHERE b", Kind.SQL_CLAUSE, {"SELECT a FROM t LEFT JOIN u ON true WHERE true"}),
        ("DELETE FROM t USING (SELECT a, b FROM u) AS s", Kind.SQL_FIELD, set()),
        ("WHERE a IS DISTINCT FROM b OR c", Kind.SQL_CLAUSE, {"WHERE true OR c", "WHERE a IS DISTINCT FROM b "}),
    ],
)
def test_mistakes_in_a_statement(statement: str, kind: Kind, mutated_to: set[str]) -> None:
    made = {statement[: one.start] + one.replacement + statement[one.end :] for one in sql.edits(statement) if one.kind is kind}
    assert made == mutated_to


QUERIES = """-- Not of a statement: WHERE a AND b.

-- name: find
-- WHERE it is used: nowhere.
SELECT a FROM t WHERE x = 1;

-- name: other
DELETE FROM t WHERE x = 1 AND y = 2;
"""
READER = """
_SQL = read_statements("orchestrator/sql/q.sql")
_FIND = _SQL["find"].text()
_OTHER = _SQL["other"].text()

def find():
    return run(_FIND)

def other():
    return "find", run(_OTHER)
"""
STRANGER = """
_FIND = text("SELECT 1")
find = "find"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for path, text in (("sql/q.sql", QUERIES), ("reader.py", READER), ("stranger.py", STRANGER)):
        (tmp_path / "orchestrator" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "orchestrator" / path).write_text(text)
    return tmp_path


def test_mistakes_in_a_file_of_statements(small: Path) -> None:
    made = [one for one in all_mutants(small) if one.path == "orchestrator/sql/q.sql"]
    assert {(one.original, one.replacement, *one.names, one.line) for one in made} == {
        ("x = 1", "true", "find", 5),
        ("x = 1", "true", "other", 8),
        ("AND y = 2", "", "other", 8),
    }
    assert len({one.id for one in made}) == 3
    [first, *_] = made
    assert apply(QUERIES.encode(), [first]).decode() == QUERIES.replace("x = 1", "true", 1)


@pytest.mark.parametrize(("name", "lines"), [("find", [3, 7]), ("other", [4, 10])])
def test_the_tests_of_a_statement_are_those_of_the_lines_that_use_its_name(small: Path, name: str, lines: list[int]) -> None:
    assert Users(small).of(frozenset([name]), "orchestrator/sql/q.sql") == {"orchestrator/reader.py": lines}


def test_each_statement_of_the_product_is_used() -> None:
    users = Users(ROOT)
    unused = [(path, name) for path in FILES for name in read_statements(path) if not users.of(frozenset([name]), path)]
    assert unused == []


def test_every_mistake_leaves_a_valid_program_and_a_sample_can_be_made_at_once() -> None:
    mutants = all_mutants(ROOT)
    chosen = sample(ROOT, mutants, 200, seed=1)
    assert sum(one.kind.is_sql for one in chosen) == 100
    assert len({one.id for one in chosen}) == 200
    assert sample(ROOT, mutants, 200, seed=1) == chosen != sample(ROOT, mutants, 200, seed=2)
    for path in {one.path for one in chosen if one.path.endswith(".py")}:
        source = (ROOT / path).read_bytes()
        ast.parse(apply(source, [one for one in chosen if one.path == path]))


def test_a_mistake_that_changes_nothing_is_not_drawn(tmp_path: Path) -> None:
    none, one = (Mutant("s.sql", 0, 4, new, Kind.SQL_CLAUSE, 1, 1, "true") for new in ("true", "false"))
    assert sample(tmp_path, [none, one], 2, seed=1) == [one]


def test_a_mutant_exists_only_in_a_copy(tmp_path: Path) -> None:
    [mutant, *_] = [one for one in all_mutants(ROOT) if one.path == "orchestrator/batches/states.py"]
    before = (ROOT / mutant.path).read_bytes()
    with copy_of(ROOT, tmp_path / "copy") as tree:
        with mutated(tree, [mutant]):
            assert (tree / mutant.path).read_bytes() == apply(before, [mutant]) != before
        assert (tree / mutant.path).read_bytes() == before
    assert (ROOT / mutant.path).read_bytes() == before
    assert not (tmp_path / "copy").exists()


def test_an_interrupted_run_knows_its_earlier_verdicts(tmp_path: Path) -> None:
    Session(tmp_path / "s.ndjson").note("a", None, "")
    Session(tmp_path / "s.ndjson").note("b", "test_b", "")
    Session(tmp_path / "s.ndjson").note("a", "test_a", "")
    assert Session(tmp_path / "s.ndjson").read() == {"a": "test_a", "b": "test_b"}


def test_two_mistakes_in_the_same_place_are_refused() -> None:
    one = Mutant("m.py", 2, 6, "x", Kind.FIELD, 1, 1, "")
    other = Mutant("m.py", 4, 8, "y", Kind.FIELD, 1, 1, "")
    with pytest.raises(ValueError, match="overlaps"):
        apply(b"0123456789", [one, other])
