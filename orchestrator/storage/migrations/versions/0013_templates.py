"""Templates (saved groups of mentors), and batches whose failed items were dealt with. Only adds."""

from pathlib import Path

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the templates and dismissals. They are stored nowhere else."""
    op.execute("ALTER TABLE orchestrator.batch DROP COLUMN dismissed_at")
    op.execute("DROP TABLE orchestrator.batch_dismissal")
    op.execute("DROP TABLE orchestrator.template")
