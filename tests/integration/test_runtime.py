"""The consumer loop on a real Kafka and a real PostgreSQL, with a toy handler. Row numbers refer to the fault catalogue."""

import base64
import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, create_engine, text

from consumers.loop.lanes import LanePolicy
from orchestrator.batches.publishing import DeliveryError, Trouble
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from tests.support.kafka import committed_offsets, reading, write_raw
from tests.support.publishing import SettledAtOnce
from tests.support.toy import ToyHandler, command, make_toy_table, running_loop, toy_positions
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("topics")

# Shorter than the settings allow, or heartbeats would come in between.
MAX_POLL_INTERVAL_MS = 3_000


@pytest.fixture(autouse=True)
def _toy_table(settings: Settings) -> None:
    make_toy_table(settings)


def committed(settings: Settings) -> int:
    """How many records the group has committed. The topic's offsets have no gaps."""
    return sum(committed_offsets(settings, ToyHandler.name, Topic.COMMANDS).values())


def progress(engine: Engine) -> int:
    with engine.connect() as connection:
        total: int = connection.execute(
            text("SELECT coalesce(sum(next_offset), 0) FROM orchestrator.consumer_progress")
        ).scalar_one()
        return total


def test_every_record_is_handled_announced_and_committed(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    publisher.publish([command(position) for position in range(1_200)])
    handler = ToyHandler()
    with running_loop(settings, handler) as loop, reading(settings, Topic.RESULTS) as results:
        results.wait_for(1_200)
        eventually(lambda: committed(settings) == 1_200)
        assert loop.health.broker_contact
        eventually(lambda: loop.health.loop_age_s < 1)
    assert toy_positions(engine) == list(range(1_200))
    assert progress(engine) == 1_200
    assert max(map(len, handler.handled)) <= settings.max_batch_records


WINDOWS = pytest.mark.parametrize(
    ("failpoint", "is_handled", "is_produced", "is_committed"),
    [
        (Failpoint.CONSUMER_BEFORE_HANDLE, False, False, False),
        (Failpoint.CONSUMER_AFTER_HANDLE_COMMIT, True, False, False),
        (Failpoint.CONSUMER_AFTER_PRODUCE, True, True, False),
        (Failpoint.CONSUMER_AFTER_OFFSET_COMMIT, True, True, True),
    ],
)


@WINDOWS
def test_records_are_redelivered_with_the_same_events_after_a_failure_between_two_steps(
    settings: Settings,
    engine: Engine,
    publisher: EventProducer,
    failpoint: Failpoint,
    is_handled: bool,
    is_produced: bool,
    is_committed: bool,
) -> None:
    publisher.publish([command(0)])
    armed = settings.model_copy(update={"failpoints": f"{failpoint}=raise@1"})
    with pytest.raises(InjectedError), running_loop(armed, ToyHandler()) as loop:
        eventually(lambda: loop.has_ended)
    assert toy_positions(engine) == [0] * is_handled
    assert committed(settings) == is_committed
    publisher.publish([command(1)])
    is_repeated = is_produced and not is_committed
    with running_loop(settings, ToyHandler()), reading(settings, Topic.RESULTS) as results:
        eventually(lambda: committed(settings) == 2)
        eventually(lambda: len(results.read()) >= 2 + is_repeated)
    assert toy_positions(engine) == [0, 1]
    of_first = [(seen.headers, seen.value) for seen in results.records if seen.data["position"] == 0]
    assert of_first == [of_first[0]] * (1 + is_repeated)


def good_headers() -> dict[str, bytes]:
    return dict(command(0).headers)


def test_row_23_poison_is_put_aside_with_origin_and_reason_and_the_partition_moves_on(settings: Settings, engine: Engine) -> None:
    good = command(7)
    poison: list[tuple[bytes | None, dict[str, bytes], str]] = [
        (None, good_headers(), "no_value"),
        (b"\xff\x00", good_headers(), "invalid_data"),
        (b"{}", {"x-notes": b"private"}, "bad_envelope"),
        (b"{}", {**good_headers(), "ce_type": b"\xff"}, "bad_envelope"),
        (b"{}", {**good_headers(), "ce_type": b"unknown"}, "unknown_type"),
        (good.value.replace(b'"org"', b'"\\ud800"'), good_headers(), "invalid_data"),
        (good.value.replace(b'"org"', b'"\\u0000"'), good_headers(), "invalid_data"),
        (b"[" * 100_000, good_headers(), "invalid_data"),
        (b"[" * 100_000, {"content-type": b"application/cloudevents+json"}, "not_json"),
    ]
    write_raw(settings, Topic.COMMANDS, [(value, headers) for value, headers, _ in poison], partition=2)
    write_raw(settings, Topic.COMMANDS, [(good.value, dict(good.headers))], partition=2)
    with running_loop(settings, ToyHandler()), reading(settings, Topic.DEAD_LETTER) as dead_letters:
        found = dead_letters.wait_for(len(poison))
        eventually(lambda: committed(settings) == len(poison) + 1)
    assert toy_positions(engine) == [7]
    origin = Topic.COMMANDS.on_cluster(settings.topic_prefix)
    for offset, (letter, (value, headers, reason)) in enumerate(zip(found, poison, strict=True)):
        data = letter.data
        assert (data["topic"], data["partition"], data["offset"], data["reason"]) == (origin, 2, offset, reason)
        assert data["value"] == (None if value is None else base64.b64encode(value).decode())
        assert data["key"] == base64.b64encode(b"key").decode()
        assert data["headers"] == {n: v.decode(errors="replace") for n, v in headers.items() if n != "x-notes"}
        assert b"private" not in letter.value
    assert len({letter.id for letter in found}) == len(poison)


def test_a_refused_record_is_put_aside_and_its_neighbours_are_handled(
    settings: Settings, engine: Engine, publisher: EventProducer
) -> None:
    publisher.publish([command(position) for position in range(20)])
    with running_loop(settings, ToyHandler(refused=frozenset({3}))), reading(settings, Topic.DEAD_LETTER) as dead_letters:
        [letter] = dead_letters.wait_for(1)
        eventually(lambda: committed(settings) == 20)
    assert (letter.data["reason"], letter.data["detail"]) == ("toy_refused", "as asked")
    assert base64.b64decode(str(letter.data["value"])) == command(3).value


def test_one_guilty_among_500_fails_alone(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    publisher.publish([command(position) for position in range(500)])
    handler = ToyHandler(bugs=frozenset({321}))
    with running_loop(settings, handler), reading(settings, Topic.RESULTS) as results:
        found = results.wait_for(500)
        eventually(lambda: committed(settings) == 500)
    assert handler.given_up == [321]
    assert toy_positions(engine) == [position for position in range(500) if position != 321]
    assert sorted(int(str(seen.data["position"])) for seen in found) == list(range(500))
    # Nine halvings of 500 find it, and each micro-batch is tried once as a whole.
    assert sum(321 in positions for positions in handler.handled) <= 10


def test_a_record_whose_giving_up_fails_is_put_aside(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    publisher.publish([command(position) for position in range(10)])
    with (
        running_loop(settings, ToyHandler(bugs=frozenset({4}), hopeless=True)),
        reading(settings, Topic.DEAD_LETTER) as dead_letters,
    ):
        [letter] = dead_letters.wait_for(1)
        eventually(lambda: committed(settings) == 10)
    assert (letter.data["reason"], letter.data["detail"]) == ("internal_error", "BugError")
    assert toy_positions(engine) == [position for position in range(10) if position != 4]


class Gate(SettledAtOnce):
    """A publisher that refuses dead letters until it is opened."""

    def __init__(self, producer: EventProducer) -> None:
        self._producer = producer
        self.is_open = False
        self.refusals = 0

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        refused = [index for index, event in enumerate(events) if event.topic is Topic.DEAD_LETTER]
        if refused and not self.is_open:
            self.refusals += 1
            raise DeliveryError(dict.fromkeys(refused, Trouble("refused by the test")))
        self._producer.publish(events)


def test_row_33_nothing_is_committed_until_the_dead_letter_is_written(settings: Settings, publisher: EventProducer) -> None:
    write_raw(settings, Topic.COMMANDS, [(b"poison", {})], partition=0)
    gate = Gate(publisher)
    with running_loop(settings, ToyHandler(), publisher=gate), reading(settings, Topic.DEAD_LETTER) as dead_letters:
        eventually(lambda: gate.refusals >= 3)
        assert committed(settings) == 0
        gate.is_open = True
        dead_letters.wait_for(1)
        eventually(lambda: committed(settings) == 1)


def test_partitions_that_feed_a_full_lane_are_paused_and_lose_nothing(
    settings: Settings, engine: Engine, publisher: EventProducer
) -> None:
    publisher.publish([command(position, bulk=True) for position in range(3_000)])
    policy = LanePolicy(max_batch_records=100, bulk_share=0.5, max_lane_records=200)
    handler = ToyHandler()
    handler.may_go_on.clear()
    with running_loop(settings, handler, policy=policy) as loop:
        eventually(lambda: loop.paused_partitions == settings.topic_partitions)
        handler.may_go_on.set()
        eventually(lambda: committed(settings) == 3_000)
        eventually(lambda: loop.paused_partitions == 0)
    assert toy_positions(engine) == list(range(3_000))
    assert sum(map(len, handler.handled)) == 3_000, "a record of a paused partition was read twice"


def test_row_4_membership_outlasts_an_unavailable_database(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    """It is away for longer than max.poll.interval.ms. A loop that waited for it would be expelled."""
    settings = settings.model_copy(update={"max_poll_interval_ms": MAX_POLL_INTERVAL_MS})
    server = create_engine(settings.owner_url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    database = settings.owner_url.database
    handler = ToyHandler()
    engine.dispose()
    with running_loop(settings, handler) as loop, server.connect() as connection:
        eventually(lambda: loop.health.broker_contact)
        connection.execute(text(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"))
        connection.execute(text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"))
        publisher.publish([command(position) for position in range(50)])
        eventually(lambda: loop.health.loop_age_s > 1.5 * MAX_POLL_INTERVAL_MS / 1000)
        assert committed(settings) == 0
        connection.execute(text(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true"))
        eventually(lambda: committed(settings) == 50)
    server.dispose()
    assert toy_positions(engine) == list(range(50))


def test_stop_finishes_and_commits_the_work_under_way(settings: Settings, engine: Engine, publisher: EventProducer) -> None:
    publisher.publish([command(0)])
    handler = ToyHandler()
    handler.may_go_on.clear()
    with running_loop(settings, handler) as loop:
        eventually(lambda: handler.handled)
        loop.stop()
        threading.Timer(0.7, handler.may_go_on.set).start()
        eventually(lambda: loop.has_ended)
    assert toy_positions(engine) == [0]
    assert committed(settings) == 1
