"""The requests to an external registration service, and its responses. Only adds; the version before never reads it."""

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
    """Refuses, because only these rows show which items an external service may have registered."""
    raise NotImplementedError("dropping orchestrator.dispatch would lose which items were sent to an external service")
