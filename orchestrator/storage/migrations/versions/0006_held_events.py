"""Held rows of the outbox. Only adds; the version before neither reads nor writes them."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Moves held rows back to where the version before finds them."""
    op.execute("UPDATE orchestrator.outbox SET slot = -1 - slot WHERE slot < 0")
    op.execute("DROP INDEX orchestrator.outbox_held_for, orchestrator.outbox_held_stream")
    op.execute("ALTER TABLE orchestrator.outbox DROP COLUMN held_for, DROP COLUMN held_why, DROP COLUMN held_at")
