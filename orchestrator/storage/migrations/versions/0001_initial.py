"""The tables, their indexes, row level security and grants."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    # Without parameters, so that the driver leaves the percent signs alone.
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: the first version has nothing below it but the loss of all data."""
    raise NotImplementedError("there is nothing below the first version; drop the database instead")
