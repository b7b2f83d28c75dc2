"""A consumer's loop, turn by turn, with a client and a worker in memory: what is committed, paused and sought, and when."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from sqlalchemy import Engine, create_engine

from consumers.loop import committing
from consumers.loop import runtime as module
from consumers.loop.client_errors import ExpelledError
from consumers.loop.commit_pace import CommitPace
from consumers.loop.coordinator import ASK_EVERY_S, REFUSED_AFTER_S, CoordinatorWatch
from consumers.loop.decoding import Entry
from consumers.loop.deliveries import Pending
from consumers.loop.group_state import GroupState
from consumers.loop.lanes import LanePolicy
from consumers.loop.membership import LOST_AFTER_S, Membership
from consumers.loop.postponing import Failure
from consumers.loop.processing import NextOffsets, Processed, Processor
from consumers.loop.runtime import ConsumerLoop
from consumers.loop.silence import SILENT_AFTER_S, Silence
from consumers.loop.topic_ids import BrokerTopicIds
from consumers.loop.worker import Worker
from orchestrator.batches.publishing import Delivery
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import TransientError
from orchestrator.storage.progress import Position
from schemas.envelope import Topic
from tests.support.log_lines import logged
from tests.support.publishing import SettledAtOnce
from tests.support.toy import ToyHandler, command
from tests.support.waiting import eventually

TOPIC = Topic.COMMANDS.on_cluster("test")


class Client:
    """Stands in for the library's consumer. `fetch` is what its next calls return."""

    def __init__(self) -> None:
        self.fetch: list[Message] = []
        self.waits: list[float] = []
        self.commits: list[dict[int, tuple[int, str | None]]] = []
        self.answers: list[Exception | KafkaError | None] = []
        """The results of the next commits."""
        self.paused: list[list[int]] = []
        self.resumed: list[list[int]] = []
        self.sought: list[tuple[int, int]] = []
        self.assigned: list[dict[int, int]] = []
        self.metadata: dict[int, str] = {}
        """The partitions' positions, beside the offsets that the group has committed."""
        self.is_closed = False
        self.replies_to_commits = True
        self.on_commit: Callable[[KafkaError | None, list[TopicPartition]], None]

    def poll(self, timeout: float) -> Message | None:
        self.waits.append(timeout)
        return self.fetch.pop(0) if self.fetch else None

    def consume(self, _count: int, timeout: float) -> list[Message]:
        assert timeout < 0.1
        fetch, self.fetch = self.fetch, []
        return fetch

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous, "the coordinator may be unreachable"
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            self.commits.append({each.partition: (each.offset, each.metadata) for each in offsets})
        if self.replies_to_commits:
            self.on_commit(answer, list(offsets))

    def committed(self, places: Sequence[TopicPartition], *, timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        known = self.metadata
        return [
            TopicPartition(each.topic, each.partition, 5, known[each.partition])
            if each.partition in known
            else TopicPartition(each.topic, each.partition, 5)
            for each in places
        ]

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused.append(sorted(each.partition for each in partitions))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.resumed.append(sorted(each.partition for each in partitions))

    def seek(self, place: TopicPartition) -> None:
        self.sought.append((place.partition, place.offset))

    def subscribe(self, topics: Sequence[str], *, on_assign: object, on_revoke: object, on_lost: object) -> None:
        assert topics == [TOPIC]
        assert all((on_assign, on_revoke, on_lost))

    def close(self) -> None:
        self.is_closed = True

    def incremental_assign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.append({each.partition: each.offset for each in partitions})


class Work:
    """Stands in for the worker's work. Everything succeeds, except what the test names."""

    def __init__(self) -> None:
        self.done: list[list[tuple[int, int]]] = []
        """Partition and offset of each record of each micro-batch."""
        self.positions: list[NextOffsets] = []
        self.progress: list[dict[int, int]] = []
        """The progress that was to be stored, with each micro-batch and without records."""
        self.chances: list[str | None] = []
        self.fails: Callable[[Entry], Exception | None] = lambda _: None
        self.is_acknowledged = True
        self.pending: list[Pending] = []
        self.looks = 0
        self.has_room = True

    def process(self, entries: Sequence[Entry], next_offsets: NextOffsets, *, last_chance: str | None) -> Processed:
        self.done.append([(entry.partition.partition, entry.offset) for entry in entries])
        self.chances.append(last_chance)
        self.note_progress(next_offsets)
        failed = [(entry, error) for entry in entries if (error := self.fails(entry)) is not None]
        failures = [Failure([entry for entry, _ in failed], failed[0][1])] if failed else []
        self.pending.append(Pending(0, [] if self.is_acknowledged else [Delivery([command(0)])]))
        return Processed(failures, self.pending[-1])

    def note_progress(self, next_offsets: NextOffsets) -> Processed:
        if next_offsets:
            self.positions.append(next_offsets)
            self.progress.append({partition: position.next_offset for (_, partition), position in next_offsets.items()})
        return Processed((), Pending(0, []))

    def look_for_acknowledgements(self) -> Processed:
        self.looks += 1
        return Processed((), Pending(0, []))

    def acknowledge(self, number: int) -> None:
        self.pending[number].deliveries.clear()


class Immediate:
    """A worker that runs each task at once, unless it is held."""

    def __init__(self) -> None:
        self.is_held = False

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.is_held:
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
        self.task, self.future = task, future
        return future


class Loop:
    """The loop, driven by a test."""

    def __init__(self, policy: LanePolicy, **changes: object) -> None:
        settings = Settings(topic_prefix="test").model_copy(update=changes)
        self.client, self.work, self.worker = Client(), Work(), Immediate()
        self.ids: Mapping[Topic, str] | Exception = {Topic.COMMANDS: "now"}
        self.loop = ConsumerLoop(settings, ToyHandler(), cast("Engine", None), cast("Any", SettledAtOnce()), policy=policy)
        self.loop._consumer = cast("Consumer", self.client)
        self.client.on_commit = self.loop._commits.on_reply
        self.loop._worker = cast("Worker[Processed]", self.worker)
        self.loop._processor = cast("Processor", self.work)
        self.loop._topic_ids = cast("BrokerTopicIds", self._topic_ids)
        self.loop._damage._next_batch = lambda *place: self.next_batch[place[-1]]
        self.next_batch: dict[int, int] = {}
        """For each damaged batch, by its first offset, where the next one begins."""
        self.now = 0.0
        self.loop._silence = Silence(clock=lambda: self.now)
        self.loop._membership = Membership(clock=lambda: self.now)
        self.loop._commits._pace = CommitPace(every_s=0)
        self.refused: KafkaException | None = None
        self.generation = 1
        self.loop._coordinator = CoordinatorWatch(self._describe, clock=lambda: self.now)
        self.loop._group._read_generation = lambda: self.generation  # type: ignore[method-assign]
        self.standing: list[tuple[Topic, int]] = []
        self.loop._group._read_standing = lambda: self.standing  # type: ignore[method-assign]

    def _describe(self, group: str) -> Future[Any]:
        self.asked_about = group
        future: Future[Any] = Future()
        if self.refused is None:
            future.set_result(None)
        else:
            future.set_exception(self.refused)
        return future

    def _topic_ids(self, topics: Sequence[Topic], *, timeout_s: float) -> Mapping[Topic, str]:
        assert timeout_s > 0
        if isinstance(self.ids, Exception):
            raise self.ids
        return {topic: self.ids[topic] for topic in topics if topic in self.ids}

    def assign(self, *partitions: int) -> None:
        self.loop._on_assign(cast("Consumer", self.client), [TopicPartition(TOPIC, each) for each in partitions])

    def revoke(self, *partitions: int) -> None:
        self.loop._on_revoke(cast("Consumer", self.client), [TopicPartition(TOPIC, each) for each in partitions])

    @contextlib.contextmanager
    def renewing(self) -> Iterator[Client]:
        """In the block, the loop replaces its client, which gives up its partitions."""
        left, joined = self.client, Client()

        def revoke() -> None:
            left.is_closed = True
            self.revoke(*(partition for _, partition in list(self.loop._assigned)))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(left, "close", revoke)
            patch.setattr(module, "Consumer", self._join(joined))
            yield joined
        assert left.is_closed
        assert self.loop._consumer is cast("Consumer", joined)
        self.client = joined

    def _join(self, joined: Client) -> Callable[..., Client]:
        def join(config: Mapping[str, Any], **_: object) -> Client:
            joined.on_commit = config["on_commit"]
            return joined

        return join

    def turn(self, *messages: Message) -> None:
        self.client.fetch = list(messages)
        self.loop._turn()
        self.turn_until(lambda: not self.client.fetch)

    def turn_until(self, look: Callable[[], object]) -> None:
        """Turns until `has_come` is true, while the loop's clock moves on."""

        def has_come() -> bool:
            if look():
                return True
            self.loop._turn()
            return False

        eventually(has_come)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    @property
    def commits(self) -> list[dict[int, int]]:
        return [{partition: offset for partition, (offset, _) in each.items()} for each in self.client.commits]


@pytest.fixture
def loop() -> Loop:
    made = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5, max_lane_records=4))
    made.assign(0, 1)
    return made


