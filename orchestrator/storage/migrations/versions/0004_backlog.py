"""How many items are waiting, for the API. Only adds; the version before never calls it."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the function, which nothing calls any more."""
    op.execute("DROP FUNCTION orchestrator.backlog()")
