"""A database on the product's server that exists as long as a measurement."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg2
import psycopg2.extensions

from orchestrator.process.database_urls import database_url


@contextmanager
def scratch_database(postgres: str, name: str) -> Iterator[str]:
    """Yields the address of an empty database whose name begins with `name`, and drops it afterwards."""
    unique = f"{name}_{uuid4().hex}"
    server = psycopg2.connect(postgres)
    server.set_isolation_level(psycopg2.extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {unique}")
    try:
        yield database_url(postgres).set(drivername="postgresql", database=unique).render_as_string(hide_password=False)
    finally:
        with server.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {unique} WITH (FORCE)")
        server.close()
