"""The producer above the client library: which events are sent again, alone, or by a new client, and to which partition an event goes."""

import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from orchestrator.batches.publishing import DeliveryError, Trouble
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from producers import producer as module
from producers.partitions import partition_of
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from tests.support.log_lines import logged

PASSING = KafkaError(KafkaError._MSG_TIMED_OUT)
TOO_LARGE = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
FATAL = KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "by a test", fatal=True)

Delivery = KafkaError | None


class Client:
    """Stands in for the library's producer. `outcome` is the result for each value; `room` is the room in its queue."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.properties = properties
        self.given: list[tuple[str, bytes, str, list[tuple[str, bytes]]]] = []
        self.outcome: Callable[[bytes], Delivery] = lambda _: None
        self.refuses: dict[bytes, KafkaError] = {}
        """Values that it refuses at once."""
        self.room = 1_000
        self.fails_to_flush: Exception | None = None
        self.was_purged = self.was_closed = False
        self.asked: list[str] = []
        self.partitions: dict[str, int] = {}
        self.brokers = 1
        self._queue: list[tuple[bytes, Callable[[Delivery, None], None]]] = []

    def produce(self, topic: str, value: bytes, key: str, *, headers: Any, on_delivery: Callable[[Delivery, None], None]) -> None:
        if len(self._queue) >= self.room:
            raise BufferError
        if value in self.refuses:
            raise KafkaException(self.refuses[value])
        self.given.append((topic, value, key, headers))
        self._queue.append((value, on_delivery))

    def poll(self, _timeout: float) -> None:
        self._report(1)

    def flush(self, _timeout: float) -> None:
        if self.fails_to_flush is not None:
            error, self.fails_to_flush = self.fails_to_flush, None
            raise error
        self._report(len(self._queue))

    def _report(self, count: int) -> None:
        for value, report in self._queue[:count]:
            report(self.outcome(value), None)
        del self._queue[:count]

    def __len__(self) -> int:
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def purge(self) -> None:
        self.was_purged = True
        self._queue.clear()

    def close(self) -> None:
        assert self.was_purged
        self.was_closed = True

    def list_topics(self, name: str, *, timeout: float) -> Any:
        assert 0 < timeout <= 5
        self.asked.append(name)
        if not self.brokers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        topic = SimpleNamespace(partitions=dict.fromkeys(range(self.partitions.get(name, 0))))
        return SimpleNamespace(topics={name: topic}, brokers=dict.fromkeys(range(self.brokers)))

    @property
    def values(self) -> list[bytes]:
        return [value for _, value, _, _ in self.given]


class FakedProducer(EventProducer):
    """Our producer, with clients that a test can inspect."""

    def __init__(self, settings: Settings) -> None:
        self.clients: list[Client] = []
        super().__init__(settings)

    def _new_producer(self, **more: str | int | bool) -> Producer:
        self.clients.append(Client(self._config | more))
        return cast("Producer", self.clients[-1])


@pytest.fixture
def producer() -> FakedProducer:
    return FakedProducer(Settings(topic_prefix="test"))


@pytest.fixture
def client(producer: FakedProducer) -> Client:
    return producer.clients[0]


def event(value: bytes, topic: Topic = Topic.RESULTS, key: str = "key") -> OutgoingEvent:
    return OutgoingEvent(topic, key, (("ce_id", value),), value)


def events(*values: bytes) -> list[OutgoingEvent]:
    return [event(value) for value in values]


def outcomes(**by_value: KafkaError) -> Callable[[bytes], Delivery]:
    return lambda value: by_value.get(value.decode())


def test_events_are_passed_on_unchanged_and_known_to_be_acknowledged(producer: FakedProducer, client: Client) -> None:
    delivery = producer.send([event(b"a"), event(b"b", Topic.COMMANDS_BULK, "other")])
    assert client.given == [
        ("test.results.v1", b"a", "key", [("ce_id", b"a")]),
        ("test.commands-bulk.v1", b"b", "other", [("ce_id", b"b")]),
    ]
    assert delivery.outstanding == {0, 1}
    producer.poll(1.0)
    assert (delivery.outstanding, delivery.failed) == (set(), {})


def test_a_passing_failure_is_reported_and_not_sent_again(producer: FakedProducer, client: Client) -> None:
    client.outcome = outcomes(b=PASSING)
    delivery = producer.send(events(b"a", b"b", b"c"))
    producer.poll(1.0)
    assert (delivery.outstanding, delivery.failed) == (set(), {1: Trouble(str(PASSING))})
    # The next events go through another client, because this one may keep asking a former leader.
    assert [each.values for each in producer.clients] == [[b"a", b"b", b"c"], []]


def test_events_that_are_refused_together_are_sent_alone(producer: FakedProducer, client: Client) -> None:
    client.outcome = lambda _: TOO_LARGE
    delivery = producer.send(events(b"a", b"b", b"c"))
    producer.poll(1.0)
    [_, alone] = producer.clients
    assert alone.given == [("test.results.v1", value, "key", [("ce_id", value)]) for value in (b"a", b"b", b"c")]
    assert (alone.properties["batch.num.messages"], delivery.failed) == (1, {})
    assert "batch.num.messages" not in client.properties


@pytest.mark.parametrize(
    ("alone", "trouble"),
    [(None, None), (TOO_LARGE, Trouble(str(TOO_LARGE), is_permanent=True)), (PASSING, Trouble(str(PASSING)))],
)
def test_the_outcome_of_an_event_that_is_sent_alone(
    producer: FakedProducer, client: Client, alone: Delivery, trouble: Trouble | None
) -> None:
    producer.send(events(b"x"))
    client.outcome = lambda _: TOO_LARGE
    producer.poll(1.0)
    producer.clients[1].outcome = lambda value: alone if value == b"b" else None
    delivery = producer.send(events(b"a", b"b"))
    producer.poll(1.0)
    assert delivery.outstanding == set()
    assert delivery.failed == ({} if trouble is None else {1: trouble})
    alone_clients = [each for each in producer.clients if each.properties.get("batch.num.messages") == 1]
    assert len(alone_clients) == 1, "all events that are sent alone must share one client"


@pytest.mark.parametrize(
    ("name", "is_permanent"),
    [
        # The event itself is refused: too large for the topic or for a batch, without a time that it takes, or against a rule for records.
        ("MSG_SIZE_TOO_LARGE", True),
        ("RECORD_LIST_TOO_LARGE", True),
        ("INVALID_MSG_SIZE", True),
        ("INVALID_TIMESTAMP", True),
        ("INVALID_RECORD", True),
        ("POLICY_VIOLATION", True),
        ("UNSUPPORTED_FOR_MESSAGE_FORMAT", True),
        # An operator can change these.
        ("TOPIC_AUTHORIZATION_FAILED", False),
        ("UNKNOWN_TOPIC_OR_PART", False),
        ("NOT_ENOUGH_REPLICAS", False),
        ("INVALID_MSG", False),
    ],
)
def test_only_an_event_that_the_broker_would_refuse_again_is_given_up(
    producer: FakedProducer, client: Client, name: str, is_permanent: bool
) -> None:
    refusal = KafkaError(getattr(KafkaError, name))
    client.outcome = lambda _: TOO_LARGE
    producer.send(events(b"x"))
    producer.poll(1.0)
    alone = producer.clients[1]
    client.outcome = alone.outcome = lambda _: refusal
    delivery = producer.send(events(b"a"))
    producer.poll(1.0)
    assert delivery.failed == {0: Trouble(str(refusal), is_permanent)}
    assert (b"a" in alone.values) == is_permanent, (
        "what others may have caused is sent alone, to see whether this event is to blame"
    )


def test_an_event_that_does_not_fit_or_is_refused_alone(producer: FakedProducer, client: Client) -> None:
    client.outcome = lambda _: TOO_LARGE
    producer.send(events(b"x"))
    producer.poll(1.0)
    alone = producer.clients[1]
    alone.room, alone.refuses = 1, {b"a": TOO_LARGE}
    delivery = producer.send(events(b"a", b"b", b"c"))
    producer.poll(0.0)
    assert delivery.failed == {0: Trouble(str(TOO_LARGE), is_permanent=True), 2: Trouble(str(TOO_LARGE))}


def test_a_refusal_by_the_client_is_reported_at_once_and_the_others_are_sent(producer: FakedProducer, client: Client) -> None:
    client.refuses = {b"b": TOO_LARGE}
    delivery = producer.send(events(b"a", b"b", b"c"))
    assert delivery.failed == {1: Trouble(str(TOO_LARGE), is_permanent=True)}
    assert (delivery.outstanding, client.values) == ({0, 2}, [b"a", b"c"])


def test_a_full_queue_is_waited_for_and_the_order_is_kept(producer: FakedProducer, client: Client) -> None:
    client.room, client.refuses = 2, {b"e": TOO_LARGE}
    delivery = producer.send(events(b"a", b"b", b"c", b"d", b"e"))
    assert client.values == [b"a", b"b", b"c", b"d"]
    assert delivery.outstanding == {3}, "the caller must wait only while there is no room"
    assert delivery.failed == {4: Trouble(str(TOO_LARGE), is_permanent=True)}
    assert client.given[-1] == ("test.results.v1", b"d", "key", [("ce_id", b"d")])


@pytest.mark.parametrize("by", ["report", "KafkaException", "SystemError", "produce", "produce later"])
def test_after_a_fatal_error_everything_goes_to_a_new_client(
    producer: FakedProducer, client: Client, by: str, caplog: pytest.LogCaptureFixture
) -> None:
    earlier = producer.send(events(b"a", b"b"))
    if by == "report":
        client.outcome = lambda value: FATAL if value == b"b" else None
    elif by.startswith("produce"):
        # After a fatal error, events are refused with another code, which is not called fatal.
        client.refuses = {b"c": FATAL if by == "produce" else KafkaError(KafkaError._FATAL)}
        producer.send(events(b"c"))
    else:
        client.fails_to_flush = KafkaException(FATAL) if by == "KafkaException" else SystemError("a report was called")
    producer.poll(1.0)
    assert earlier.outstanding == set()
    assert not any(trouble.is_permanent for trouble in earlier.failed.values())
    assert set(earlier.failed) == ({1} if by == "report" else {0, 1})
    assert len(producer.clients) == 2
    assert len(logged(caplog, Action.PRODUCER_REBUILT)) == 1
    again = producer.send(events(b"b"))
    producer.poll(1.0)
    assert again.outstanding == set()
    assert not again.failed
    assert producer.clients[1].values == [b"b"]


def test_a_fatal_error_of_the_client_for_single_events_renews_both_clients(producer: FakedProducer, client: Client) -> None:
    client.outcome = lambda _: TOO_LARGE
    producer.send(events(b"a"))
    producer.poll(1.0)
    producer.clients[1].outcome = lambda _: FATAL
    delivery = producer.send(events(b"a"))
    producer.poll(1.0)
    assert (delivery.outstanding, [trouble.is_permanent for trouble in delivery.failed.values()]) == (set(), [False])
    producer.poll(1.0)
    renewed = producer.clients[2]
    renewed.outcome = lambda _: TOO_LARGE
    again = producer.send(events(b"b"))
    producer.poll(1.0)
    assert (again.outstanding, again.failed) == (set(), {})
    assert [each.values for each in producer.clients] == [[b"a", b"a"], [b"a", b"a"], [b"b"], [b"b"]]


def test_an_event_that_waits_to_be_sent_alone_is_reported_after_a_fatal_error(producer: FakedProducer, client: Client) -> None:
    client.outcome = outcomes(a=TOO_LARGE, b=FATAL)
    delivery = producer.send(events(b"a", b"b"))
    producer.poll(1.0)
    assert delivery.outstanding == set()
    assert [trouble.is_permanent for trouble in delivery.failed.values()] == [False, False]
    assert sum(b"a" in each.values for each in producer.clients) == 1


def test_publish_returns_when_all_are_acknowledged_and_names_those_that_are_not(producer: FakedProducer, client: Client) -> None:
    producer.publish(events(b"a", b"b"))
    client.outcome = outcomes(b=PASSING, c=PASSING)
    with pytest.raises(DeliveryError) as caught:
        producer.publish(events(b"a", b"b", b"a", b"c"))
    assert sorted(caught.value.troubles) == [1, 3]


@pytest.mark.parametrize(
    ("code", "is_looked_for"),
    [
        (KafkaError._UNKNOWN_TOPIC, True),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, True),
        (KafkaError._UNKNOWN_PARTITION, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
    ],
)
def test_a_missing_topic_is_looked_for_until_it_exists(
    producer: FakedProducer, client: Client, code: int, is_looked_for: bool
) -> None:
    client.outcome = lambda _: KafkaError(code)
    producer.send(events(b"a"))
    producer.poll(1.0)
    client.outcome = lambda _: None
    producer.send([event(b"b", Topic.COMMANDS)])
    assert client.asked == []
    for partitions in (0, 3, 3):
        client.partitions = {"test.results.v1": partitions}
        producer.send(events(b"c"))
    assert client.asked == ["test.results.v1"] * (2 if is_looked_for else 0)


def test_only_the_topic_of_the_refused_event_is_looked_for(producer: FakedProducer, client: Client) -> None:
    client.outcome = lambda value: KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART) if value == b"b" else None
    both = [event(b"a"), event(b"b", Topic.COMMANDS)]
    producer.send(both)
    producer.poll(1.0)
    producer.send(both)
    assert client.asked == ["test.commands.v1"]


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


def test_the_place_of_an_event_is_its_partition_while_the_topics_are_known(
    producer: FakedProducer, client: Client, time: Time
) -> None:
    there = event(b"", key="å")

    def expected(partitions: int) -> str:
        return f"results/{partition_of('å'.encode(), partitions)}"

    client.brokers = 0
    assert producer.place(there) == "results", "without metadata, the place must be the topic"
    client.brokers, client.partitions = 1, {"test.results.v1": 12, "test.commands.v1": 1}
    time.now += 61
    assert producer.place(there) == expected(12)
    assert producer.place(event(b"", Topic.COMMANDS)) == "commands/0"
    asked = len(client.asked)
    client.partitions["test.results.v1"] = 7
    time.now += 600
    client.brokers = 0
    assert not producer.is_reachable()
    assert producer.place(there) == expected(12), "what is known must be used while no broker responds"
    client.brokers = 1
    for _ in Topic:
        assert producer.is_reachable()
    assert producer.place(there) == expected(7)
    assert len(client.asked) == asked + 1 + len(Topic)


def test_a_missing_topic_is_not_asked_for_with_each_event(producer: FakedProducer, client: Client, time: Time) -> None:
    for _ in range(3):
        assert producer.place(event(b"")) == "results"
    assert len(client.asked) == 1
    time.now += 5
    producer.place(event(b""))
    assert len(client.asked) == 2


def test_row_72_every_topic_is_known_before_there_is_trouble(producer: FakedProducer, client: Client) -> None:
    """While there is, the question may go to the broker that does not respond. Then a whole topic would be taken for unreachable."""
    client.partitions = dict.fromkeys((topic.on_cluster("test") for topic in Topic), 4)
    producer.is_reachable()
    client.brokers = 0
    for topic in Topic:
        assert producer.place(event(b"", topic)).startswith(f"{topic.value}/")


@pytest.mark.parametrize("brokers", [0, 1])
def test_it_is_reachable_when_a_broker_responds(producer: FakedProducer, client: Client, brokers: int) -> None:
    client.brokers = brokers
    assert producer.is_reachable() is bool(brokers)


def test_abandoned_events_are_neither_sent_nor_waited_for(producer: FakedProducer, client: Client) -> None:
    client.outcome = outcomes(a=TOO_LARGE)
    producer.send(events(b"a"))
    producer.poll(1.0)
    alone = producer.clients[1]
    lost = producer.send(events(b"b"))
    client.poll(0)
    waiting = producer.send(events(b"a"))
    client.poll(0)
    producer.abandon()
    assert [each.was_purged for each in producer.clients] == [True, True]
    producer.poll(1.0)
    assert alone.values == [b"a"], "events that wait to be sent alone must be dropped, too"
    client.outcome = lambda _: FATAL
    producer.send(events(b"c"))
    producer.poll(1.0)
    assert waiting.outstanding == {0}
    assert not lost.failed


def test_closing_ends_both_clients(producer: FakedProducer, client: Client) -> None:
    client.outcome = lambda _: TOO_LARGE
    producer.send(events(b"a"))
    producer.poll(1.0)
    producer.close()
    assert [each.was_closed for each in producer.clients] == [True, True]


class Key(str):
    """A key that shows when its event is forgotten."""

    __slots__ = ("__weakref__",)


def test_a_client_that_is_replaced_keeps_no_event_that_it_has_not_sent() -> None:
    """The library's own client, to which no broker responds."""
    producer = EventProducer(Settings(kafka_bootstrap_servers="127.0.0.1:1"), {"delivery.timeout.ms": 300})
    first = producer.send(events(b"first"))
    keys = []
    while not first.failed:
        key = Key("later")
        keys.append(weakref.ref(key))
        producer.send([event(b"later", key=key)])
        del key
        producer.poll(0.01)
    assert not [key for key in keys if key() is not None]
    producer.close()