def record(partition: int, offset: int, *, bulk: bool = False) -> Message:
    event = command(offset, bulk=bulk)
    return Message(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        key=b"key",
        value=event.value,
        headers=list(event.headers),
        timestamp=(2, 1),
    )


def error(code: int, partition: int | None = None, offset: int = 0, *, fatal: bool = False) -> Message:
    why = KafkaError(code, "by a test", fatal=fatal)
    return Message(error=why) if partition is None else Message(topic=TOPIC, partition=partition, offset=offset, error=why)


def end(partition: int, offset: int) -> Message:
    return error(KafkaError._PARTITION_EOF, partition, offset)


def damage(partition: int, offset: int) -> Message:
    return error(KafkaError._BAD_MSG, partition, offset)


# --- Offsets ---------------------------------------------------------------------------------------------------------------------


def test_finished_work_is_stored_and_committed_with_the_topics_id(loop: Loop) -> None:
    loop.turn(record(0, 5), record(1, 7), record(0, 6))
    assert loop.work.done == [[(0, 5), (1, 7), (0, 6)]]
    assert loop.work.progress == [{0: 7, 1: 8}]
    assert loop.client.commits == [{0: (7, "now"), 1: (8, "now")}]
    loop.turns(3)
    assert len(loop.client.commits) == 1, "nothing may be committed if nothing has moved"
    loop.turn(record(1, 8))
    assert loop.commits[1:] == [{1: 9}]
    assert loop.work.progress[1:] == [{1: 9}]


