"""Fixtures of the flow's tests."""

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, durable


@pytest.fixture(scope="module")
def durable_server(infrastructure: Stack) -> Iterator[None]:
    """Checks that PostgreSQL is configured as a deployment's should be."""
    with durable(infrastructure.postgres_url):
        yield
