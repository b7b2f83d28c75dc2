"""What the tables refuse, also from their owner: values that contradict each other, and changes of append-only rows."""

from collections.abc import Iterator, Sequence
from itertools import product

import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from orchestrator.process.settings import Settings
from orchestrator.storage.blame import sqlstate
from tests.support.databases import fresh_database
from tests.support.stack import Stack
from tests.support.usual_rows import usual_values

INSUFFICIENT_PRIVILEGE = "42501"

# Columns of a valid row, with a value in SQL for each that is not the usual one.
Row = dict[str, str]

STATUSES = ("pending", "processing", "completed", "partial", "failed", "cancelled")
A_BATCH: Row = {"status": "'failed'", "total_items": "4", "pending": "1", "completed": "1", "failed": "1", "cancelled": "1"}
A_SESSION: Row = {"session_hash": "decode(repeat('ab', 32), 'hex')", "role": "'admin'"}
ANSWERED = {"answered_at": "now()"}
ACTIVITY, ERROR = {"activity_id": "gen_random_uuid()"}, {"error": "'{}'"}
DONE: Row = {"done_at": "now()", "mentor_id": "NULL"}


def each(column: str, values: Sequence[str]) -> list[Row]:
    return [{column: f"'{value}'"} for value in values]


# By table and constraint: rows that are valid, and rows of which each is invalid in one way.
CHECKS: dict[tuple[str, str], tuple[list[Row], list[Row]]] = {
    ("orchestrator.batch", "batch_status"): (each("status", STATUSES), each("status", ["success"])),
    ("orchestrator.batch", "batch_counts"): (
        [A_BATCH],
        [
            A_BATCH | {"total_items": "5"},
            *(A_BATCH | {count: "-1", "total_items": "2"} for count in ("pending", "completed", "failed", "cancelled")),
        ],
    ),
    ("orchestrator.batch_item", "batch_item_status"): (
        each("status", ["pending", "success", "failed", "cancelled"]),
        each("status", ["processing", "completed"]),
    ),
    ("orchestrator.outcome", "outcome_kind"): ([{"outcome": "'cancelled'"}], each("outcome", ["pending", "refused"])),
    ("orchestrator.outcome", "outcome_answer"): (
        [{"outcome": "'success'"} | ACTIVITY, {"outcome": "'failed'"} | ERROR, {"outcome": "'cancelled'"}],
        [
            {"outcome": "'success'"},
            {"outcome": "'failed'"},
            {"outcome": "'success'"} | ACTIVITY | ERROR,
            {"outcome": "'failed'"} | ACTIVITY | ERROR,
            {"outcome": "'cancelled'"} | ACTIVITY,
            {"outcome": "'cancelled'"} | ERROR,
        ],
    ),
    ("orchestrator.sweep_watch", "sweep_watch_stage"): (
        each("stage", ["splitter", "registration"]),
        each("stage", ["aggregator"]),
    ),
    ("orchestrator.dispatch", "dispatch_state"): ([{"state": "'withdrawn'"} | ANSWERED], [{"state": "'failed'"} | ANSWERED]),
    ("orchestrator.dispatch", "dispatch_answer"): (
        [
            {"state": "'asked'"},
            {"state": "'registered'"} | ACTIVITY | ANSWERED,
            {"state": "'refused'"} | ERROR | ANSWERED,
            {"state": "'withdrawn'"} | ANSWERED,
        ],
        [
            {"state": "'asked'"} | ANSWERED,
            {"state": "'asked'"} | ACTIVITY,
            {"state": "'asked'"} | ERROR,
            {"state": "'registered'"} | ANSWERED,
            {"state": "'refused'"} | ANSWERED,
            {"state": "'withdrawn'"},
        ],
    ),
    ("orchestrator.console_session", "console_session_hash"): (
        [A_SESSION],
        [A_SESSION | {"session_hash": "decode(repeat('ab', 31), 'hex')"}],
    ),
    ("orchestrator.console_session", "console_session_role"): (
        [A_SESSION | role for role in each("role", ["coordinator", "admin", "auditor"])],
        [A_SESSION | {"role": "'service'"}],
    ),
    ("registration.period_change", "period_change_differs"): (
        [
            {"closed_through": "NULL", "previously": "'2026-03-25'"},
            {"closed_through": "'2026-03-26'", "previously": "'2026-03-25'"},
        ],
        [{"closed_through": "NULL"}, {"closed_through": "'2026-03-25'", "previously": "'2026-03-25'"}],
    ),
    ("orchestrator.revocation_request", "revocation_request_state"): (
        [{"state": "'revoked'"} | ANSWERED],
        [{"state": "'registered'"} | ANSWERED],
    ),
    ("orchestrator.revocation_request", "revocation_request_answer"): (
        [{"state": "'asked'"}, {"state": "'revoked'"} | ANSWERED, {"state": "'refused'", "code": "'x'"} | ANSWERED],
        [
            {"state": "'asked'"} | ANSWERED,
            {"state": "'asked'", "code": "'x'"},
            {"state": "'revoked'"},
            {"state": "'revoked'", "code": "'x'"} | ANSWERED,
            {"state": "'refused'"} | ANSWERED,
        ],
    ),
    ("orchestrator.verification", "verification_is_last"): ([], [{"is_last": "false"}]),
    ("orchestrator.consumer_group", "consumer_group_generation"): ([{"generation": "2"}], [{"generation": "1"}]),
    ("orchestrator.receipt_log", "receipt_log_signed"): (
        [{"size": "2", "signed_size": "2"}],
        [{"size": "2", "signed_size": "3"}],
    ),
    ("orchestrator.receipt_published", "receipt_published_state"): (
        each("state", ["ahead", "agrees", "forked"]),
        each("state", ["behind"]),
    ),
    ("orchestrator.receipt_salt", "receipt_salt_size"): ([{}], [{"salt": "decode(repeat('ab', 31), 'hex')"}]),
    ("orchestrator.receipt_cursor", "receipt_cursor_is_only"): ([], [{"is_only": "false"}]),
    ("orchestrator.webhook", "webhook_previous_secret"): (
        [{"previous_secret": "'x'", "previous_until": "now()"}],
        [{"previous_secret": "'x'"}, {"previous_until": "now()"}],
    ),
    ("orchestrator.webhook", "webhook_disabled"): (
        [{"disabled_at": "now()", "disabled_because": "'gone'"}],
        [{"disabled_at": "now()"}, {"disabled_because": "'gone'"}],
    ),
    ("orchestrator.webhook", "webhook_disabled_because"): (
        [{"disabled_at": "now()", "disabled_because": "'failing'"}],
        [{"disabled_at": "now()", "disabled_because": "'slow'"}],
    ),
    ("orchestrator.webhook_delivery", "webhook_delivery_state"): (
        each("state", ["pending", "delivered", "failed"]),
        each("state", ["asked"]),
    ),
    ("registration.forgetting", "forgetting_is_done"): (
        [{"name": "'x'"}, DONE],
        [{"mentor_id": "NULL"}, DONE | {"mentor_id": "'x'"}, DONE | {"name": "'x'"}],
    ),
    ("orchestrator.webhook_change", "webhook_change_kind"): (
        [*each("change", ["created", "secret_rotated", "enabled", "deleted"]), {"change": "'disabled'", "because": "'x'"}],
        each("change", ["changed"]),
    ),
    ("orchestrator.webhook_change", "webhook_change_because"): (
        [{"change": "'disabled'", "because": "'x'"}],
        [{"change": "'disabled'"}, {"change": "'enabled'", "because": "'x'"}],
    ),
}

