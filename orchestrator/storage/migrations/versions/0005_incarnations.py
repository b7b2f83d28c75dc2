"""Which incarnation of a topic a consumer's progress describes, where the queues end, and which roles began when.

Only adds: the version before writes progress without an incarnation, which counts for any.
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
    """Progress describes a name again, and nothing but observations is lost."""
    op.execute("ALTER TABLE orchestrator.consumer_progress DROP COLUMN topic_id")
    op.execute("DROP TABLE orchestrator.queue_end, orchestrator.role_start")
