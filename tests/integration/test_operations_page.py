"""The queries of docs/operations.md and its commands for a copy of the database work, with the roles that the page names."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from compose.embedded.postgres import binaries
from compose.operations_page import PAGE
from orchestrator.process.server_settings import API_ROLE, WORKER_ROLE
from orchestrator.process.settings import Settings
from orchestrator.storage.migrate import upgrade
from tests.support.databases import fresh_database
from tests.support.pipeline import Pipeline, mentors
from tests.support.stack import Stack

TEXT = PAGE.read_text()
BLOCKS = "".join(re.findall(r"^```sql\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE))
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


DUMP, RESTORE = re.findall(r"^\$ (pg_.*)$", TEXT, re.MULTILINE)


def execute(url: str, *statements: str) -> None:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def owned(infrastructure: Stack, template_database: str) -> Iterator[str]:
    """The URL of a migrated database whose owner is no superuser, as the page asks for. The owner of `template_database` has created the
    two roles, so this one gets the right over them that it would have otherwise."""
    server, owner = infrastructure.postgres_url, f"owner_{uuid4().hex}"
    execute(
        server,
        f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'x'",
        f"GRANT {WORKER_ROLE}, {API_ROLE} TO {owner} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
    )
    with fresh_database(server) as made:
        execute(server, f"ALTER DATABASE {make_url(made).database} OWNER TO {owner}")
        url = make_url(made).set(username=owner, password="x")
        urls = {
            name: SecretStr(given.render_as_string(hide_password=False))
            for name, given in {
                "database_url": url,
                # Without a password, because the other tests' processes connect with that of before.
                "worker_database_url": url.set(username=WORKER_ROLE)._replace(password=None),
                "api_database_url": url.set(username=API_ROLE)._replace(password=None),
            }.items()
        }
        upgrade(Settings.model_validate(urls))
        yield url.render_as_string(hide_password=False)
    execute(server, f"DROP ROLE {owner}")


def test_the_owner_copies_and_restores_the_database(owned: str, tmp_path: Path) -> None:
    environment = {"PATH": f"{binaries()}:{os.environ['PATH']}", "BULKREG_DATABASE_URL": owned}

    def run(command: str) -> None:
        ran = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr

    execute(owned, "INSERT INTO registration.organization VALUES ('org', 'Of the copy', 'Europe/Oslo')")
    run(DUMP)
    execute(owned, "UPDATE registration.organization SET name = 'Of later'")
    run(RESTORE)
    with closing(psycopg2.connect(owned)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT organization_id, name FROM registration.organization")
        assert cursor.fetchall() == [("org", "Of the copy")]