APPEND_ONLY = (
    *("registration." + name for name in ("audit", "period_change", "notes_erasure")),
    *(
        "orchestrator." + name
        for name in ("webhook_change", "receipt_run", "receipt_batch", "receipt_node", "receipt_checkpoint")
    ),
)


@pytest.fixture(scope="module")
def deployment(infrastructure: Stack, template_database: str) -> Iterator[Settings]:
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        yield Settings(database_url=SecretStr(url))


@pytest.fixture(scope="module")
def owner_of_all(deployment: Settings) -> Iterator[Engine]:
    engine = create_engine(deployment.owner_url)
    yield engine
    engine.dispose()


def insert(connection: Connection, table: str, row: Row) -> None:
    values: Row = usual_values(connection, table)
    # Unless the row has other counts.
    values |= {"pending": "1", "total_items": "1"} if table == "orchestrator.batch" else {}
    values |= row
    connection.execute(text(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(values.values())})"))


@pytest.mark.parametrize(("table", "constraint"), CHECKS)
def test_a_check_accepts_what_is_valid_and_refuses_each_contradiction(owner_of_all: Engine, table: str, constraint: str) -> None:
    valid, invalid = CHECKS[table, constraint]
    for row in valid:
        with owner_of_all.connect() as connection:
            insert(connection, table, row)
    for row in invalid:
        with owner_of_all.connect() as connection, pytest.raises(IntegrityError) as refused:
            insert(connection, table, row)
        assert isinstance(refused.value.orig, psycopg2.Error)
        assert refused.value.orig.diag.constraint_name == constraint, row