def test_a_record_of_another_members_partition_is_left_to_it(loop: Loop) -> None:
    loop.turn(record(2, 5), record(0, 5))
    assert (loop.work.done, loop.commits) == ([[(0, 5)]], [{0: 6}])


def test_offsets_behind_the_last_record_count_when_the_end_is_reported(loop: Loop) -> None:
    loop.turn(record(0, 5), end(0, 9), end(1, 4))
    assert loop.work.progress == [{0: 9, 1: 4}]
    assert loop.commits == [{0: 9, 1: 4}]
    loop.turn(end(0, 12))
    assert loop.work.progress[1:] == [{0: 12}], "progress must be stored even without records"
    assert loop.commits[1:] == [{0: 12}]


def test_the_next_commit_makes_up_for_a_failed_one(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.client.answers = [KafkaException(KafkaError(KafkaError._TRANSPORT)), KafkaError(KafkaError.REBALANCE_IN_PROGRESS)]
    loop.turn(record(0, 5))
    loop.turn()
    assert loop.commits == []
    loop.turn()
    assert loop.commits == [{0: 6}]
    assert "REBALANCE_IN_PROGRESS" in "".join(str(line["error"]) for line in logged(caplog, Action.COMMIT_FAILED))


def test_under_load_offsets_are_committed_at_intervals_and_an_idle_loop_wakes_for_them(loop: Loop) -> None:
    loop.loop._commits._pace = CommitPace(every_s=0.25, clock=lambda: loop.now)
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}], "the first commit after a pause must not wait"
    loop.turn(record(0, 6))
    loop.now = 0.2
    loop.turn(record(0, 7))
    assert loop.commits == [{0: 6}]
    loop.client.waits.clear()
    loop.turn()
    assert loop.client.waits == [pytest.approx(0.05)]
    loop.now = 0.25
    loop.turn()
    assert loop.commits == [{0: 6}, {0: 8}]
    loop.client.waits.clear()
    loop.turn()
    assert loop.client.waits == [0.5], "a loop without anything to commit must wait as long as any idle loop"


def test_a_loop_that_stops_commits_what_waits_for_its_interval(loop: Loop) -> None:
    loop.loop._commits._pace = CommitPace(every_s=0.25, clock=lambda: loop.now)
    loop.turn(record(0, 5))
    loop.turn(record(0, 6))
    loop.loop._drain()
    assert loop.commits == [{0: 6}, {0: 7}]


def test_a_loop_that_stops_waits_for_the_micro_batch_that_is_under_way(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def finish(_: object, timeout_s: float) -> None:
        waits.append(timeout_s)
        loop.worker.future.set_result(loop.worker.task())

    loop.worker.is_held = True
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "wait", finish)
    loop.loop._drain()
    assert (loop.commits, len(waits)) == ([{0: 6}], 1)
    assert module.DRAIN_S / 2 < waits[0] <= module.DRAIN_S


def test_a_loop_that_stops_leaves_a_micro_batch_that_takes_too_long_to_the_next_member(
    loop: Loop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "DRAIN_S", 0.0)
    loop.loop._drain()
    assert loop.commits == []
    assert len(logged(caplog, Action.DRAIN_ABANDONED)) == 1


