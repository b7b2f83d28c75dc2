"""PostgreSQL accepts every statement of the `.sql` files unchanged, with parameters of the declared types."""

import re

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from orchestrator.replay.shadow_tables import ShadowTables
from orchestrator.storage.prepared import PARAMETER
from orchestrator.storage.statements import Statement, read_statements
from tests.support.statements import FILES

# Commands that can't be prepared. `ShadowTables` executes all of them here.
SCRIPTS = ("orchestrator/replay/sql/shadow_tables.sql", {"tables", "remember_live", "fold", "compared"})


def test_each_statement_is_accepted_with_its_declared_types(engine: Engine) -> None:
    refused = {}
    with engine.connect() as connection:
        shadow = ShadowTables(connection)
        shadow.fold()
        shadow.compare()
        for path in FILES:
            for one in read_statements(path).values():
                if path == SCRIPTS[0] and one.name in SCRIPTS[1]:
                    continue
                try:
                    _prepare(connection, one)
                except DBAPIError as error:
                    refused[path, one.name] = str(error.orig)
    assert refused == {}


def test_an_invalid_statement_is_refused(engine: Engine) -> None:
    for sql, types, message in (
        ("SELECT version FORM orchestrator.batch", {}, "syntax error"),
        ("SELECT labels FROM orchestrator.batch", {}, 'column "labels" does not exist'),
        ("SELECT FROM orchestrator.batch WHERE batch_id = :id", {"id": "integer"}, "uuid = integer"),
    ):
        with engine.connect() as connection, pytest.raises(DBAPIError, match=re.escape(message)):
            _prepare(connection, Statement("wrong", "", types, sql))


def _prepare(connection: Connection, statement: Statement) -> None:
    names = list(statement.parameters)
    types = f" ({', '.join(statement.parameters.values())})" if names else ""
    numbered = PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement.sql)
    with connection.begin():
        connection.exec_driver_sql(f"PREPARE checked{types} AS {numbered}", execution_options={"no_parameters": True})
        connection.exec_driver_sql("DEALLOCATE checked")
