"""A consumer's loop that a test turns by hand, with a client and a worker in memory."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, cast

import orjson
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from sqlalchemy import Engine, create_engine

from consumers.loop import runtime as module
from consumers.loop.commit_pace import CommitPace
from consumers.loop.coordinator import CoordinatorWatch, Question
from consumers.loop.damaged_partitions import DamagedPartitions
from consumers.loop.decoding import Entry
from consumers.loop.deliveries import Pending
from consumers.loop.group_state import GroupState
from consumers.loop.handler import Handler
from consumers.loop.lanes import LanePolicy
from consumers.loop.membership import Membership
from consumers.loop.postponing import Failure
from consumers.loop.processing import NextOffsets, Processed, Processor
from consumers.loop.runtime import ConsumerLoop
from consumers.loop.silence import Silence
from consumers.loop.topic_ids import BrokerTopicIds
from consumers.loop.worker import Worker
from orchestrator.batches.publishing import Delivery, Publisher
from orchestrator.process.failpoints import Failpoint
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.support.publishing import SettledAtOnce
from tests.support.toy import ToyHandler, command
from tests.support.waiting import eventually

TOPIC = Topic.COMMANDS.on_cluster("test")


class TurnedLoop(ConsumerLoop):
    """A loop that a test turns by hand. The test also gives it what is outside: the client and the threads, which `run` would create, the
    clock, and who replies to its questions. This is the only place that knows the loop's parts by their names."""

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        engine: Engine,
        publisher: Publisher,
        *,
        client: object,
        worker: object,
        topic_ids: object,
        question: Question,
        clock: Callable[[], float],
        pace: CommitPace,
        policy: LanePolicy | None = None,
        work: object | None = None,
        passed: Callable[[Failpoint], None] | None = None,
        next_batch: Callable[[str, int, int], int | None] | None = None,
        group: GroupState | None = None,
    ) -> None:
        super().__init__(settings, handler, engine, publisher, policy=policy, pace=pace)
        self._consumer = cast("Consumer", client)
        self._worker = cast("Worker[Processed]", worker)
        self._topic_ids = cast("BrokerTopicIds", topic_ids)
        self._coordinator = CoordinatorWatch(question, clock=clock)
        self._silence = Silence(clock=clock)
        self._membership = Membership(clock=clock)
        if work is not None:
            self._processor = cast("Processor", work)
        if passed is not None:
            self._passed = passed
            self._processor = Processor(handler, engine, publisher, passed, self._stopping, None)
        if next_batch is not None:
            self._damage = DamagedPartitions(handler.name, next_batch)
        if group is not None:
            self.ask_about_group(group)

    def ask_about_group(self, group: GroupState) -> None:
        """From now on, this is what the loop asks about its group."""
        self._group = group

    @property
    def client(self) -> object:
        return self._consumer

    def on_assign(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        """What the library calls when the group gives the client partitions."""
        self._on_assign(client, partitions)

    def on_revoke(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        """What the library calls when the group takes partitions away."""
        self._on_revoke(client, partitions)

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """What the library calls with the reply to a commit."""
        self._commits.on_reply(error, partitions)

    def note_statistics(self, statistics: str) -> None:
        """What the library calls with its statistics, now and then."""
        self._note_statistics(statistics)

    def turn(self) -> None:
        self._turn()

    def receive(self) -> None:
        """The first step of a turn: takes the records that are there."""
        self._receive(0.0)

    def drain(self) -> None:
        """What `run` does when the loop is stopped."""
        self._drain()

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was received waits or is under way."""
        return not self._lanes and not self._postponed and self._in_flight is None

    @property
    def is_served(self) -> bool:
        """Whether the coordinator serves the group, as far as the loop knows."""
        return self._coordinator.is_served

    @property
    def next_offsets(self) -> dict[tuple[str, int], int | None]:
        """For each assigned partition, by its topic's name on the cluster, the offset up to which it is done."""
        return {place: partition.next_offset for place, partition in self._assigned.items()}


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


class _Group(GroupState):
    """The group of which the database says what the test says."""

    def __init__(self, outside: "Loop", settings: Settings) -> None:
        super().__init__(cast("Engine", None), ToyHandler.name, ToyHandler.topics, trouble_after_ms=settings.trouble_after_ms)
        self._outside = outside

    def _read_generation(self) -> int:
        return self._outside.generation

    def _read_standing(self) -> Sequence[tuple[Topic, int]]:
        return self._outside.standing


class Loop:
    """The loop, driven by a test, and all that is outside it."""

    def __init__(self, policy: LanePolicy, *, commit_every_s: float = 0, **changes: object) -> None:
        self.settings = Settings(topic_prefix="test").model_copy(update=changes)
        self.client, self.work, self.worker = Client(), Work(), Immediate()
        self.ids: Mapping[Topic, str] | Exception = {Topic.COMMANDS: "now"}
        self.next_batch: dict[int, int] = {}
        """For each damaged batch, by its first offset, where the next one begins."""
        self.now = 0.0
        self.refused: KafkaException | None = None
        self.generation = 1
        self.standing: list[tuple[Topic, int]] = []
        self.loop = TurnedLoop(
            self.settings,
            ToyHandler(),
            cast("Engine", None),
            cast("Any", SettledAtOnce()),
            client=self.client,
            worker=self.worker,
            topic_ids=self._topic_ids,
            question=self._describe,
            clock=lambda: self.now,
            pace=CommitPace(every_s=commit_every_s, clock=lambda: self.now),
            policy=policy,
            work=self.work,
            next_batch=lambda *place: self.next_batch[place[-1]],
            group=_Group(self, self.settings),
        )
        self.client.on_commit = self.loop.on_commit

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
        self.loop.on_assign(cast("Consumer", self.client), [TopicPartition(TOPIC, each) for each in partitions])

    def revoke(self, *partitions: int) -> None:
        self.loop.on_revoke(cast("Consumer", self.client), [TopicPartition(TOPIC, each) for each in partitions])

    def report(self, *, group: str = "up", brokers: Mapping[str, object] | None = None) -> None:
        """The client's statistics: the state of its membership, and its connections."""
        self.loop.note_statistics(orjson.dumps({"brokers": brokers or {}, "cgrp": {"state": group}}).decode())

    def lose_database(self) -> None:
        """From now on, no server is where the database was."""
        nowhere = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
        self.loop.ask_about_group(
            GroupState(nowhere, ToyHandler.name, ToyHandler.topics, trouble_after_ms=self.settings.trouble_after_ms)
        )

    @contextlib.contextmanager
    def renewing(self) -> Iterator[Client]:
        """In the block, the loop replaces its client, which gives up its partitions."""
        left, joined = self.client, Client()

        def revoke() -> None:
            left.is_closed = True
            self.revoke(*(partition for _, partition in self.loop.next_offsets))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(left, "close", revoke)
            patch.setattr(module, "Consumer", self._join(joined))
            yield joined
        assert left.is_closed
        assert self.loop.client is joined
        self.client = joined

    def _join(self, joined: Client) -> Callable[..., Client]:
        def join(config: Mapping[str, Any], **_: object) -> Client:
            joined.on_commit = config["on_commit"]
            return joined

        return join

    def turn(self, *messages: Message) -> None:
        self.client.fetch = list(messages)
        self.loop.turn()
        self.turn_until(lambda: not self.client.fetch)

    def turn_until(self, look: Callable[[], object]) -> None:
        """Turns until `has_come` is true, while the loop's clock moves on."""

        def has_come() -> bool:
            if look():
                return True
            self.loop.turn()
            return False

        eventually(has_come)

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.turn()

    def stop(self) -> None:
        self.loop.drain()

    @property
    def commits(self) -> list[dict[int, int]]:
        return [{partition: offset for partition, (offset, _) in each.items()} for each in self.client.commits]


def loop_of_two_partitions(*, commit_every_s: float = 0) -> Loop:
    """It was assigned the partitions 0 and 1. Four records fill a lane."""
    made = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5, max_lane_records=4), commit_every_s=commit_every_s)
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
