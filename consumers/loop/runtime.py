"""The loop that every consumer runs (docs/architecture.md, The loop; docs/decisions/0003-the-loop.md).

1. poll
2. decode; what can't be decoded goes to the dead-letter topic in step 4
3. handle: one database transaction with the effect and the progress. A role's preparation, if it has one, runs before it
4. produce the events that the handler returned, and wait for their acknowledgements
5. commit the contiguous offsets: after a pause immediately, under load at intervals. The loop does not wait for the group's coordinator,
   which may be the one broker that is unreachable

One thread owns the Kafka consumer and does 1, 2 and 5. A second one, the worker, does 3 and 4 for one micro-batch at a time. So polling
continues while a database or a broker is unavailable, and the member keeps its partitions. When acknowledgements are late (a partition
without a leader), the next micro-batches are handled meanwhile, within a limit. The offsets of each are committed when its own events are
acknowledged. A crash between any two steps leads to redelivery. A redelivered record changes nothing and produces the same events.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import cast

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from sqlalchemy import Engine

from consumers.loop.batch_probe import BatchProbe
from consumers.loop.client_errors import ExpelledError, is_expelled, is_fatal
from consumers.loop.closing import close_within
from consumers.loop.commit_pace import CommitPace
from consumers.loop.committing import OffsetCommits
from consumers.loop.config import consumer_config, gathering_config, group_id
from consumers.loop.contact import BrokerContact
from consumers.loop.coordinator import BrokerQuestion, CoordinatorWatch
from consumers.loop.damage import DAMAGE
from consumers.loop.damaged_partitions import DamagedPartitions
from consumers.loop.decoding import Entry, decode
from consumers.loop.failure_reports import FailureReports
from consumers.loop.feeders import PausedFeeders
from consumers.loop.group_state import GroupState
from consumers.loop.handler import Handler, Preparation
from consumers.loop.incarnations import KnownIncarnations
from consumers.loop.lanes import LanePolicy, Lanes
from consumers.loop.membership import LOST_AFTER_S, Membership
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.polling import poll
from consumers.loop.postponing import PostponedUnits, Unit
from consumers.loop.processing import NOTHING, NextOffsets, Processed, Processor
from consumers.loop.raw_record import take_apart
from consumers.loop.silence import Silence
from consumers.loop.topic_ids import BrokerTopicIds
from consumers.loop.unacknowledged import Unacknowledged
from consumers.loop.worker import Worker
from orchestrator.batches.publishing import Publisher
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import Failpoint, failpoints
from orchestrator.process.health import LoopHealth
from orchestrator.process.kafka_settings import kafka_logger
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import is_environments
from orchestrator.storage.consumer_groups import FIRST_GENERATION
from orchestrator.storage.progress import UNKNOWN_ID, Position
from schemas.envelope import Topic

# An idle loop blocks in poll, which returns as soon as a record arrives. This only bounds how late it notices `stop`.
IDLE_POLL_S = 0.5
# While the worker is busy the loop polls at this interval. It grows with the time that the worker takes (an outage).
BUSY_POLL_MIN_S = 0.005
BUSY_POLL_MAX_S = 0.25
# When a consumer is assigned partitions, how long it waits for the broker's topic ids before it reads from the committed offsets.
ASSIGNMENT_S = 10.0
# How many records may wait for their offsets to be committed: some megabytes.
MAX_UNDONE_RECORDS = 50_000
# How long `stop` waits for the micro-batch that is under way. The supervisor waits longer.
DRAIN_S = 10.0
# Leaving the group takes some ms. Without a broker it has no use.
CLOSE_S = 10.0
# A client that is replaced may wait for a silent coordinator for the session's timeout, 45 s.
REPLACED_CLOSE_S = 60.0

# Errors that show that the client reads the partition.
_HEARD = frozenset({KafkaError._PARTITION_EOF, *DAMAGE})


@dataclass(frozen=True, slots=True)
class _InFlight:
    """What the worker does: a micro-batch or, without entries, writing progress or waiting for acknowledgements."""

    entries: Sequence[Entry]
    offsets: Mapping[PartitionOffsets, Collection[int]]
    """The offsets of the entries."""
    next_offsets: NextOffsets
    """The progress that is stored when all entries are handled."""
    unit: Unit | None
    """The postponed unit that the entries are. None: they are tried for the first time."""
    future: Future[Processed]
    since: float


class ConsumerLoop:
    """Runs one handler. `run` blocks its thread until `stop`, which any thread or signal handler may call."""

    def __init__(
        self,
        settings: Settings,
        handler: Handler,
        engine: Engine,
        publisher: Publisher,
        *,
        policy: LanePolicy | None = None,
        pace: CommitPace | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        """Only one of the loop's threads uses `publisher` and `preparation`, and only one at a time `engine`. Raises UnsafeKafkaError."""
        self.health = LoopHealth()
        self._handler = handler
        self._topics = {topic.on_cluster(settings.topic_prefix): topic for topic in handler.topics}
        self._settings = settings
        self._generation = FIRST_GENERATION
        """The generation of the group that the loop is in."""
        self._coordinator = CoordinatorWatch(BrokerQuestion(settings, handler.name, next(iter(self._topics))))
        self._tells_of_refusal = True
        self._group = GroupState(engine, handler.name, handler.topics, trouble_after_ms=settings.trouble_after_ms)
        self._client_logger = kafka_logger(settings, handler.name)
        self._topic_ids = BrokerTopicIds(settings, handler.name)
        self._max_polled = settings.max_batch_records
        self._stopping = threading.Event()
        self._passed = failpoints(settings.failpoints)
        self._processor = Processor(handler, engine, publisher, self._passed, self._stopping, preparation)
        self._lanes = Lanes(policy or LanePolicy.of(settings))
        self._postponed = PostponedUnits(
            set_aside_after_s=settings.set_aside_after_ms / 1000, most_records=2 * settings.max_batch_records
        )
        self._is_turn_of_postponed = False
        self._failures = FailureReports(handler.name)
        self._assigned: dict[tuple[str, int], PartitionOffsets] = {}
        self._commits = OffsetCommits(
            handler.name,
            self._assigned,
            pace=pace or CommitPace(),
            is_served=lambda: self._coordinator.is_served,
            on_committed=lambda: self._passed(Failpoint.CONSUMER_AFTER_OFFSET_COMMIT),
        )
        self._noted: dict[tuple[Topic, int], Position] = {}
        """The progress that is stored, for the assigned partitions."""
        self._known = KnownIncarnations(self._topics)
        self._replaced: list[str] = []
        """Assigned partitions whose topic had another id before, with the same client."""
        self._silence = Silence()
        self._contact = BrokerContact()
        self._membership = Membership()
        self._feeders = PausedFeeders(self._lanes)
        self._damage = DamagedPartitions(handler.name, BatchProbe(settings, handler.name).next_batch)
        self._is_stuck = False
        """Whether the client is being closed, which may take for ever."""
        self._in_flight: _InFlight | None = None
        self._unacknowledged = Unacknowledged()

    def stop(self) -> None:
        """Asks the loop to finish the micro-batch that is under way, to commit, and to leave the group."""
        self._stopping.set()

    def run(self) -> None:
        """Raises ExpelledError, KafkaException for a fatal error of the client, and any error of a bug outside the handler."""
        self._group.look_for_generation()
        self._join()
        self._worker: Worker[Processed] = Worker(f"{self._handler.name}-worker")
        try:
            while not self._stopping.is_set():
                self._turn()
            self._drain()
        finally:
            self._worker.close()
            if not self._is_stuck:
                close_within(self._consumer, CLOSE_S)

    def _join(self) -> None:
        self._generation = self._group.generation
        self._group.joined()
        # Created here and not in the constructor, because librdkafka's threads begin with the consumer.
        config = consumer_config(self._settings, self._handler.name, self._generation) | gathering_config(self._handler.name)
        self._commits.joined()
        self._known.joined()
        self._consumer = Consumer(
            {**config, "stats_cb": self._note_statistics, "on_commit": self._commits.on_reply}, logger=self._client_logger
        )
        self._consumer.subscribe(list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        self._membership.joins()
        self._coordinator.joined(group_id(self._settings.topic_prefix, self._handler.name, self._generation))

    def _watch_coordinator(self) -> None:
        """Logs a coordinator that does not serve the group. After each question, the worker looks whether an operator has renewed the group
        (decision 43), and whether partitions stand."""
        if not self._coordinator.look(has_contact=self.health.broker_contact):
            return
        self._group.ask()
        refusal = self._coordinator.refusal
        if refusal is not None and self._tells_of_refusal:
            log_action(Action.GROUP_REFUSED, role=self._handler.name, generation=self._generation, error=refusal)
        self._tells_of_refusal = refusal is None

    def _renew_client(self) -> None:
        """Leaves the group and joins it with a new client, if the present client cannot read its partitions or the group was renewed.

        A client keeps the leader epoch of each partition by the topic's name, and accepts no lower epoch. A topic that is created again begins
        at epoch 0. So a client that knew the old topic at a higher epoch never reads the new one (decision 24). Each restart of a broker
        raises the epochs. The micro-batch under way goes on, as after a revocation.
        """
        if self._replaced:
            reason, partitions = "topic_replaced", self._replaced
        elif self._silence.is_too_long:
            reason, partitions = "silent", [partition.name for partition in self._silence.partitions]
            self._silence.renewed()
        elif self._group.generation != self._generation:
            reason, partitions = "group_renewed", [partition.name for partition in self._assigned.values()]
        else:
            return
        log_action(Action.CLIENT_RENEWED, role=self._handler.name, reason=reason, partitions=partitions)
        self._is_stuck = not close_within(self._consumer, REPLACED_CLOSE_S)
        if self._is_stuck:
            raise ExpelledError(f"the client, which was to be replaced, did not close within {REPLACED_CLOSE_S:g} s")
        self._replaced = []
        self._join()

    def _turn(self) -> None:
        is_idle = self._in_flight is None and (not self._lanes or self._postponed.is_full)
        self._watch_coordinator()
        self._receive(self._idle_s() if is_idle else 0.0)
        if self._membership.is_lost:
            raise ExpelledError(
                f"the client has found no coordinator for {LOST_AFTER_S:g} s, although the coordinator responds to others"
            )
        self._renew_client()
        if self._in_flight is None:
            self._hand_over()
        if self._in_flight is None:
            self._commits.commit_if_due(self._consumer)
            self._note_turn()
        else:
            self._await_worker()

    def _idle_s(self) -> float:
        """How long an idle loop may wait for a record."""
        due = (self._postponed.due_in_s(), self._commits.due_in_s)
        return min([IDLE_POLL_S, *(due_in_s for due_in_s in due if due_in_s is not None)])

    def _note_turn(self) -> None:
        self.health.failing = (
            self._unacknowledged.complaint
            or self._contact.complaint
            or self._silence.complaint
            or self._coordinator.complaint(self._handler.name)
            or self._group.complaint({(partition.topic, partition.partition) for partition in self._assigned.values()})
        )
        if not self._postponed.is_outage:
            self.health.turned()

    # --- Steps 1 and 2: poll, decode --------------------------------------------------------------------------------------

    def _receive(self, timeout_s: float) -> None:
        """Takes the records that are there. Waits only when there are none."""
        messages = poll(
            self._consumer,
            timeout_s=timeout_s,
            most=self._max_polled,
            assignment=lambda first: self._assigned.get(_origin(first)),
        )
        sought: set[PartitionOffsets] = set()
        entries = [self._take_in(entry) for message in messages for entry in self._entries(message, sought)]
        if self._silence:
            self._note_heard(messages)
        self._feeders.pause(self._consumer, entries)
        self._feeders.resume(self._consumer)

    def _entries(self, message: Message, sought: set[PartitionOffsets]) -> Iterable[Entry]:
        """Returns the record of a message, or for a damaged place in the log what takes the place of its records.

        Returns none for another error, and for a partition in `sought`: it was sought in this call, so the record comes again.
        """
        # None: a callback of this call revoked the partition, or the error is not about a partition.
        partition = self._assigned.get(_origin(message))
        error = message.error()
        if error is None:
            return () if partition is None or partition in sought else (decode(take_apart(message), partition, self._handler),)
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None and partition not in sought:
                partition.ends_at(cast("int", message.offset()))
        elif partition is None or error.code() not in DAMAGE:
            self._judge(error)
        elif partition not in sought:
            sought.add(partition)
            return self._damage.step_over(self._consumer, partition, cast("int", message.offset()))
        return ()

    def _note_heard(self, messages: Sequence[Message]) -> None:
        if not self.health.broker_contact:
            self._silence.without_contact()
        told = [message for message in messages if (error := message.error()) is None or error.code() in _HEARD]
        self._silence.heard({partition for message in told if (partition := self._assigned.get(_origin(message))) is not None})

    def _take_in(self, entry: Entry) -> Entry:
        """Adds an entry immediately, in the order of the log: the client's next report about the partition is about later offsets."""
        entry.partition.polled(entry.offset)
        self._lanes.put(entry)
        return entry

    def _judge(self, error: KafkaError) -> None:
        """Handles an error, which arrives as a message. librdkafka retries most of them itself, for example a topic that does not exist
        yet."""
        if is_expelled(error):
            raise ExpelledError(str(error))
        if is_fatal(error):
            raise KafkaException(error)
        log_action(Action.POLL_ERROR, role=self._handler.name, error=str(error))

    # --- Steps 3 and 4: handle, produce; in the worker --------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Gives the worker the next micro-batch. When there is none, or too much is outstanding, the worker stores progress over offsets
        without records, waits for acknowledgements, or looks at the database: whether the group was renewed, and whether partitions
        stand."""
        unit, entries = self._next() if self._has_room() else (None, ())
        offsets = _offsets(entries)
        next_offsets = self._progress_after(offsets)
        if entries:
            last_chance = unit.kind if unit is not None and self._postponed.may_be_set_aside(unit) else None
            future = self._worker.submit(lambda: self._processor.process(entries, next_offsets, last_chance=last_chance))
        elif next_offsets:
            future = self._worker.submit(lambda: self._processor.note_progress(next_offsets))
        elif self._group.is_look_due:
            self._group.is_look_due = False
            future = self._worker.submit(self._look_at_database)
        else:
            if self._unacknowledged:
                self._look_for_acknowledgements()
            return
        self._in_flight = _InFlight(entries, offsets, next_offsets, unit, future, time.monotonic())

    def _look_at_database(self) -> Processed:
        self._group.look()
        return NOTHING

    def _next(self) -> tuple[Unit | None, Sequence[Entry]]:
        """Alternates between new and postponed records. Too many postponed ones are an outage: then it takes no new ones."""
        self._is_turn_of_postponed = not self._is_turn_of_postponed
        if not self._is_turn_of_postponed and not self._postponed.is_full and (entries := self._lanes.take()):
            return None, entries
        if (unit := self._postponed.take()) is not None:
            return unit, unit.entries
        return None, () if self._postponed.is_full else self._lanes.take()

    def _progress_after(self, offsets: Mapping[PartitionOffsets, Collection[int]]) -> NextOffsets:
        """Returns the progress to store once these records are handled: of their partitions, and of partitions that end without a
        record."""
        return {
            place: position
            for partition in self._assigned.values()
            if (next_offset := partition.next_handled_after(offsets.get(partition, ()))) is not None
            and self._noted.get(place := (partition.topic, partition.partition))
            != (position := Position(next_offset, partition.topic_id))
        }

    def _look_for_acknowledgements(self) -> None:
        future = self._worker.submit(self._processor.look_for_acknowledgements)
        self._in_flight = _InFlight((), {}, {}, None, future, time.monotonic())

    def _has_room(self) -> bool:
        return not self._unacknowledged or (
            self._processor.has_room and sum(partition.undone for partition in self._assigned.values()) < MAX_UNDONE_RECORDS
        )

    def _await_worker(self) -> None:
        assert self._in_flight is not None
        age_s = time.monotonic() - self._in_flight.since
        wait([self._in_flight.future], min(BUSY_POLL_MAX_S, max(BUSY_POLL_MIN_S, age_s / 4)))
        # When the loop is stopping, `_drain` handles the worker's result.
        if self._in_flight.future.done() and not self._stopping.is_set():
            self._finish(self._in_flight)
            # Take in what has come while the loop waited: larger micro-batches cost less an item.
            self._receive(0.0)
            # Hand over the next micro-batch before the commit, so that the worker need not wait for it.
            self._hand_over()
            self._commits.commit_if_due(self._consumer)

    def _finish(self, finished: _InFlight) -> None:
        """Raises the worker's error. The worker has already retried where a retry could help."""
        self._in_flight = None
        processed = finished.future.result()
        failures = processed.failures
        done, offsets = finished.entries, finished.offsets
        if failures:
            postponed = {id(entry) for failure in failures for entry in failure.entries}
            done = [entry for entry in done if id(entry) not in postponed]
            offsets = _offsets(done)
        else:
            self._noted |= finished.next_offsets
        for partition, of_partition in offsets.items():
            partition.handled(of_partition)
        self._unacknowledged.add(offsets, processed.pending)
        self._unacknowledged.note_acknowledged()
        for failure in failures:
            self._postponed.failed(failure, finished.unit, took_s=time.monotonic() - finished.since)
        if done:
            self._postponed.passed(len(done))
        # Another member owns partitions that were revoked meanwhile.
        self._postponed.drop(finished.offsets.keys() - set(self._assigned.values()))
        self._failures.report(failures, self._postponed, self.health)
        self._note_turn()

    def _drain(self) -> None:
        until = time.monotonic() + DRAIN_S
        try:
            while self._in_flight is not None:
                wait([self._in_flight.future], max(0.0, until - time.monotonic()))
                if not self._in_flight.future.done():
                    log_action(Action.DRAIN_ABANDONED, role=self._handler.name)
                    return
                self._finish(self._in_flight)
                if self._unacknowledged and time.monotonic() < until:
                    self._look_for_acknowledgements()
        except Exception as error:
            if not is_environments(error):
                raise
            log_action(Action.DRAIN_FAILED, role=self._handler.name, error=without_values(error))
        else:
            for _ in range(2):  # a request that has no reply yet lacks the offsets that have moved since
                self._commits.commit(self._consumer)
                while self._commits.is_waiting and (remaining := until - time.monotonic()) > 0:
                    self._consumer.poll(min(IDLE_POLL_S, remaining))  # records that come now are left to the next member
                    self._commits.judge_reply()

    # --- Called by librdkafka, inside poll and consume, where nothing may raise ------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Starts a new topic incarnation at its beginning: the offset committed under the topic's name may belong to the previous one."""
        self.health.broker_contact = True
        ids: Mapping[Topic, str] = {}
        outdated: Sequence[TopicPartition] = ()
        if partitions:
            try:
                ids = self._topic_ids(self._handler.topics, timeout_s=ASSIGNMENT_S)
                if replaced := self._known.replaced(partitions, ids):
                    # The present client reads nothing of these partitions. `_renew_client` replaces it.
                    self._replaced += self._names(replaced)
                    return
                outdated = self._known.outdated(consumer, partitions, ids, timeout_s=ASSIGNMENT_S)
            except KafkaException as error:
                log_action(Action.TOPIC_IDS_UNKNOWN, role=self._handler.name, error=str(error))
        for assigned in partitions:
            topic = self._topics[assigned.topic]
            offsets = PartitionOffsets(topic, assigned.topic, assigned.partition, ids.get(topic, UNKNOWN_ID))
            self._assigned[assigned.topic, assigned.partition] = offsets
            self._silence.assigned(offsets)
        log_action(Action.PARTITIONS_ASSIGNED, role=self._handler.name, partitions=self._names(partitions))
        if outdated:
            for partition in outdated:
                partition.offset = OFFSET_BEGINNING
            log_action(Action.TOPIC_REPLACED, role=self._handler.name, partitions=self._names(outdated))
            consumer.incremental_assign(partitions)

    def _names(self, partitions: Sequence[TopicPartition]) -> list[str]:
        return [f"{self._topics[each.topic].value}/{each.partition}" for each in partitions]

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drops the partitions. The micro-batch under way continues: its effect stays valid, and the next owner commits its offsets."""
        keys = {(partition.topic, partition.partition) for partition in partitions}
        revoked = {self._assigned.pop(key) for key in keys & self._assigned.keys()}
        self._lanes.drop(revoked)
        self._postponed.drop(revoked)
        self._silence.revoked(revoked)
        self._commits.revoked(revoked)
        self._feeders.revoked(self._consumer, revoked)
        self._damage.revoked(revoked)
        for partition in revoked:
            self._noted.pop((partition.topic, partition.partition), None)
        log_action(Action.PARTITIONS_REVOKED, role=self._handler.name, partitions=self._names(partitions))

    # A lost partition is treated like a revoked one: no offset is committed for it.
    _on_lost = _on_revoke

    def _note_statistics(self, statistics: str) -> None:
        report = orjson.loads(statistics)
        self._contact.report(report["brokers"])
        self.health.broker_contact = self._contact.any
        self._membership.report(report["cgrp"], is_served=self._coordinator.is_served)


def _origin(message: Message) -> tuple[str, int]:
    """Returns topic and partition. For an error that concerns no partition, returns a pair that no partition has."""
    topic, partition = message.topic(), message.partition()
    return topic or "", -1 if partition is None else partition


def _offsets(entries: Sequence[Entry]) -> dict[PartitionOffsets, set[int]]:
    offsets: defaultdict[PartitionOffsets, set[int]] = defaultdict(set)
    for entry in entries:
        offsets[entry.partition].add(entry.offset)
    return offsets
