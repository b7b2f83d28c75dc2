"""Closes a client of Kafka, for a limited time."""

import threading

from confluent_kafka import Consumer


def close_within(consumer: Consumer, seconds: float) -> bool:
    """Closes the client, but waits only so long for it. Returns whether it is closed.

    The close of a client that has met damage, or has lost its group, may never return. It was seen once in some hundred runs, inside librdkafka
    (`rd_kafka_destroy` joins a thread that does not end). The caller would stand still with it. Such a client costs some threads until the
    process ends. The client's callbacks run in another thread while the caller waits.
    """
    closing = threading.Thread(target=consumer.close, name="client-close", daemon=True)
    closing.start()
    closing.join(seconds)
    return not closing.is_alive()
