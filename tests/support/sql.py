"""Statements of a test on the flow's database, each in a transaction of its own."""

from typing import Any

from sqlalchemy import text

from tests.support.pipeline import Pipeline


def execute(pipeline: Pipeline, statement: str, **values: object) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(text(statement), values)


def rows(pipeline: Pipeline, query: str) -> list[dict[str, Any]]:
    with pipeline.engine.begin() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]
