"""How many servers a home has: one of each, or a cluster. A home keeps the layout with which it was made."""

from collections.abc import Sequence
from dataclasses import dataclass

from compose.embedded.home import Home
from compose.embedded.product import StartError


@dataclass(frozen=True)
class Layout:
    """The servers of a home."""

    brokers: int
    databases: int
    """Two: a primary and its synchronous standby."""


SINGLE = Layout(brokers=1, databases=1)
CLUSTER = Layout(brokers=3, databases=2)


def server_names(kind: str, count: int) -> Sequence[str]:
    """The names of the servers of one kind. Their data, logs, ports and processes are under these names."""
    return [kind] if count == 1 else [f"{kind}-{number}" for number in range(1, count + 1)]


def layout_of(home: Home, *, cluster: bool) -> Layout:
    """Returns the layout of the data in the home, or the wanted one if it has no data. Raises StartError."""
    holds_single, holds_cluster = (_holds(home, layout) for layout in (SINGLE, CLUSTER))
    if cluster and holds_single:
        message = (
            f"the data in {home.path} is that of single servers; start it without --cluster, or name another folder with --home"
        )
        raise StartError(message)
    return CLUSTER if cluster or holds_cluster else SINGLE


def _holds(home: Home, layout: Layout) -> bool:
    first = server_names("kafka", layout.brokers)[0], server_names("postgres", layout.databases)[0]
    return any((home.path / name).exists() for name in first)
