"""Migrations are safe while the previous version runs (docs/operations.md, Upgrade): they only add, and nobody waits for them."""

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from orchestrator.process.settings import Settings
from orchestrator.storage import migrate
from orchestrator.storage.chapters import fill_chapters
from orchestrator.verification.verify import verify
from tests.integration.test_isolation import database_error
from tests.support.databases import fresh_database
from tests.support.expansion import EXPAND_EVERY_TABLE
from tests.support.pipeline import Pipeline, mentors
from tests.support.stack import Stack
from tests.support.waiting import eventually

REVISIONS = [script.revision for script in ScriptDirectory.from_config(migrate._config()).walk_revisions()][::-1]

# --- How a migration may change what exists --------------------------------------------------------------------------------------

_COLUMNS = """
    SELECT c.oid::regclass || '.' || a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           a.atthasdef OR a.attidentity <> ''
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace)
"""
# What can refuse rows: unique indexes, and constraints except NOT NULL, which the column's own row shows.
_RESTRICTIONS = """
    SELECT conrelid::regclass || ': ' || pg_get_constraintdef(oid), conrelid::regclass::text FROM pg_constraint
    WHERE contype <> 'n' AND connamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace)
    UNION SELECT pg_get_indexdef(indexrelid), indrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indrelid
    WHERE indisunique AND c.relnamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace)
"""
_RIGHTS = """
    SELECT grantee::regrole || ' may ' || privilege_type || ' ' || c.oid::regclass
    FROM pg_class c CROSS JOIN aclexplode(c.relacl)
    WHERE c.relkind = 'r' AND c.relnamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace)
"""
_FILES = """
    SELECT oid::regclass::text, relfilenode FROM pg_class
    WHERE relkind = 'r' AND relnamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace)
"""


# No version has ever changed or removed an audit row (docs/decisions/0035-the-audit-is-append-only.md).
NEVER_USED = {f"bulkreg_worker may {right} registration.audit" for right in ("UPDATE", "DELETE")}


@dataclass(frozen=True)
class Column:
    """A column, as far as a writer of rows is concerned."""

    type: str
    is_required: bool
    has_default: bool


@dataclass(frozen=True)
class Catalog:
    """What a version of the product relies on."""

    columns: Mapping[str, Column]
    restrictions: Mapping[str, str]
    """What can refuse rows, and on which table."""
    rights: frozenset[str]
    files: Mapping[str, int]
    """By table. Another file means that the table was rewritten, and nobody could read or write meanwhile."""


def catalog(connection: Connection) -> Catalog:
    return Catalog(
        {name: Column(*of_column) for name, *of_column in connection.execute(text(_COLUMNS))},
        {row[0]: row[1] for row in connection.execute(text(_RESTRICTIONS))},
        frozenset(connection.scalars(text(_RIGHTS))),
        {row[0]: row[1] for row in connection.execute(text(_FILES))},
    )


def harm(before: Catalog, after: Catalog) -> list[str]:
    """The changes that would break the previous version, or make it wait."""
    found = []
    for name, then in before.columns.items():
        now = after.columns.get(name)
        if now is None:
            found.append(f"{name} is gone")
        elif now.type != then.type:
            found.append(f"{name} was {then.type} and is {now.type}")
        elif (now.is_required and not then.is_required) or (then.has_default and not now.has_default):
            found.append(f"{name} has become required")
    for name in after.columns.keys() - before.columns.keys():
        column, table = after.columns[name], name.rpartition(".")[0]
        if table in before.files and column.is_required and not column.has_default:
            found.append(f"{name} is required, and nobody writes it yet")
    new = after.restrictions.keys() - before.restrictions.keys()
    found += [f"new: {restriction}" for restriction in new if after.restrictions[restriction] in before.files]
    found += [f"gone: {right}" for right in before.rights - after.rights - NEVER_USED]
    found += [f"{table} is rewritten" for table, file in before.files.items() if after.files.get(table, file) != file]
    return found


