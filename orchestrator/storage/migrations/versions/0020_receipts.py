"""The Merkle logs of records, for receipts. It only adds; the previous version does not use them."""

from pathlib import Path

from alembic import op

revision = "0020"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Refuses: receipts refer to the logs, and nothing can make the same logs again without the salts."""
    raise NotImplementedError("dropping the tables would make every receipt unverifiable by the product")
