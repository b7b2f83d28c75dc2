"""The directory's minutes of activity types and names of chapters, and a function that folds text for searches. Only adds."""

from pathlib import Path

from alembic import op

revision = "0012"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the columns and tables, which are stored nowhere else. The next import of the directory restores them."""
    op.execute("DROP FUNCTION registration.folded(text)")
    op.execute("DROP TABLE registration.chapter")
    op.execute("ALTER TABLE registration.activity_type DROP COLUMN default_minutes, DROP COLUMN minimum_minutes")