@pytest.fixture(scope="module")
def migrated_step_by_step(infrastructure: Stack) -> Iterator[Mapping[str, Catalog]]:
    """The catalog after each revision."""
    with fresh_database(infrastructure.postgres_url) as url:
        settings = Settings(database_url=url)
        engine = create_engine(settings.owner_url)
        migrate._make_roles(engine, settings)
        catalogs = {}
        for revision in REVISIONS:
            with engine.begin() as connection:
                config = migrate._config()
                config.attributes["connection"] = connection
                command.upgrade(config, revision)
                catalogs[revision] = catalog(connection)
        engine.dispose()
        yield catalogs


@pytest.mark.parametrize(("before", "after"), [*pairwise(REVISIONS)])
def test_migration_only_adds(migrated_step_by_step: Mapping[str, Catalog], before: str, after: str) -> None:
    assert harm(migrated_step_by_step[before], migrated_step_by_step[after]) == []


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("ALTER TABLE orchestrator.batch DROP COLUMN label", "orchestrator.batch.label is gone"),
        ("ALTER TABLE orchestrator.batch RENAME COLUMN label TO title", "orchestrator.batch.label is gone"),
        ("ALTER TABLE orchestrator.outcome RENAME TO decision", "orchestrator.outcome.attempt is gone"),
        ("ALTER TABLE orchestrator.batch ALTER label TYPE varchar(200)", "orchestrator.batch.label was text and is character varying(200)"),
        ("ALTER TABLE orchestrator.batch ALTER label SET NOT NULL", "orchestrator.batch.label has become required"),
        ("ALTER TABLE orchestrator.batch ALTER completed DROP DEFAULT", "orchestrator.batch.completed has become required"),
        ("ALTER TABLE orchestrator.outbox ADD COLUMN more text NOT NULL", "orchestrator.outbox.more is required, and nobody writes it yet"),
        ("ALTER TABLE orchestrator.batch ADD CHECK (label <> '')", "new: orchestrator.batch: CHECK ((label <> ''::text))"),
        ("CREATE UNIQUE INDEX u ON orchestrator.batch (trace_id)", "new: CREATE UNIQUE INDEX u ON orchestrator.batch USING btree (trace_id)"),
        ("REVOKE UPDATE ON orchestrator.batch FROM bulkreg_api", "gone: bulkreg_api may UPDATE orchestrator.batch"),
        ("ALTER TABLE orchestrator.batch ADD COLUMN more uuid NOT NULL DEFAULT gen_random_uuid()", "orchestrator.batch is rewritten"),
    ],
    ids=lambda value: value if value.startswith(("ALTER", "CREATE", "REVOKE")) else "",
)  # fmt: skip
def test_a_migration_that_removes_something_is_detected(settings: Settings, sql: str, found: str) -> None:
    engine = create_engine(settings.owner_url)
    with engine.connect() as connection:
        before = catalog(connection)
        connection.execute(text(sql))
        assert found in harm(before, catalog(connection))
        connection.rollback()
    engine.dispose()


def test_a_migration_that_adds_is_accepted(settings: Settings) -> None:
    engine = create_engine(settings.owner_url)
    with engine.connect() as connection:
        before = catalog(connection)
        connection.execute(text(EXPAND_EVERY_TABLE))
        connection.execute(text("ALTER TABLE orchestrator.batch ADD COLUMN more integer NOT NULL DEFAULT 7"))
        connection.execute(
            text("CREATE TABLE orchestrator.more (batch_id uuid PRIMARY KEY, more text NOT NULL CHECK (more <> ''))")
        )
        connection.execute(text("CREATE INDEX ON orchestrator.batch (trace_id)"))
        assert harm(before, catalog(connection)) == []
        connection.rollback()
    engine.dispose()


# --- Indexes that no migration builds -----------------------------------------------------------------------------------------------

_FLAGGED = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('registration.activity_flagged')")
_HALF_DONE = text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('registration.activity_flagged')")


