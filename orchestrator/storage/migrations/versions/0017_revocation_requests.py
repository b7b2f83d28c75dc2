"""Requests to an external registration service to revoke activities. Only adds; the version before does not use them."""

from pathlib import Path

from alembic import op

revision = "0017"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the requests. What the service has revoked by then stays recorded at the items."""
    op.execute("DROP TABLE orchestrator.revocation_request")
    op.execute("ALTER TABLE orchestrator.batch_item DROP COLUMN revocation_request")
