"""The tables, their indexes, row level security and grants."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    # `no_parameters`, so that the driver does not interpret percent signs.
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses, because a downgrade of the first version would remove all data."""
    raise NotImplementedError("there is no version before the first; drop the database instead")
