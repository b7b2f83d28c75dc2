"""The incarnation of a topic that a consumer's progress belongs to, the ends of the queues, and the starts of roles.

Only adds. The version before writes progress without an incarnation, which matches any.
"""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Runs the SQL beside this file."""
    sql = Path(__file__).with_suffix(".sql").read_text()
    op.get_bind().exec_driver_sql(sql, execution_options={"no_parameters": True})


def downgrade() -> None:
    """Drops the incarnations and the observations. Progress then belongs to a topic's name again."""
    op.execute("ALTER TABLE orchestrator.consumer_progress DROP COLUMN topic_id")
    op.execute("DROP TABLE orchestrator.queue_end, orchestrator.role_start")
