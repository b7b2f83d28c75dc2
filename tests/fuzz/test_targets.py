"""A few seconds of each target, always with the same inputs. `make fuzz` runs for hours."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz import bodies, events
from tests.support.databases import fresh_database
from tests.support.stack import Stack


@pytest.fixture
def database(infrastructure: Stack, template_database: str) -> Iterator[str]:
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        yield url


@pytest.mark.parametrize("fuzz", [bodies.fuzz, events.fuzz], ids=["bodies", "events"])
def test_nothing_is_found(fuzz: Callable[..., list[str]], database: str, tmp_path: Path) -> None:
    assert fuzz(database, seconds=4, seed=1, folder=tmp_path / "found") == []
