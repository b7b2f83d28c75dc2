"""The chapter at the registration, of each activity. Only adds: the version before leaves it empty, and the next upgrade fills it in."""

from alembic import op

revision = "0015"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column that may be empty is added without rewriting the table. `chapters.py` fills it in afterwards."""
    op.execute("ALTER TABLE registration.activity ADD COLUMN chapter_id text")


def downgrade() -> None:
    """The directory still has the chapter that the mentor belongs to now."""
    op.execute("ALTER TABLE registration.activity DROP COLUMN chapter_id")
