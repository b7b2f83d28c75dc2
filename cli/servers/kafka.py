"""The errors of commands when Kafka does not respond, or when the settings forbid the connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.terminal.failures import BadInputError, UnreachableError

if TYPE_CHECKING:
    from orchestrator.process.settings import Settings


@contextmanager
def reachable_kafka(settings: "Settings") -> Iterator[None]:
    """Turns the errors of Kafka's client in the block into an UnreachableError that names the broker, and unsafe settings into
    BadInputError."""
    from confluent_kafka import KafkaException

    from orchestrator.process.kafka_settings import UnsafeKafkaError

    try:
        yield
    except UnsafeKafkaError as error:
        raise BadInputError(str(error)) from error
    except KafkaException as error:
        message = f"Kafka at {settings.kafka_bootstrap_servers} does not respond, or refuses: {error.args[0].str()}"
        raise UnreachableError(message) from error
