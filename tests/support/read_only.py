"""Makes a database read-only for a while, as a failover does with the former primary."""

import contextlib
from collections.abc import Iterator

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.waiting import eventually

_END_SESSIONS = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextlib.contextmanager
def read_only(owner_url: URL) -> Iterator[None]:
    """Ends all sessions; new ones can't write. Sessions that begin meanwhile stay read-only afterwards."""
    engine = create_engine(owner_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {owner_url.database} SET default_transaction_read_only = on"))
            connection.execute(_END_SESSIONS)
        engine.dispose()
        yield
    finally:
        # On a connection of its own, because the server may have been killed meanwhile.
        eventually(lambda: _is_writable_again(owner_url))


def _is_writable_again(owner_url: URL) -> bool:
    # Connects to another database, because a session of this one would itself be read-only.
    engine = create_engine(owner_url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {owner_url.database} RESET default_transaction_read_only"))
    except OperationalError:
        return False
    finally:
        engine.dispose()
    return True
