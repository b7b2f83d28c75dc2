"""A database that takes no changes for a while, as each failover makes the former primary."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import URL, create_engine, text

_END_SESSIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextlib.contextmanager
def read_only(owner_url: URL) -> Iterator[None]:
    """All sessions are ended, and new ones can't write. Those that are made meanwhile stay read-only afterwards."""
    engine = create_engine(owner_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {owner_url.database} SET default_transaction_read_only = on"))
        connection.execute(_END_SESSIONS)
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {owner_url.database} RESET default_transaction_read_only"))
    engine.dispose()