def test_a_loop_that_stops_leaves_a_micro_batch_that_fails_to_the_next_member(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    loop.worker.future.set_exception(TransientError())
    loop.loop._drain()
    assert loop.commits == []
    assert len(logged(caplog, Action.DRAIN_FAILED)) == 1


def test_a_loop_that_stops_waits_for_the_reply_to_its_last_commit(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = 0

    def poll(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            loop.client.on_commit(None, [])

    loop.loop._commits._pace = CommitPace(every_s=0.25, clock=lambda: loop.now)
    loop.turn(record(0, 5))
    loop.turn(record(0, 6))
    loop.client.replies_to_commits = False
    monkeypatch.setattr(loop.client, "poll", poll)
    loop.loop._drain()
    assert (loop.commits, polls) == ([{0: 6}, {0: 7}], 2)


def test_a_loop_that_stops_waits_for_no_coordinator_that_is_silent_for_too_long(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "DRAIN_S", 0.0)
    loop.client.waits.clear()
    loop.loop._drain()
    assert (loop.commits, loop.client.waits) == ([{0: 6}], [])


EXPELLED = [
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._FENCED,
    KafkaError.FENCED_INSTANCE_ID,
]


@pytest.mark.parametrize("code", EXPELLED)
@pytest.mark.parametrize("by", ["message", "exception", "answer"])
def test_a_member_that_the_group_has_expelled_ends(loop: Loop, code: int, by: str) -> None:
    if by == "exception":
        loop.client.answers = [KafkaException(KafkaError(code))]
    elif by == "answer":
        loop.client.answers = [KafkaError(code)]
    with pytest.raises(ExpelledError):
        loop.turn(*([error(code)] if by == "message" else [record(0, 5)]))


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH])
def test_row_73_a_member_that_was_cut_off_for_too_long_stays_because_its_client_joins_again(loop: Loop, code: int) -> None:
    loop.client.answers = [KafkaError(code)]
    loop.turn(record(0, 5))
    loop.revoke(0, 1)  # the client reports its partitions as lost
    loop.assign(0, 1)
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}]


def test_row_72_records_are_handled_while_the_coordinator_does_not_reply(loop: Loop) -> None:
    """It may be the one broker that is unreachable, and the others' partitions go on."""
    loop.client.replies_to_commits = False
    for offset in (5, 6, 7):
        loop.turn(record(0, offset))
    assert loop.work.done == [[(0, 5)], [(0, 6)], [(0, 7)]]
    assert loop.commits == [{0: 6}], "one request at a time"
    loop.client.replies_to_commits = True
    loop.client.on_commit(None, [])
    loop.turn()
    assert loop.commits == [{0: 6}, {0: 8}]


def test_a_reply_about_partitions_that_were_given_up_meanwhile_counts_for_nothing(loop: Loop) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5))
    loop.revoke(0, 1)
    loop.client.on_commit(None, [])
    loop.assign(0, 1)
    loop.client.replies_to_commits = True
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}, {0: 6}]


def test_a_fatal_error_ends_the_loop_and_another_does_not(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(error(KafkaError._ALL_BROKERS_DOWN), error(KafkaError.UNKNOWN_TOPIC_OR_PART, 0), record(0, 5))
    assert loop.work.done == [[(0, 5)]]
    assert len(logged(caplog, Action.POLL_ERROR)) == 2
    with pytest.raises(KafkaException):
        loop.turn(error(KafkaError.INVALID_PRODUCER_EPOCH, fatal=True))
    with pytest.raises(KafkaException):
        loop.turn(error(KafkaError._FATAL))  # as it comes when the coordinator does not know the group any more
    loop.client.answers = [KafkaException(KafkaError(KafkaError._TRANSPORT, "by a test", fatal=True))]
    with pytest.raises(ExpelledError):
        loop.turn(record(0, 6))


def test_row_77_client_whose_commits_get_no_reply_ends_the_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "REPLY_AFTER_S", 0.0)
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5), end(1, 0))
    # An unreachable coordinator is no reason to end: the loop reads on.
    loop.refused = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    loop.now = ASK_EVERY_S
    loop.turns(3)
    assert not loop.loop._coordinator.is_served
    loop.refused = None
    loop.now = 2 * ASK_EVERY_S
    with pytest.raises(ExpelledError, match="no reply to a commit"):
        loop.turns(3)