@pytest.mark.parametrize("left", ["DROP INDEX registration.activity_flagged", str(_HALF_DONE)], ids=["missing", "half done"])
def test_a_missing_or_incomplete_index_is_built(settings: Settings, left: str) -> None:
    engine = create_engine(settings.owner_url)
    with engine.begin() as connection:
        assert connection.scalar(_FLAGGED) is True
        connection.execute(text(left))
    migrate.upgrade(settings)
    with engine.begin() as connection:
        assert connection.scalar(_FLAGGED) is True
    engine.dispose()


def test_the_index_by_which_chapters_are_filled_in_is_built_before(
    pipeline: Pipeline, settings: Settings, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it, each chunk of activities would read the table from its beginning."""
    pipeline.submit(mentors(2))
    pipeline.drain()
    with owner.begin() as connection:
        connection.execute(text("UPDATE registration.activity SET chapter_id = NULL"))
        connection.execute(text("DROP INDEX registration.activity_without_chapter"))
    was_there = []

    def filling(engine: Engine) -> None:
        with engine.connect() as connection:
            there = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('registration.activity_without_chapter')"
            was_there.append(connection.scalar(text(there)))
        fill_chapters(engine)

    monkeypatch.setattr("orchestrator.storage.migrate.fill_chapters", filling)
    migrate.upgrade(settings)
    with owner.connect() as connection:
        assert (was_there, connection.scalar(text("SELECT count(chapter_id) FROM registration.activity"))) == ([True], 2)


def test_an_index_is_built_while_others_write(pipeline: Pipeline, settings: Settings) -> None:
    """The build waits for a transaction that has written to the table, and nobody waits behind it."""
    engine = create_engine(settings.owner_url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX registration.activity_flagged"))
    with engine.connect() as writing, engine.connect() as looking, ThreadPoolExecutor(1) as thread:
        writing.execute(text("UPDATE registration.activity SET notes = NULL"))
        upgrading = thread.submit(migrate.upgrade, settings)
        try:
            waits = text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'virtualxid')")
            eventually(lambda: looking.execute(waits).scalar_one())
            batch_id = pipeline.submit(mentors(3))
            pipeline.drain()
            assert pipeline.status(batch_id).batch.status == "completed"
            assert not upgrading.done()
        finally:
            writing.rollback()
        upgrading.result()
        assert looking.scalar(_FLAGGED) is True
    engine.dispose()


# --- An upgrade while the product works -----------------------------------------------------------------------------------------------

NEXT = """
from alembic import op

revision = "{revision}"
down_revision = "{newest}"
branch_labels = None
depends_on = None


def upgrade():
    op.execute(\"\"\"{sql}\"\"\")
"""


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the product whose migration adds a column to every table."""
    (tmp_path / "next.py").write_text(NEXT.format(revision="next", newest=REVISIONS[-1], sql=EXPAND_EVERY_TABLE))
    own = migrate._config

    def config() -> Config:
        config = own()
        versions = Path(migrate.__file__).parent / "migrations" / "versions"
        config.set_main_option("version_locations", f"{versions}:{tmp_path}")
        return config

    monkeypatch.setattr(migrate, "_config", config)


@pytest.mark.usefixtures("next_version")
def test_a_migration_that_fails_changes_nothing(pipeline: Pipeline, settings: Settings, tmp_path: Path) -> None:
    """The version that runs goes on, and the upgrade is repeated when its mistake is mended."""
    mistake = "ALTER TABLE orchestrator.batch ADD COLUMN more text DEFAULT no_such_function()"
    (tmp_path / "mistaken.py").write_text(NEXT.format(revision="mistaken", newest="next", sql=mistake))
    owner = create_engine(settings.owner_url)
    with owner.connect() as connection:
        before = catalog(connection)
    with pytest.raises(DBAPIError, match="no_such_function"):
        migrate.upgrade(settings)
    with owner.connect() as connection:
        assert catalog(connection) == before
    batch_id = pipeline.submit(mentors(3))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.status == "completed"
    (tmp_path / "mistaken.py").unlink()
    assert migrate.upgrade(settings) == "next"
    with owner.connect() as connection:
        assert "orchestrator.batch.of_the_next_version" in catalog(connection).columns
    owner.dispose()


_UPGRADE_WAITS = text("""
    SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND relation = 'orchestrator.batch'::regclass)
""")


@pytest.mark.usefixtures("next_version")
def test_nobody_waits_behind_a_waiting_upgrade(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """A long reader (a report, `verify`, a backup) keeps the upgrade from its lock. All others continue meanwhile."""
    with engine.connect() as reading, engine.connect() as looking, ThreadPoolExecutor(1) as thread:
        reading.execute(text("SELECT count(*) FROM orchestrator.batch"))
        upgrading = thread.submit(migrate.upgrade, settings)
        try:
            eventually(lambda: looking.execute(_UPGRADE_WAITS).scalar_one())
            batch_id = pipeline.submit(mentors(3))
            pipeline.drain()
            assert pipeline.status(batch_id).batch.status == "completed"
            assert not upgrading.done()
        finally:
            reading.rollback()
        assert upgrading.result() == "next"
    again = pipeline.submit(mentors(3, first=10))
    pipeline.drain()
    assert pipeline.status(again).batch.status == "completed"
    assert verify(engine, settings).breaches == []


_VACUUM_RUNS = text("""
    SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = current_database()
                   AND query LIKE 'autovacuum: VACUUM% registration.mentor%')
""")


@pytest.fixture
def long_autovacuum(settings: Settings) -> Iterator[Connection]:
    """An autovacuum of the mentors' table that takes a minute, because it pauses after every page. Yields a connection that can observe it."""
    owner = create_engine(settings.owner_url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        for statement in (
            "ALTER SYSTEM SET autovacuum_naptime = 1",
            "SELECT pg_reload_conf()",
            "ALTER TABLE registration.mentor SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
            "INSERT INTO registration.mentor SELECT 'org', 'mentor-' || n, repeat('x', 100), 'c' FROM generate_series(1, 10000) n",
            "DELETE FROM registration.mentor",
        ):
            connection.execute(text(statement))
        try:
            # The launcher visits every database of the server, of which the tests have many.
            seen = "an autovacuum works on the table"
            eventually(lambda: connection.execute(_VACUUM_RUNS).scalar_one(), within_s=90, what=seen)
            yield connection
        finally:
            connection.execute(text("ALTER SYSTEM RESET autovacuum_naptime"))
            connection.execute(text("SELECT pg_reload_conf()"))
    owner.dispose()


def test_an_upgrade_that_never_gets_its_lock_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def try_to_migrate(_engine: Engine, lock_timeout_ms: int) -> None:
        tries.append(lock_timeout_ms)
        assert len(tries) < 3, "the upgrade does not stop trying"
        raise database_error("55P03")

    monkeypatch.setattr(migrate, "_try_to_migrate", try_to_migrate)
    monkeypatch.setattr(migrate, "_TRY_FOR_S", 0)
    with pytest.raises(DBAPIError, match="refused"):
        migrate.upgrade(settings)
    assert len(tries) == 1


@pytest.mark.parametrize(("code", "tries"), [("55P03", 2), ("40P01", 2), ("42501", 1), ("53100", 1)])
def test_only_a_lock_that_others_hold_is_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, code: str, tries: int
) -> None:
    """Any other error would fail in the same way for ten minutes."""
    tried: list[str] = []

    def try_to_migrate(_engine: Engine, _lock_timeout_ms: int) -> None:
        tried.append(code)
        if len(tried) == 1:
            raise database_error(code)

    monkeypatch.setattr(migrate, "_try_to_migrate", try_to_migrate)
    with contextlib.nullcontext() if tries > 1 else pytest.raises(DBAPIError, match="refused"):
        migrate.upgrade(settings)
    assert len(tried) == tries


@pytest.mark.usefixtures("next_version")
def test_an_upgrade_gets_past_an_autovacuum(
    long_autovacuum: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENT_EVERY", 2)
    monkeypatch.setattr(migrate, "_TRY_FOR_S", 10)
    assert long_autovacuum.execute(_VACUUM_RUNS).scalar_one()
    assert migrate.upgrade(settings) == "next"
