"""The product as it may look in the next version."""

import shutil
from pathlib import Path

from orchestrator.storage.migrate import newest_version
from tests.support.expansion import EXPAND_EVERY_TABLE

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas")

MIGRATION = '''
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("""{sql}""")
'''


class NextVersion:
    """The product as it may look in the next version: another folder of code, with a migration and with code that needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for package in PACKAGES:
            if package != "orchestrator":
                (folder / package).symlink_to(ROOT / package)
        shutil.copytree(ROOT / "orchestrator", folder / "orchestrator")
        self._versions = folder / "orchestrator" / "storage" / "migrations" / "versions"
        self._newest = newest_version()
        self.add_migration("expand", EXPAND_EVERY_TABLE)
        # It writes a column that the present version does not know.
        statements = folder / "orchestrator" / "storage" / "sql" / "outcomes.sql"
        source = statements.read_text()
        for present, next_ in (
            ("error, created_at)", "error, created_at, of_the_next_version)"),
            ("n.error, CAST(:at AS timestamptz)", "n.error, CAST(:at AS timestamptz), 'next'"),
        ):
            assert source.count(present) == 1
            source = source.replace(present, next_)
        statements.write_text(source)

    def add_migration(self, revision: str, sql: str) -> None:
        """Adds a migration at the end of the chain."""
        (self._versions / f"{revision}.py").write_text(MIGRATION.format(revision=revision, before=self._newest, sql=sql))
        self._newest = revision
