"""Which batches count as forgotten by the database, whatever else was sent under their ids and refused."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from consumers.reading import forgotten, submissions
from consumers.reading.forgotten import forgotten_batches
from consumers.reading.submissions import NotRefused, Submissions
from consumers.reading.topic_reader import Span, TopicReader
from orchestrator.process.settings import Settings
from orchestrator.storage.progress import Position
from schemas.envelope import MAX_MESSAGE_BYTES, Topic, open_envelope
from schemas.events import BATCH_REJECTED, BATCH_SUBMITTED
from schemas.ids import new_batch_id
from tests.support.kafka import altered, write_raw
from tests.support.raw_producer import Compression, RawRecord, produce
from tests.support.refusals import (
    ACCEPTED,
    NOT_ACCEPTED,
    Says,
    Told,
    given_up_and_sent_again,
    half_corrected,
    lose,
    malformed,
    one_by_one,
    refused,
    refused_and_cut_otherwise,
    refused_and_sent_with_other_positions,
    refused_twice,
    tell,
)
from tests.support.replaying import RecordingPipeline, Written, recording, written_at_ms
from tests.support.upstream import upstream

# The parts are all there. A replay sees that they name a mentor twice, or that they do not fit together.
FORGOTTEN = {refused_twice, half_corrected, refused_and_cut_otherwise, refused_and_sent_with_other_positions}


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    with recording(settings, engine, mentor_count=700) as pipeline:
        yield pipeline


def not_refused(batch_id: UUID, written: Written) -> list[NotRefused]:
    """The batches that were not refused, among this one."""
    found = Submissions({batch_id})
    opened = [(event, open_envelope(event.headers, event.value)) for _, event in written]
    for event, envelope in opened:
        if envelope.type == BATCH_SUBMITTED:
            found.add(envelope, written_at_ms(event))
    for event, envelope in opened:
        if envelope.type == BATCH_REJECTED:
            found.add_rejection(event.headers, envelope)
    return found.not_refused()


@pytest.mark.parametrize("told", [*ACCEPTED, *NOT_ACCEPTED], ids=lambda told: told.story.__name__)
def test_a_batch_that_was_refused_and_perhaps_accepted(pipeline: RecordingPipeline, owner: Engine, told: Told) -> None:
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, told.story(batch_id))
    expected = Says.DIFFERENCE if told.story in FORGOTTEN else told.says
    certain = [each.is_certain for each in not_refused(batch_id, pipeline.written)]
    assert certain == {Says.DIFFERENCE: [True], Says.NOT_COVERED: [False], Says.NOTHING: []}[expected]
    assert not_refused(new_batch_id(), pipeline.written) == []


def test_a_batch_with_more_submissions_than_are_remembered_is_not_refused(
    pipeline: RecordingPipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the one that is not remembered is malformed: its rejection could stand for another record of its event."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, one_by_one(refused(batch_id), malformed(refused(batch_id))))
    for most, found in ((2, []), (1, [(1, True)])):
        monkeypatch.setattr(submissions, "MAX_RECORDS", most)
        assert [(each.items, each.is_certain) for each in not_refused(batch_id, pipeline.written)] == found


def test_a_batch_that_was_given_up_stays_undecided_when_another_event_of_it_is_refused(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, [*given_up_and_sent_again(batch_id), *one_by_one(refused(batch_id))])
    assert [each.is_certain for each in not_refused(batch_id, pipeline.written)] == [False]


def test_only_what_the_splitter_accepted_is_forgotten(
    settings: Settings, topics: None, engine: Engine, pipeline: RecordingPipeline, owner: Engine
) -> None:
    """A batch of which another content is refused afterwards, and a record that is larger than the splitter reads."""
    accepted, large = new_batch_id(), new_batch_id()
    tell(
        pipeline,
        owner,
        accepted,
        one_by_one(*(upstream(accepted, range(total), part=1, parts=1, total=total) for total in (2, 1))),
    )
    lose(owner, accepted)
    altered(settings, Topic.BATCHES, "compression.type", "producer")
    for topic in (Topic.BATCHES, Topic.LIFECYCLE):
        written = [event for _, event in pipeline.written if event.topic is topic]
        write_raw(settings, topic, [(event.value, dict(event.headers)) for event in written], partition=0)
    assert any(dict(event.headers)["ce_type"] == BATCH_REJECTED.encode() for event in written)
    event = upstream(large, range(3), part=1, parts=1, total=3)
    too_large = RawRecord(
        event.value + b" " * MAX_MESSAGE_BYTES, headers=[(name.encode(), value) for name, value in event.headers]
    )
    batches = Topic.BATCHES.on_cluster(settings.topic_prefix)
    produce(settings.kafka_bootstrap_servers, batches, 0, [too_large], compression=Compression.GZIP)
    passed = {(Topic.BATCHES, 0): Position(1_000)}
    with engine.connect() as connection:
        found = forgotten_batches(settings, connection, passed, passed)
    assert (found.batches, found.items) == (1, 2)


def test_no_transaction_waits_while_the_topics_are_read(
    settings: Settings, topics: None, engine: Engine, pipeline: RecordingPipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading what a restored database has missed takes longer than the database lets a transaction be idle."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, one_by_one(upstream(batch_id, range(1), part=1, parts=1, total=1)))
    lose(owner, batch_id)
    written = [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    write_raw(settings, Topic.BATCHES, [(event.value, dict(event.headers)) for event in written], partition=0)
    passed = {(Topic.BATCHES, 0): Position(1_000)}
    states: list[str] = []
    read = TopicReader.read

    def observed(self: TopicReader, spans: Sequence[Span]) -> Any:
        with owner.connect() as connection:
            states.append(connection.scalar(text("SELECT state FROM pg_stat_activity WHERE pid = :pid"), {"pid": pid}))
        return read(self, spans)

    monkeypatch.setattr(TopicReader, "read", observed)
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        assert forgotten_batches(settings, connection, passed, passed).batches == 1
    assert states == ["idle"] * 3


def test_what_the_database_has_not_handled_is_read_however_much_it_is(
    settings: Settings, topics: None, engine: Engine, pipeline: RecordingPipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "LOOK_BACK", 1)
    for _ in range(5):
        batch_id = new_batch_id()
        tell(pipeline, owner, batch_id, one_by_one(upstream(batch_id, range(1), part=1, parts=1, total=1)))
        lose(owner, batch_id)
    written = [event for _, event in pipeline.written if event.topic is Topic.BATCHES]
    write_raw(settings, Topic.BATCHES, [(event.value, dict(event.headers)) for event in written[:5]], partition=0)
    place = (Topic.BATCHES, 0)
    with engine.connect() as connection:
        found = forgotten_batches(settings, connection, {place: Position(5)}, {place: Position(2)})
    assert found.batches == 4


def test_a_batch_is_forgotten_since_its_first_event_whatever_the_order_in_which_its_events_are_read() -> None:
    batch_id = new_batch_id()
    event = upstream(batch_id, range(1), part=1, parts=1, total=1)
    found = Submissions({batch_id})
    for timestamp_ms in (2_000, 1_000, 3_000):
        found.add(open_envelope(event.headers, event.value), timestamp_ms)
    first = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert (found.since, [each.since for each in found.not_refused()]) == (first, [first])
