"""A valid row of any table, as far as its columns must have values."""

from sqlalchemy import Connection, text

# A valid value for each column type, and for a few columns that have a constraint.
VALUES = {
    "uuid": "gen_random_uuid()",
    "text": "gen_random_uuid()::text",
    "integer": "1",
    "smallint": "1",
    "bigint": "1",
    "bytea": "'x'",
    "jsonb": "'{}'",
    "boolean": "false",
    "date": "'2026-03-25'",
    "timestamp with time zone": "now()",
    "ARRAY": "'{x}'",
}
SPECIAL = {
    ("orchestrator.batch", "status"): "'processing'",
    ("orchestrator.batch_edit", "kind"): "'deleted'",
    ("orchestrator.dispatch", "state"): "'asked'",
    ("orchestrator.outcome", "outcome"): "'cancelled'",
    ("orchestrator.receipt_published", "state"): "'ahead'",
    ("orchestrator.receipt_run", "audit_ids"): "'{1}'",
    ("orchestrator.receipt_salt", "salt"): "decode(repeat('ab', 32), 'hex')",
    ("orchestrator.revocation_request", "state"): "'asked'",
    ("orchestrator.sweep_watch", "stage"): "'splitter'",
    ("orchestrator.webhook_change", "change"): "'created'",
    ("registration.forgetting", "mentor_id"): "gen_random_uuid()::text",
    ("registration.period_change", "closed_through"): "'2026-03-25'",
}


def usual_values(connection: Connection, table: str) -> dict[str, str]:
    """By column that must have a value, a valid one in SQL. Constraints over several columns may want others."""
    schema, name = table.split(".")
    columns = connection.execute(
        text("""
            SELECT column_name, data_type FROM information_schema.columns
            WHERE (table_schema, table_name) = (:schema, :name) AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO'
        """),
        {"schema": schema, "name": name},
    )
    values: dict[str, str] = {column: VALUES[kind] for column, kind in columns}
    values |= {column: value for (of, column), value in SPECIAL.items() if of == table}
    return values