def test_row_79_member_that_does_not_read_a_standing_partition_is_not_ready(loop: Loop) -> None:
    def complaint() -> str | None:
        loop.now += ASK_EVERY_S
        loop.turns(4)
        return loop.loop.health.failing

    loop.turn(record(0, 5), end(1, 0))
    assert complaint() is None
    loop.standing = [(Topic.COMMANDS, 0), (Topic.COMMANDS, 2)]  # the loop's own partitions are 0 and 1
    assert eventually(complaint) == (
        "records wait on commands/2, which this process does not read, and nobody has handled any of them for 300 s;"
        " run: bulkreg groups list"
    )
    loop.standing = [(Topic.COMMANDS, 0)]
    eventually(lambda: complaint() is None)
    loop.standing = [(Topic.COMMANDS, 2)]
    eventually(complaint)
    # A worker that is busy does not look again. What it read is old by the question after the next.
    loop.worker.is_held = True
    loop.turn(record(0, 6))
    for _ in range(2):
        loop.now += ASK_EVERY_S
        loop.turns(4)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.loop._turn()
    assert loop.work.done[-1] == [(0, 6)]
    assert loop.loop.health.failing is None


def test_row_78_client_that_finds_its_coordinator_no_more_ends_the_loop(loop: Loop) -> None:
    def report(state: str) -> None:
        loop.loop._note_statistics(orjson.dumps({"brokers": {}, "cgrp": {"state": state}}).decode())

    def pass_by(state: str) -> None:
        loop.now += ASK_EVERY_S
        loop.turns(3)
        report(state)
        loop.turn()

    loop.turn(record(0, 5), end(1, 0))
    # A coordinator that serves nobody is no reason to end.
    loop.refused = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    for _ in range(5):
        pass_by("query-coord")
    loop.refused = None
    pass_by("query-coord")
    # It is found in time.
    pass_by("up")
    pass_by("query-coord")
    loop.now += LOST_AFTER_S - 1
    loop.turn()
    loop.now += 1
    with pytest.raises(ExpelledError, match="no coordinator for 60 s"):
        loop.turn()


# --- Acknowledgements --------------------------------------------------------------------------------------------------------------


def test_offsets_wait_for_the_events_of_their_own_micro_batch(loop: Loop) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6))
    loop.turn(record(1, 6))
    assert loop.work.done == [[(0, 5), (1, 5)], [(0, 6)], [(1, 6)]]
    assert loop.work.progress[-1] == {1: 7}, "the progress of handled records must be stored at once"
    assert loop.commits == []
    loop.work.acknowledge(1)
    loop.turns(2)
    assert loop.commits == []
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.commits == [{0: 7, 1: 6}]
    loop.work.acknowledge(2)
    loop.turns(2)
    assert loop.commits[1:] == [{1: 7}]


def test_a_loop_that_stops_looks_for_acknowledgements_until_they_have_come(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    more = 3

    def look() -> Processed:
        nonlocal more
        more -= 1
        if not more:
            loop.work.acknowledge(0)
        return Processed((), Pending(0, []))

    monkeypatch.setattr(loop.work, "look_for_acknowledgements", look)
    loop.loop._drain()
    assert (loop.commits, more) == ([{0: 6}], 0)


def test_nothing_more_is_begun_while_too_much_is_outstanding(loop: Loop) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    loop.work.has_room = False
    looks = loop.work.looks
    loop.turn(record(0, 6))
    assert loop.work.done == [[(0, 5)]]
    assert loop.work.looks > looks
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.work.done == [[(0, 5)], [(0, 6)]], "there must be room when nothing is outstanding"


@pytest.mark.parametrize(("most", "is_begun"), [(3, False), (4, True)])
def test_the_number_of_records_that_wait_for_their_offsets_is_limited(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, most: int, is_begun: bool
) -> None:
    monkeypatch.setattr(module, "MAX_UNDONE_RECORDS", most)
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6))
    assert (len(loop.work.done) == 2) is is_begun


@pytest.mark.parametrize(("age_s", "is_late"), [(60.0, False), (60.5, True)])
def test_a_long_missing_acknowledgement_is_reported(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, age_s: float, is_late: bool
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    now[0] += 30
    loop.turn(record(0, 6))
    now[0] += age_s - 30
    loop.turns(2)
    assert bool(loop.loop.health.failing) is is_late
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.loop.health.failing is None, "the other micro-batch is not that old"


# --- Records that fail -----------------------------------------------------------------------------------------------------------------


def test_a_failed_record_holds_back_only_its_own_partition(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if (entry.partition.partition, entry.offset) == (0, 5) else None
    loop.turn(record(0, 5), record(0, 6), record(1, 5))
    loop.turn(record(1, 6))
    loop.turns(2)
    assert loop.commits[-1] == {1: 7}
    assert {partition for commit in loop.commits for partition in commit} == {1}
    loop.work.fails = lambda _: None
    loop.work.done.clear()
    loop.turn_until(lambda: loop.work.done)
    assert loop.commits[-1] == {0: 7}
    assert loop.work.progress[-1] == {0: 7}, "its progress must not be stored before it succeeds"


def test_the_last_chance_is_described_by_the_failure() -> None:
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5), set_aside_after_ms=0)
    loop.assign(0)
    loop.work.fails = lambda _: TransientError("by a test")
    loop.turn(record(0, 5))
    loop.turns(2)
    assert loop.work.chances[:2] == [None, "TransientError"]


