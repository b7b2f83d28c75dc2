"""The queries of docs/operations.md work, with the role that the page names."""

import re

import pytest
from sqlalchemy import Engine, text

from compose.operations_page import PAGE
from tests.support.pipeline import Pipeline, mentors

BLOCKS = "".join(re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE))
QUERIES = [query.strip() for query in re.sub(r"^--.*\n", "", BLOCKS, flags=re.MULTILINE).split(";") if query.strip()]
OUTBOX, BATCHES, PROGRESS, RESENT, HELD = QUERIES


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.split("FROM ")[1].split()[0])
def test_each_query_works_on_an_empty_database(engine: Engine, query: str) -> None:
    with engine.connect() as connection:
        assert not any(row[0] for row in connection.execute(text(query)))


def test_the_queries_show_the_queues(pipeline: Pipeline) -> None:
    pipeline.submit(mentors(3))
    with pipeline.engine.connect() as connection:
        assert connection.execute(text(OUTBOX)).one().waiting == 1
        [row] = connection.execute(text(BATCHES))
        assert (row.status, row.batches, row.items) == ("processing", 1, 3)
