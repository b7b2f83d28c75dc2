"""What the supervisor runs on the infrastructure. The command line passes it in, so that this folder knows nothing about the roles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# The roles that share a process: those that wait most of the time. Roles that can fill a CPU have a process of their own.
ROLE_GROUPS: tuple[tuple[str, ...], ...] = (
    ("api",),
    ("relay", "splitter", "sweeper", "notary", "notifier"),
    ("registration",),
    ("aggregator",),
)


class StartError(Exception):
    """Something that a start needs is not available. The message says what, where to look, and what to do."""


@dataclass(frozen=True)
class Endpoints:
    """The addresses of the infrastructure, with the rights of its owner."""

    postgres_url: str
    kafka_bootstrap_servers: str
    topic_copies: int | None = None
    """The replication factor of the product's topics. None: as the settings say, because these brokers are not ours."""


@dataclass(frozen=True)
class Tokens:
    """Bearer tokens, readable by users with access to the home."""

    service: str
    admin: str | None
    """Of the first organization. None: there is none yet."""


@dataclass(frozen=True)
class Product:
    """How to set up and run the product."""

    prepare_database: Callable[[Endpoints], None]
    """Runs migrations; may be repeated. Kafka may still be starting. An exception ends the start."""
    prepare_kafka: Callable[[Endpoints], None]
    """Creates topics; may be repeated. An exception ends the start."""
    tokens: Callable[[Endpoints, str], Tokens]
    """Makes tokens with the home's signing key, after `prepare_database`. Kafka may still be starting."""
    command: Callable[[Sequence[str], Path], Sequence[str]]
    """Returns the command line that runs these roles in one process. It loads them, and waits until the gate is open (`gate.py`)."""
    login: Sequence[str]
    """The command line that runs the console's identity provider. It gets the settings of the roles."""
