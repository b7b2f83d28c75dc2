"""The API's role sees only the organizations that its transaction names, in every table (invariant 9)."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.console_sessions import begin_session, end_session, use_session
from orchestrator.storage.database import create_database_engine, transact
from tests.support.databases import fresh_database
from tests.support.stack import Stack
from tests.support.usual_rows import usual_values

OURS, THEIRS = "org-ours", "org-theirs"

TABLES = [
    *("orchestrator." + name for name in ("batch", "batch_dismissal", "batch_edit", "batch_item", "batch_part")),
    *(
        "orchestrator." + name
        for name in (
            "dispatch",
            "idempotency_key",
            "revocation_request",
            "template",
            "webhook",
            "webhook_change",
            "webhook_delivery",
        )
    ),
    *("orchestrator.receipt_" + name for name in ("batch", "checkpoint", "log", "node", "published", "run", "salt")),
    *("orchestrator." + name for name in ("item_history", "outbox", "outcome", "sweep_watch", "tombstone")),
    *("registration." + name for name in ("activity", "activity_type", "audit", "chapter", "coordinator", "coordinator_scope")),
    "registration.forgetting",
    "registration.mentor",
    "registration.organization",
    "registration.notes_erasure",
    "registration.period_change",
]
# These tables are about partitions and have no organization, or have hashes of people. The API may not read them.
OF_NOBODY = {
    "orchestrator." + name
    for name in (
        *("consumer_group", "consumer_progress", "queue_end", "receipt_cursor", "receipt_reading"),
        *("role_start", "sweep_mark", "verification"),
    )
} | {"registration.forgotten_word", "registration.replaced_word"}
# Public keys, which everybody may read.
OF_EVERYBODY = "orchestrator.receipt_key"

# A request knows its session before its organization, so the policy compares the session's hash.
OF_A_SESSION = "orchestrator.console_session"


@pytest.fixture(scope="module")
def insertions(infrastructure: Stack, template_database: str) -> Iterator[tuple[Settings, dict[str, str]]]:
    """A database with a row of each of two organizations in every table. By table, the statement that inserts another row."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        worker = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
        with worker.begin() as connection:
            statements = {table: insertion(connection, table) for table in TABLES}
            for statement in statements.values():
                connection.execute(text(statement), [{"organization": OURS}, {"organization": THEIRS}])
        worker.dispose()
        yield settings, statements


def insertion(connection: Connection, table: str) -> str:
    values = usual_values(connection, table)
    assert "organization_id" in values
    values["organization_id"] = ":organization"
    # Some tables have one row of each organization.
    return f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())}) ON CONFLICT DO NOTHING"


@pytest.fixture
def api(insertions: tuple[Settings, dict[str, str]]) -> Iterator[Engine]:
    """The API's role, with one new connection."""
    settings, _ = insertions
    engine = create_database_engine(settings.api_url, settings, connections=1, application_name="test")
    yield engine
    engine.dispose()


def seen(connection: Connection, table: str) -> list[Any]:
    return list(connection.execute(text(f"SELECT organization_id FROM {table}")).scalars())


def may(connection: Connection, privilege: str, table: str) -> bool:
    parameters = {"table": table, "privilege": privilege}
    return bool(connection.execute(text("SELECT has_table_privilege(:table, :privilege)"), parameters).scalar_one())


@pytest.mark.parametrize("table", TABLES)
def test_only_the_named_organizations_are_visible(insertions: tuple[Settings, dict[str, str]], api: Engine, table: str) -> None:
    insert = insertions[1][table]
    told = text("SELECT pg_backend_pid(), current_setting('bulkreg.organizations', true)")
    with api.begin() as connection:
        process, named = connection.execute(told).one()
        assert (named, seen(connection, table)) == (None, [])
    for nobody in ("", "org-ours org-theirs", "*"):
        assert transact(api, lambda connection: seen(connection, table), organizations=[nobody]) == []
    assert transact(api, lambda connection: seen(connection, table), organizations=[OURS]) == [OURS]
    assert sorted(transact(api, lambda connection: seen(connection, table), organizations=[OURS, THEIRS])) == [OURS, THEIRS]
    with api.begin() as connection:
        # The same connection of the pool, after a commit. The setting is no longer NULL.
        assert connection.execute(told).one() == (process, "")
        assert seen(connection, table) == []

    def write(connection: Connection, organization: str) -> None:
        connection.execute(text(insert), {"organization": organization})

    with pytest.raises(ProgrammingError) as refused:
        transact(api, lambda connection: write(connection, THEIRS), organizations=[OURS])
    with api.connect() as connection:
        granted = may(connection, "INSERT", table)
    said = "new row violates row-level security policy" if granted else "permission denied"
    assert said in str(refused.value)
    if granted:
        transact(api, lambda connection: write(connection, OURS), organizations=[OURS])
    for privilege, change in (
        ("UPDATE", f"UPDATE {table} SET organization_id = organization_id"),
        ("DELETE", f"DELETE FROM {table}"),
    ):
        with api.connect() as connection:
            if may(connection, privilege, table):
                connection.execute(text("SELECT set_config('bulkreg.organizations', :ours, true)"), {"ours": OURS})
                visible = len(seen(connection, table))
                assert connection.execute(text(change)).rowcount == visible > 0


def test_no_table_is_left_out(insertions: tuple[Settings, dict[str, str]], api: Engine) -> None:
    every = text("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration')")
    with api.connect() as connection:
        assert set(connection.execute(every).scalars()) == {*TABLES, *OF_NOBODY, OF_EVERYBODY, OF_A_SESSION}
        assert [table for table in OF_NOBODY if may(connection, "SELECT", table)] == []


def test_only_the_named_session_of_the_console_is_visible(insertions: tuple[Settings, dict[str, str]], api: Engine) -> None:
    ours, theirs = b"o" * 32, b"t" * 32

    def all_seen(connection: Connection) -> list[str]:
        return list(connection.execute(text(f"SELECT subject FROM {OF_A_SESSION}")).scalars())

    with api.connect() as connection:
        for session_hash, subject in ((ours, "we"), (theirs, "they")):
            with connection.begin():
                begin_session(connection, session_hash, organization_id=OURS, subject=subject, role=Role.ADMIN)
        with connection.begin():
            assert all_seen(connection) == []
        with connection.begin():
            used = use_session(connection, ours, extends=True)
            assert used is not None
            assert (used.subject, all_seen(connection)) == ("we", ["we"])
            assert connection.execute(text(f"UPDATE {OF_A_SESSION} SET used_at = now()")).rowcount == 1
            assert connection.execute(text(f"DELETE FROM {OF_A_SESSION}")).rowcount == 1
        with connection.begin():
            end_session(connection, theirs)
        with connection.begin():
            assert use_session(connection, theirs, extends=False) is None
    new = text(f"INSERT INTO {OF_A_SESSION} (session_hash, organization_id, subject, role) VALUES (:hash, 'o', 's', 'admin')")
    with api.connect() as connection, pytest.raises(ProgrammingError, match="new row violates row-level security policy"):
        connection.execute(new, {"hash": ours})
    # Naming organizations makes no difference.
    assert transact(api, all_seen, organizations=[OURS, THEIRS]) == []
    for change in (f"UPDATE {OF_A_SESSION} SET role = 'admin'", f"UPDATE {OF_A_SESSION} SET organization_id = 'x'"):
        with api.connect() as connection, pytest.raises(ProgrammingError, match="permission denied"):
            connection.execute(text(change))
