"""Reads the statements of a `.sql` file. Each statement begins with a header of comments and ends where the next one begins:

    -- name: status
    -- parameters: batch_id uuid, wanted text[]
    -- What the statement is for, and which index or lock it relies on.
    SELECT status FROM orchestrator.batch WHERE batch_id = :batch_id AND label = ANY (:wanted);

A statement without parameters has no such line. Several commands under one name are a script. Comments are not sent to the server.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import TextClause, text

from orchestrator.storage.prepared import PARAMETER, Prepared

_ROOT = Path(__file__).parents[2]
_BEGIN = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_DECLARED = re.compile(r"-- parameters: (.*)")
# Matches quoted texts, too, because they may contain two hyphens.
_COMMENT = re.compile(r"('(?:[^']|'')*')|--[^\n]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, or a script, as it is sent to the server. `parameters` has the type of each parameter by its name."""

    name: str
    purpose: str
    parameters: Mapping[str, str]
    sql: str

    def text(self) -> TextClause:
        """The statement for SQLAlchemy to execute."""
        return text(self.sql)

    def prepared(self) -> Prepared:
        """The statement for the hot path."""
        return Prepared(self.sql)


def read_statements(path: str) -> Mapping[str, Statement]:
    """The statements of a file by name. The path begins with the package. Raises ValueError if the file is not as described above."""
    _, *pieces = _BEGIN.split((_ROOT / path).read_text(encoding="utf-8"))
    statements: dict[str, Statement] = {}
    for name, written in zip(pieces[::2], pieces[1::2], strict=True):
        if name in statements:
            raise ValueError(f"{path}: two statements are named {name}; rename one of them")
        statements[name] = _statement(path, name, written)
    return statements


def _statement(path: str, name: str, written: str) -> Statement:
    parameters: dict[str, str] = {}
    purpose: list[str] = []
    for line in written.splitlines():
        if declared := _DECLARED.fullmatch(line):
            parameters |= _parameters(path, name, declared[1])
        elif line.startswith("--"):
            purpose.append(line.removeprefix("--").strip())
        else:
            break
    lines = (line.rstrip() for line in _COMMENT.sub(lambda found: found[1] or "", written).splitlines())
    sql = "\n".join(line for line in lines if line).removesuffix(";")
    undeclared = set(PARAMETER.findall(sql)) - parameters.keys()
    if undeclared:
        raise ValueError(f"{path}: add {', '.join(sorted(undeclared))} to the line '-- parameters:' of the statement {name}")
    return Statement(name, " ".join(purpose), parameters, sql)


def _parameters(path: str, name: str, declared: str) -> dict[str, str]:
    parameters = {}
    for one in declared.split(", "):
        parameter, _, type_name = one.partition(" ")
        if not type_name:
            raise ValueError(f"{path}: write the type of the parameter {parameter} of the statement {name} after its name")
        parameters[parameter] = type_name
    return parameters
