"""Erased notes: who erased the notes of which item, and when. Only adds; the version before erases nothing."""

from pathlib import Path

from alembic import op

revision = "0021"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: a replay without these rows could bring erased notes back."""
    raise NotImplementedError("dropping the table would forget which notes were erased, and a replay could bring them back")