def test_a_record_has_its_last_chance_when_more_others_have_succeeded_than_wait() -> None:
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5), set_aside_after_ms=0)
    loop.assign(0, 1, 2)
    loop.work.fails = lambda entry: None if entry.partition.partition == 2 else TransientError("by a test")
    loop.turn(record(0, 5), record(1, 5))
    loop.turn_until(lambda: {(0, 5), (1, 5)} <= {place for batch in loop.work.done if len(batch) == 1 for place in batch})
    assert set(loop.work.chances) == {None}, "it may not be the record's fault while nothing succeeds"
    loop.turn(*(record(2, offset) for offset in range(5)))
    loop.turn_until(lambda: "TransientError" in loop.work.chances)


def test_in_an_outage_nothing_new_is_begun_when_too_much_waits_and_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(LanePolicy(max_batch_records=2, bulk_share=0.5), max_batch_records=1)
    loop.assign(0)
    loop.loop.health.retrying = None
    loop.work.fails = lambda _: TransientError("somebody's notes")
    with caplog.at_level(logging.ERROR):
        for offset in range(6):
            loop.turn(record(0, offset))
    assert {place for batch in loop.work.done for place in batch} == {(0, 0), (0, 1)}
    assert loop.loop.health.retrying == "TransientError"
    assert "somebody" not in caplog.text
    [line] = logged(caplog, Action.RECORDS_POSTPONED)  # The line is logged only now and then.
    assert (line["outage"], line["topic"], line["partition"]) == (True, "commands", 0)


# --- Partitions that come and go ---------------------------------------------------------------------------------------------------------


def test_nothing_of_a_revoked_partition_is_begun_or_committed(loop: Loop) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6), record(1, 6))
    loop.revoke(0)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turns(3)
    assert loop.work.done == [[(0, 5), (1, 5)], [(1, 6)]]
    assert {partition for commit in loop.commits for partition in commit} == {1}
    assert loop.commits[-1] == {1: 7}


def test_records_of_a_partition_that_was_revoked_during_their_try_are_not_retried(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    loop.worker.is_held = True
    loop.turn(record(0, 5), record(1, 5))
    loop.revoke(0)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.loop._turn()
    assert metrics.POSTPONED_RECORDS.labels("toy")._value.get() == 0, "records of another member must not be counted"
    loop.turns(3)
    assert loop.work.done == [[(0, 5), (1, 5)]]


def test_postponed_records_of_a_revoked_partition_are_not_retried(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    loop.turn(record(0, 5))
    loop.turns(3)
    loop.work.done.clear()
    loop.revoke(0)
    loop.turn(record(1, 5))  # This record succeeds, which ends the outage, so everything that waits is due.
    loop.turns(3)
    assert loop.work.done == [[(1, 5)]]


def test_a_partition_that_comes_back_is_read_and_stored_again(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop.turn(record(0, 5))
    loop.revoke(0)
    loop.assign(0)
    for action in (Action.PARTITIONS_REVOKED, Action.PARTITIONS_ASSIGNED):
        assert [(line["role"], line["partitions"]) for line in logged(caplog, action)] == [("toy", ["commands/0"])]
    loop.turn(record(0, 5))
    assert loop.work.progress == [{0: 6}, {0: 6}]
    assert loop.commits == [{0: 6}, {0: 6}]


@pytest.mark.parametrize(
    ("ids", "outdated"),
    [
        ({Topic.COMMANDS: "now"}, True),
        ({Topic.COMMANDS: "then"}, False),
        ({}, False),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), False),
    ],
    ids=["made anew", "the same", "without ids", "nobody answers"],
)
def test_a_recreated_topic_is_read_from_its_beginning(ids: Any, outdated: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5))
    loop.ids = ids
    loop.client.metadata = {0: "then", 1: "now", 2: ""}
    loop.assign(*([0, 2, 3] if outdated else [0, 2]))
    assert loop.client.assigned == ([{0: OFFSET_BEGINNING, 2: -1001, 3: -1001}] if outdated else [])
    assert [line["partitions"] for line in logged(caplog, Action.TOPIC_REPLACED)] == ([["commands/0"]] if outdated else [])
    assert len(logged(caplog, Action.TOPIC_IDS_UNKNOWN)) == isinstance(ids, Exception)
    loop.turn(record(0, 1))
    expected = ids[Topic.COMMANDS] if isinstance(ids, dict) and ids else ""
    assert loop.client.commits == [{0: (2, expected)}]


