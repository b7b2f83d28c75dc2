"""Statements in `.sql` files: each has a name, a comment and declared parameters, and is used by one module."""

import re
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from orchestrator.storage import statements
from orchestrator.storage.prepared import PARAMETER
from orchestrator.storage.statements import Statement, read_statements
from tests.support.statements import FILES, ROOT

WRITTEN = """-- What all of them share.

-- name: find
-- parameters: batch_id uuid, wanted text[]
-- parameters: until timestamptz
-- Finds a batch.
-- By its primary key.
SELECT '-- it''s no comment' AS x  -- but this is :one
FROM batch

-- and so is :this
WHERE batch_id = :batch_id AND status = ANY (:wanted) AND at::date < :until;

-- name: both
-- Script.
DELETE FROM a;
DELETE FROM b;
"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(statements, "_ROOT", tmp_path)
    return tmp_path / "x.sql"


def test_a_statement_reaches_the_server_without_its_comments(written: Path) -> None:
    written.write_text(WRITTEN)
    read = read_statements("x.sql")
    assert list(read) == ["find", "both"]
    assert read["find"] == Statement(
        "find",
        "Finds a batch. By its primary key.",
        {"batch_id": "uuid", "wanted": "text[]", "until": "timestamptz"},
        "SELECT '-- it''s no comment' AS x\nFROM batch\n"
        "WHERE batch_id = :batch_id AND status = ANY (:wanted) AND at::date < :until",
    )
    assert read["both"].sql == "DELETE FROM a;\nDELETE FROM b"
    assert read["both"].parameters == {}


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n", "two statements are named a"),
        ("-- name: a\n-- parameters: x integer\nSELECT :x, :y;\n", "add y to the line '-- parameters:' of the statement a"),
        ("-- name: a\n-- parameters: x\nSELECT :x;\n", "write the type of the parameter x"),
    ],
)
def test_an_invalid_file_is_refused_when_it_is_read(written: Path, sql: str, message: str) -> None:
    written.write_text(sql)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_statements("x.sql")


def test_each_statement_of_the_product_has_a_comment() -> None:
    assert len(FILES) >= 4
    silent = [(path, one.name) for path in FILES for one in read_statements(path).values() if len(one.purpose) < 20]
    assert silent == []


def test_each_declared_parameter_is_used() -> None:
    unused = [
        (path, one.name, name)
        for path in FILES
        for one in read_statements(path).values()
        for name in one.parameters.keys() - set(PARAMETER.findall(one.sql))
    ]
    assert unused == []


@pytest.mark.parametrize("path", FILES)
def test_one_module_reads_a_file_and_uses_all_of_it(path: str) -> None:
    [text] = [text for text in _modules() if f'"{path}"' in text]
    assert [name for name in read_statements(path) if f'"{name}"' not in text] == []


def _modules() -> list[str]:
    return [path.read_text() for package in ("api", "consumers", "orchestrator") for path in (ROOT / package).rglob("*.py")]


def test_the_wheel_has_every_file_of_statements() -> None:
    included = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert set(FILES) <= included
