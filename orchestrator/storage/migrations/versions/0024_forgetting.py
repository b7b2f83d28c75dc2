"""Forgetting a person: requests, and the keyed hashes by which an import and a replay recognize who was forgotten. Only adds."""

from pathlib import Path

from alembic import op

revision = "0024"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: an import or a replay without these rows could bring a forgotten person back."""
    raise NotImplementedError("dropping the tables would forget who was forgotten, and an import could bring them back")