# --- Clients that can't read their partitions --------------------------------------------------------------------------------------------


def test_a_client_that_knows_an_earlier_topic_of_that_name_is_replaced(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """It may never read the new topic, and nothing that it reads counts."""
    loop.revoke(0, 1)
    loop.ids = {Topic.COMMANDS: "next"}
    loop.assign(0, 1)
    with loop.renewing():
        loop.turn(record(0, 0))
    assert loop.work.done == []
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("topic_replaced", ["commands/0", "commands/1"])
    loop.assign(0, 1)
    loop.turn(record(0, 0))
    assert loop.work.done == [[(0, 0)]]
    assert loop.client.commits == [{0: (1, "next")}]


@pytest.mark.parametrize(
    "ids", [{Topic.COMMANDS: "now"}, {}, {Topic.COMMANDS: ""}, KafkaException(KafkaError(KafkaError._TRANSPORT))]
)
def test_a_client_is_kept_while_no_topic_is_known_to_be_replaced(loop: Loop, ids: Any) -> None:
    loop.revoke(0)
    loop.ids = ids
    loop.assign(0)
    loop.turn(record(0, 0))
    assert loop.work.done == [[(0, 0)]]
    assert not loop.client.is_closed


def test_a_client_that_returns_nothing_of_a_partition_is_replaced(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(end(0, 0), error(KafkaError.UNKNOWN_LEADER_EPOCH, 1))
    loop.now = SILENT_AFTER_S - 0.1
    loop.turn()
    assert not loop.client.is_closed
    loop.now = SILENT_AFTER_S
    with loop.renewing():
        loop.turn()
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("silent", ["commands/1"])
    loop.assign(0, 1)
    loop.turn(end(0, 0))
    assert "commands/1" in str(loop.loop.health.failing)
    loop.turn(record(1, 0))
    assert loop.loop.health.failing is None
    loop.now = 100 * SILENT_AFTER_S
    loop.turn()
    assert not loop.client.is_closed


@pytest.mark.parametrize("message", [record(1, 0), end(1, 0), damage(1, 0)], ids=["a record", "the end", "damage"])
def test_anything_that_is_read_of_a_partition_ends_its_silence(loop: Loop, message: Message) -> None:
    loop.turn(end(0, 0), message)
    loop.now = 100 * SILENT_AFTER_S
    loop.turn()
    assert not loop.client.is_closed


def test_a_renewed_group_is_joined_with_a_new_client(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop.turn(end(0, 0), end(1, 0))
    loop.generation = 2
    loop.now = ASK_EVERY_S
    loop.turns(2)
    assert not loop.client.is_closed
    with loop.renewing():
        loop.turn()
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("group_renewed", ["commands/0", "commands/1"])
    loop.now = 2 * ASK_EVERY_S
    loop.turns(2)
    assert loop.asked_about == "test.toy.2"


def test_the_group_is_kept_while_the_database_does_not_say_whether_it_was_renewed(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    group = loop.loop._group
    group._engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
    group._read_generation = partial(GroupState._read_generation, group)  # type: ignore[method-assign]
    loop.turn(end(0, 0), end(1, 0))
    loop.now = ASK_EVERY_S
    loop.turns(2)
    assert {line["role"] for line in logged(caplog, Action.GROUP_UNKNOWN)} == {"toy"}
    assert not loop.client.is_closed


def test_a_group_that_is_refused_is_told_once_and_makes_the_role_unready(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(end(0, 0), end(1, 0))
    loop.loop.health.broker_contact = True
    loop.refused = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
    for _ in range(3):
        loop.now += REFUSED_AFTER_S
        loop.turns(2)
    assert len(logged(caplog, Action.GROUP_REFUSED)) == 1
    assert "does not serve" in str(loop.loop.health.failing)
    loop.refused = None
    loop.now += REFUSED_AFTER_S
    loop.turns(2)
    assert loop.loop.health.failing is None


def test_without_a_broker_a_silent_client_is_kept(loop: Loop) -> None:
    loop.now = 100 * SILENT_AFTER_S
    loop.loop.health.broker_contact = False
    loop.turn()
    assert not loop.client.is_closed
    loop.loop.health.broker_contact = True
    loop.now += SILENT_AFTER_S - 0.1
    loop.turn()
    assert not loop.client.is_closed


# --- Lanes that are full -----------------------------------------------------------------------------------------------------------------


def test_partitions_that_feed_a_full_lane_are_paused_until_half_of_it_is_done() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5, max_lane_records=4))
    loop.assign(0, 1, 2)
    loop.worker.is_held = True
    loop.turn(*(record(0, offset, bulk=True) for offset in range(5)), record(1, 0, bulk=True), record(2, 0))
    assert loop.client.paused == [[0, 1]]
    loop.turn(record(0, 6, bulk=True))
    assert loop.client.paused == [[0, 1]], "a paused partition must not be paused again"
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn_until(lambda: loop.client.resumed)
    assert loop.client.resumed == [[0, 1]]
    waiting = 8 - sum(map(len, loop.work.done))
    assert waiting <= 3, "half of the lane must be done before partitions are resumed"


def test_a_partition_that_is_revoked_while_paused_is_resumed() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5, max_lane_records=2))
    loop.assign(0, 1)
    loop.worker.is_held = True
    loop.turn(*(record(partition, offset) for offset in range(2) for partition in (0, 1)))
    loop.revoke(0)
    assert (loop.client.paused, loop.client.resumed) == ([[0, 1]], [[0]])


# --- Batches that can't be read ----------------------------------------------------------------------------------------------------------


def test_a_damaged_batch_is_tried_again_and_then_skipped(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(record(0, 5))
    loop.next_batch = {6: 9, 10: 11}
    for offset in range(8):
        # The client loses its place, and what it returns of the partition after the report is not the next record.
        loop.turn(record(1, offset), damage(0, 6), record(0, 3), damage(0, 6), end(0, 12))
    assert loop.client.sought == [(0, 6)] * 5 + [(0, 9)] * 3
    of_it = [place for batch in loop.work.done for place in batch if place[0] == 0]
    assert of_it == [(0, 5), (0, 6)], "the batch must have one dead letter"
    [line] = logged(caplog, Action.RECORDS_LOST)
    assert (line["topic"], line["partition"], line["offset"], line["next_offset"]) == ("commands", 0, 6, 9)
    # The client begins again at the beginning, and reports the same batch again.
    loop.turn(record(0, 9))
    loop.turn(record(0, 0), damage(0, 6))
    assert loop.client.sought[-1] == (0, 10)
    assert loop.commits[-1] == {0: 10}
    loop.turn(damage(0, 10))
    assert loop.client.sought[-1] == (0, 10), "another batch must have its own tries"


def test_the_dead_letter_of_a_damaged_batch_does_not_wait_for_large_batches() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5))
    loop.assign(0, 1)
    loop.next_batch = {6: 9}
    loop.worker.is_held = True
    loop.turn(*(record(1, offset, bulk=True) for offset in range(10)))
    for _ in range(6):
        loop.turn(damage(0, 6))
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn_until(lambda: [(0, 6)] in loop.work.done)
    assert len(loop.work.done) <= 4


