"""What the supervisor runs on the infrastructure. Passed in by the command line, so that this folder knows no role's insides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Which roles share a process: those that wait most of the time. The ones with a CPU of their own to fill stand alone.
ROLE_GROUPS: tuple[tuple[str, ...], ...] = (
    ("api",),
    ("relay", "splitter", "sweeper"),
    ("registration",),
    ("aggregator",),
)


class StartError(Exception):
    """Something that a start needs can't be had. The message says what, where to look, and what to do."""


@dataclass(frozen=True)
class Endpoints:
    """Where the infrastructure is, with the rights of its owner."""

    postgres_url: str
    kafka_bootstrap_servers: str


@dataclass(frozen=True)
class Tokens:
    """Bearer tokens, readable by users with access to the home."""

    service: str
    admin: str | None
    """Of the first organization; None while there is none."""


@dataclass(frozen=True)
class Product:
    """How to set up and run the product."""

    prepare: Callable[[Endpoints], None]
    """Migrations, topics and whatever else must be there before a role starts; safe to repeat. What it raises ends the start."""
    tokens: Callable[[Endpoints, str], Tokens]
    """Made with the home's signing key, after `prepare`."""
    command: Callable[[Sequence[str]], Sequence[str]]
    """The command line that runs these roles in one process."""
