"""The connection by which the checks of `bulkreg doctor` look at the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine

from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine


@contextmanager
def engine_for(settings: Settings, url: URL | None = None) -> Iterator[Engine]:
    """An engine for one connection to this URL, or to the worker's."""
    engine = create_database_engine(url or settings.worker_url, settings, connections=1, application_name="bulkreg-doctor")
    try:
        yield engine
    finally:
        engine.dispose()
