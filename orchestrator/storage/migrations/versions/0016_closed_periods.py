"""Closed periods. Only adds; the version before neither closes a period nor minds one."""

from pathlib import Path

from alembic import op

revision = "0016"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: who closed and reopened which period is evidence."""
    raise NotImplementedError("dropping the table would forget who closed and reopened which period, and why")
