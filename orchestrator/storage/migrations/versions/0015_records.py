"""The mentor's chapter at the registration of each activity. Only adds; the version before leaves it empty, and the next upgrade fills it in."""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a nullable column, which does not rewrite the table. `chapters.py` fills it in afterwards."""
    op.execute("ALTER TABLE registration.activity ADD COLUMN chapter_id text")


def downgrade() -> None:
    """Drops the column. The directory still has the mentor's present chapter."""
    op.execute("ALTER TABLE registration.activity DROP COLUMN chapter_id")
