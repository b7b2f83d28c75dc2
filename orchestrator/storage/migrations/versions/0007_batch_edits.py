"""Labels, cancels and deletions as rows of their own. Only adds; the version before never reads them."""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the rows. The batches' own rows have the same values."""
    op.execute("DROP INDEX orchestrator.dispatch_in_doubt; DROP TABLE orchestrator.batch_edit")