def test_a_batch_that_can_be_read_after_all_is_not_lost(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(damage(0, 6))
    loop.turn(record(0, 6), record(0, 7))
    assert loop.work.done == [[(0, 6), (0, 7)]]
    assert logged(caplog, Action.RECORDS_LOST) == []


def test_a_damaged_batch_is_read_from_where_the_loop_is(loop: Loop) -> None:
    """Kafka returns the whole batch for each of its offsets."""
    loop.turn(record(0, 5), record(0, 6))
    loop.turn(damage(0, 5))
    assert loop.client.sought == [(0, 7)]


# --- Waiting, and health -----------------------------------------------------------------------------------------------------------------


def test_an_idle_loop_waits_and_a_busy_one_does_not(loop: Loop) -> None:
    loop.turn()
    assert len(loop.client.waits) == 1
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    waits = len(loop.client.waits)
    loop.turn()
    assert len(loop.client.waits) == waits, "a busy loop must not wait"


def test_an_idle_loop_wakes_for_a_retry(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test")
    loop.turn(record(0, 5))
    loop.turns(2)
    loop.client.waits.clear()
    loop.turn()
    assert all(0 <= wait <= 0.5 for wait in loop.client.waits)


def test_the_clients_reports_say_whether_brokers_respond(loop: Loop) -> None:
    def report(state: str) -> None:
        broker = {"nodeid": 1, "state": state, "rxidle": 0, "waitresp_cnt": 0, "toppars": {}}
        loop.loop._note_statistics(orjson.dumps({"brokers": {"a": broker}, "cgrp": {"state": "up"}}).decode())

    report("UP")
    assert loop.loop.health.broker_contact
    report("CONNECT")
    assert not loop.loop.health.broker_contact


def test_assigned_partitions_show_that_a_broker_is_in_contact(loop: Loop) -> None:
    assert loop.loop.health.broker_contact


def test_positions_are_stored_with_the_topics_id(loop: Loop) -> None:
    loop.turn(record(0, 5))
    assert loop.work.positions == [{(Topic.COMMANDS, 0): Position(6, "now")}]
