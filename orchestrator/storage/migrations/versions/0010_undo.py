"""The columns of revocations. Only adds; the version before neither reads nor writes them."""

from pathlib import Path

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses, because the columns are evidence of who revoked an activity, and why."""
    raise NotImplementedError("dropping the columns would lose who revoked which activities, and why")
