"""Makes the audit append-only, and adds the columns that a receipt needs. Removes two rights that no version has used."""

from pathlib import Path

from alembic import op

revision = "0011"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: the audit is evidence."""
    raise NotImplementedError("dropping the columns would forget what the audit says of each record")
