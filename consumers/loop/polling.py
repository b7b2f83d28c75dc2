"""Step 1 of the loop: takes what the client has."""

from collections.abc import Callable

from confluent_kafka import Consumer, Message

# An idle loop that gets a record waits this long for those that were sent with it. The commands of a batch of 25 are on several partitions
# and arrive in two or three fetches; each would otherwise be a transaction of its own, with its commit, its flush and its offsets.
GATHER_S = 0.003


def poll(consumer: Consumer, *, timeout_s: float, most: int, assignment: Callable[[Message], object]) -> list[Message]:
    """Returns the messages that are there. Waits only when there are none.

    `assignment` returns an object that another assignment of the message's partition does not have.
    """
    if not timeout_s:
        return consumer.consume(most, timeout=0)
    first = consumer.poll(timeout_s)
    if first is None:
        return []
    # A message that is no record, such as the end of a partition, is no sign that more records follow.
    if first.error() is not None:
        return [first]
    before = assignment(first)
    messages = consumer.consume(most, timeout=GATHER_S)
    # If the call has taken the partition away and given it back, the partition is read again from its committed offset on. The record comes
    # again then. Counted now, it would be the first of the assignment, and those before it would not be waited for.
    return [first, *messages] if assignment(first) is before else messages
