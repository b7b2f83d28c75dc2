"""The size of each part of an upstream batch. Only adds; the version before does not write it."""

from pathlib import Path

from alembic import op

revision = "0009"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the sizes, which are stored nowhere else."""
    op.execute("ALTER TABLE orchestrator.batch_part DROP COLUMN data_bytes")