def test_no_check_is_left_out(owner_of_all: Engine) -> None:
    every = text("""
        SELECT conrelid::regclass::text, conname FROM pg_constraint
        WHERE contype = 'c' AND connamespace::regnamespace::text IN ('orchestrator', 'registration')
    """)
    with owner_of_all.connect() as connection:
        assert {tuple(row) for row in connection.execute(every)} == CHECKS.keys()


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_nobody_changes_or_removes_a_row_of_an_append_only_table(deployment: Settings, owner_of_all: Engine, table: str) -> None:
    column = "organization_id"
    changes = (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}")
    for url in (deployment.worker_url, deployment.api_url):
        engine = create_engine(url)
        for change in changes:
            with engine.connect() as connection, pytest.raises(DBAPIError) as refused:
                connection.execute(text(change))
            assert sqlstate(refused.value) == INSUFFICIENT_PRIVILEGE
        engine.dispose()
    for change in changes:
        with owner_of_all.connect() as connection:
            insert(connection, table, {})
            with pytest.raises(DBAPIError) as refused:
                connection.execute(text(change))
        assert sqlstate(refused.value) == INSUFFICIENT_PRIVILEGE
        assert "never changed or removed" in str(refused.value)


PERSON, PSEUDONYM, OTHER = "person", "forgotten-1", "other"
# By table, the function that forgets a person there, after its first three arguments, and the columns that may name the person.
FORGETTING = {
    "registration.audit": ("forget_in_audit", "audit_id, reason", ("registered_by", "attributed_to", "submitted_by")),
    "registration.period_change": ("forget_in_period_change", "number, reason", ("changed_by",)),
    "registration.notes_erasure": ("forget_in_notes_erasure", "batch_id, position, attempt", ("erased_by",)),
    "orchestrator.webhook_change": ("forget_in_webhook_change", "number", ("changed_by",)),
}


@pytest.mark.parametrize("table", FORGETTING)
def test_in_an_append_only_table_only_a_forgotten_person_is_replaced(
    deployment: Settings, owner_of_all: Engine, table: str
) -> None:
    function, key, columns = FORGETTING[table]
    rows = [Row({column: f"'{PERSON if column == named else OTHER}'" for column in columns}) for named in (*columns, None)]
    shown = text(f"SELECT organization_id, {', '.join(columns)} FROM {table} ORDER BY 1, {', '.join(columns)}")
    call = (
        f"SELECT registration.{function}(:organization, '{PERSON}', :pseudonym, {key}) FROM {table}"
        " WHERE organization_id IN ('org-ours', 'org-theirs') AND (:ours OR organization_id <> :organization)"
    )
    with owner_of_all.connect() as connection:
        begun = connection.begin()
        word = "INSERT INTO registration.forgotten_word VALUES ('org-ours', 'x', true, 1, :pseudonym, 'x')"
        connection.execute(text(word), {"pseudonym": PSEUDONYM})
        for number, (organization, row) in enumerate(product(("org-ours", "org-theirs"), rows)):
            numbered = {"number": str(number)} if table == "registration.period_change" else {}
            insert(connection, table, row | numbered | {"organization_id": f"'{organization}'"})
        before = connection.execute(shown).all()
        connection.execute(text("GRANT bulkreg_worker TO CURRENT_USER"))

        def forget(organization: str, pseudonym: str, *, ours: bool) -> None:
            connection.execute(text("SET LOCAL ROLE bulkreg_worker"))
            connection.execute(text(call), {"organization": organization, "pseudonym": pseudonym, "ours": ours})
            connection.execute(text("RESET ROLE"))

        for organization, pseudonym in (("org-ours", "forgotten-2"), ("org-theirs", PSEUDONYM)):
            with pytest.raises(DBAPIError, match="nobody was forgotten"), connection.begin_nested():
                forget(organization, pseudonym, ours=True)
        # Rows of another organization, in the name of ours.
        forget("org-ours", PSEUDONYM, ours=False)
        assert connection.execute(shown).all() == before
        forget("org-ours", PSEUDONYM, ours=True)
        with pytest.raises(DBAPIError, match="never changed or removed"), connection.begin_nested():
            connection.execute(text(f"UPDATE {table} SET organization_id = organization_id"))
        expected = [
            tuple(PSEUDONYM if row.organization_id == "org-ours" and value == PERSON else value for value in row)
            for row in before
        ]
        assert sorted(map(tuple, connection.execute(shown))) == sorted(expected)
        begun.rollback()
