"""What commands say when Kafka does not answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.failures import UnreachableError

if TYPE_CHECKING:
    from orchestrator.settings import Settings


@contextmanager
def reachable_kafka(settings: "Settings") -> Iterator[None]:
    """Turns what Kafka's client raises in the block into an UnreachableError that names the broker."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        message = f"Kafka at {settings.kafka_bootstrap_servers} does not answer, or refuses: {error.args[0].str()}"
        raise UnreachableError(message) from error
