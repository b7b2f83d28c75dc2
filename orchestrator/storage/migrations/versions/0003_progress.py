"""The time from which a batch's progress is measured. Only adds nullable columns; the version before never reads them."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the two columns. Only an estimate is lost."""
    op.execute("ALTER TABLE orchestrator.batch DROP COLUMN measured_from, DROP COLUMN measured_items")
