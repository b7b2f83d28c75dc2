"""The hashes by which a replay recognizes people who were forgotten, also when they were readmitted. Only adds."""

from pathlib import Path

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: a replay without these rows could write the ids of readmitted people into their earlier records."""
    raise NotImplementedError(
        "dropping the table would lose by what a replay recognizes the earlier records of readmitted people"
    )
