"""A home is that of single servers or that of a cluster, and stays what it is."""

from pathlib import Path

import pytest

from compose.embedded.home import Home
from compose.embedded.layout import CLUSTER, SINGLE, Layout, layout_of
from compose.embedded.product import StartError


@pytest.mark.parametrize(
    ("holds", "cluster", "expected"),
    [
        ((), False, SINGLE),
        ((), True, CLUSTER),
        (("kafka", "postgres"), False, SINGLE),
        (("kafka-1", "postgres-1"), False, CLUSTER),
        (("postgres-1",), True, CLUSTER),  # with brokers that run elsewhere
    ],
)
def test_a_home_keeps_its_layout(tmp_path: Path, holds: tuple[str, ...], expected: Layout, *, cluster: bool) -> None:
    for name in holds:
        (tmp_path / name).mkdir()
    assert layout_of(Home(tmp_path), cluster=cluster) == expected


@pytest.mark.parametrize("holds", ["kafka", "postgres"])
def test_single_servers_do_not_become_a_cluster(tmp_path: Path, holds: str) -> None:
    (tmp_path / holds).mkdir()
    with pytest.raises(StartError, match=r"start it without --cluster, or name another folder with --home"):
        layout_of(Home(tmp_path), cluster=True)
