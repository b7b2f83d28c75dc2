"""The result of the last verification. It only adds; the previous version does not use it."""

from pathlib import Path

from alembic import op

revision = "0018"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Forgets the result."""
    op.execute("DROP TABLE orchestrator.verification")
