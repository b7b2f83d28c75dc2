"""Who created, rotated, enabled, disabled and deleted webhooks. Only adds."""

from pathlib import Path

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: the table is the only record of who changed webhooks."""
    raise NotImplementedError("dropping the table would lose who changed webhooks")
