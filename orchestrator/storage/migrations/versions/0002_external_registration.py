"""What an external registration service was asked, and what it answered. Only adds: the version before never looks at it."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: the rows tell which items a service may hold an activity of."""
    raise NotImplementedError("dropping orchestrator.dispatch would forget what an external service was asked")
