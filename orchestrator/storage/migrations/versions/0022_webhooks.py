"""Webhooks and their deliveries. Only adds; the version before does not use them."""

from pathlib import Path

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Forgets every webhook, with its secret and its deliveries."""
    op.execute("DROP TABLE orchestrator.webhook_delivery, orchestrator.webhook")
