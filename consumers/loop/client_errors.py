"""What an error of the Kafka client means for the loop: the member is expelled, or the client is of no use any more."""

from confluent_kafka import KafkaError

# The group removed this member, and the client does not join again by itself. (After UNKNOWN_MEMBER_ID and FENCED_MEMBER_EPOCH it does: the
# coordinator had not heard of it for too long. Its partitions are then reported as lost.)
_EXPELLED = frozenset({KafkaError._MAX_POLL_EXCEEDED, KafkaError._FENCED, KafkaError.FENCED_INSTANCE_ID})


class ExpelledError(Exception):
    """This consumer is no member of its group any more: it did not poll for too long, or its client has lost the group. End the process: a new
    one starts clean, and Kafka redelivers what this one did without committing its offsets."""


def is_expelled(error: KafkaError) -> bool:
    """Returns whether the group removed the client, and the client does not join again by itself."""
    return error.code() in _EXPELLED


def is_fatal(error: KafkaError) -> bool:
    """Returns whether the client is of no use any more. As a message, a fatal error has only the code, without the flag."""
    return error.fatal() or error.code() == KafkaError._FATAL
