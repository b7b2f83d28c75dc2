"""The questions that commands ask a database directly, because the API does not offer them, and the messages for its failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError

from cli.servers.settings import load_settings
from cli.terminal.failures import UnreachableError
from orchestrator.process.database_urls import database_url, shown_url
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import is_environments, sqlstate
from orchestrator.storage.database import create_database_engine

_ORGANIZATION_OF_BATCH = text("SELECT organization_id FROM orchestrator.batch WHERE batch_id = :batch_id")

# undefined_table, invalid_schema_name
_NO_SCHEMA = ("42P01", "3F000")


@contextmanager
def database(settings: Settings, url: URL) -> Iterator[Engine]:
    """Yields one connection to a database for a command. Raises UnreachableError when it is unavailable or has no schema yet."""
    engine = create_database_engine(url, settings, connections=1, application_name="bulkreg")
    try:
        with reachable_database(url):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def reachable_database(url: URL) -> Iterator[None]:
    """Turns failures to reach the database in the block into UnreachableError. Other errors of a statement pass through."""
    try:
        yield
    except DBAPIError as error:
        where = shown_url(url)
        if getattr(error.orig, "pgcode", None) in _NO_SCHEMA:
            raise UnreachableError(f"The database at {where} has no schema yet: run bulkreg db upgrade") from error
        if not is_environments(error):
            raise
        what = "does not respond" if sqlstate(error) is None else "refuses"
        raise UnreachableError(f"The database at {where} {what}: {str(error.orig).strip()}") from error


def organization_of_batch(postgres_url: str, batch_id: UUID) -> str | None:
    """Returns the organization of a batch in a home, whose owner may see all of them. None: no such batch."""
    with database(load_settings(), database_url(postgres_url)) as engine, engine.connect() as connection:
        organization_id: str | None = connection.scalar(_ORGANIZATION_OF_BATCH, {"batch_id": batch_id})
        return organization_id
