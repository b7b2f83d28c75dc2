"""The generations of consumer groups. It only adds; the previous version does not use them."""

from pathlib import Path

from alembic import op

revision = "0019"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Forgets the generations. The roles join their first groups again, and read again what was handled since."""
    op.execute("DROP TABLE orchestrator.consumer_group")
