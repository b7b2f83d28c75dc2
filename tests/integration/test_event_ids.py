"""Row 56 of the fault catalogue: no event id has two contents. The tests' pipeline checks this for everything that it publishes, too."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text

from consumers.loop.dead_letters import dead_letter
from consumers.loop.decoding import Entry
from consumers.loop.handler import Lane, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.operations import cancel_batch, delete_batch, relabel_batch
from orchestrator.process.settings import Settings
from schemas import event_builders, events
from schemas.envelope import OutgoingEvent, Topic
from schemas.mistakes import Mistake
from tests.support.contents import Contents, ManyContents
from tests.support.pipeline import ADMIN, ORGANIZATION, Pipeline
from tests.support.sweeping import sweep
from tests.support.upstream import in_parts, submitted, upstream_item, upstream_items


def published(pipeline: Pipeline, event_type: str) -> list[OutgoingEvent]:
    """All events of a type that were published since the last call."""
    pipeline.relay()
    taken = pipeline.take(Topic.BATCHES, Topic.LIFECYCLE)
    return [event for event in taken if dict(event.headers)["ce_type"] == event_type.encode()]


def id_of(event: OutgoingEvent) -> bytes:
    return dict(event.headers)["ce_id"]


def take_in(pipeline: Pipeline, *parts: OutgoingEvent) -> None:
    pipeline.handle(pipeline.splitter, parts)


def end_collections(pipeline: Pipeline, settings: Settings) -> None:
    """Ends the collections as if a day had passed without the missing parts."""
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = submitted_at - interval '25 hours'"))
    sweep(Sweeper(SweepPolicy.of(settings), lambda _topics: {}), pipeline.engine)


def test_row_56_batch_that_is_incomplete_twice_is_rejected_twice(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = uuid4()
    first, _ = in_parts(batch_id, [2, 1])
    rejections = []
    for _ in range(2):
        take_in(pipeline, first)
        end_collections(pipeline, settings)
        [rejection] = published(pipeline, events.BATCH_REJECTED)
        assert orjson.loads(rejection.value)["rejected_event_id"] == str(batch_id)
        rejections.append(rejection)
    take_in(pipeline, first)
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    rejections += published(pipeline, events.BATCH_REJECTED)
    assert len({id_of(rejection) for rejection in rejections}) == 3, (
        "a consumer that skips known ids would miss the second rejection"
    )


def test_label_of_a_forgotten_batch_is_not_mistaken_for_its_first_one(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = uuid4()
    first, _ = in_parts(batch_id, [2, 1])
    edits = []
    for label in ("before", "after"):
        take_in(pipeline, first)
        pipeline.call(relabel_batch, ADMIN, batch_id, label)
        edits += published(pipeline, events.BATCH_RELABELLED)
        end_collections(pipeline, settings)
    assert [orjson.loads(edit.value)["version"] for edit in edits] == [2, 2], "the versions must begin again"
    assert id_of(edits[0]) != id_of(edits[1])


def test_wrong_part_that_is_sent_again_after_it_was_corrected(pipeline: Pipeline) -> None:
    batch_id = uuid4()
    wrong = submitted(batch_id, [upstream_item(0)], part=2, parts=2, total_items=3, coordinator_id="nobody", event_id="event-2")
    take_in(pipeline, wrong)
    take_in(pipeline, wrong)
    repeated = published(pipeline, events.BATCH_REJECTED)
    assert len({id_of(rejection) for rejection in repeated}) == 1, "the same rejection must have the same id"
    take_in(pipeline, *in_parts(batch_id, [2, 1]))
    take_in(pipeline, wrong)
    [later] = published(pipeline, events.BATCH_REJECTED)
    assert later.value != repeated[0].value
    assert id_of(later) != id_of(repeated[0])


def letter(value: bytes, written_ms: int, *, reason: str = "not_json") -> OutgoingEvent:
    raw = RawRecord("bulk-registration.batches.v1", 0, 7, written_ms, b"key", value, ())
    partition = PartitionOffsets(Topic.BATCHES, raw.cluster_topic, raw.partition)
    return dead_letter(Entry(raw, partition, raw.offset, raw.bytes, Lane.SMALL, None, None), RefusedError(reason, "it is none"))


def test_dead_letters_of_a_recreated_topic_have_new_ids() -> None:
    first = letter(b"{", 1_000)
    assert letter(b"{", 1_000) == first
    others = [letter(b"[", 1_000), letter(b"{", 2_000), letter(b"{", 1_000, reason="no_value")]
    assert len({id_of(each) for each in [first, *others]}) == 4


def test_a_letter_that_is_redriven_twice_has_two_marks() -> None:
    moments = [datetime(2026, 3, 26, 10, minute, tzinfo=UTC) for minute in (0, 1)]
    same = uuid4()
    marks = [event_builders.dead_letter_redriven(dead_letter_id=same, time=moment, trace_id="1" * 32) for moment in moments]
    assert id_of(marks[0]) != id_of(marks[1])


# Each builder of an event with a stored identity. The test calls it with one field changed at a time.
TIME = datetime(2026, 3, 26, 10, tzinfo=UTC)
BATCH = UUID("7c0e4a52-43a1-4ee8-9d0b-6a1f5f0c3a11")
COMMON = {"batch_id": BATCH, "organization_id": ORGANIZATION, "time": TIME, "trace_id": "1" * 32}
LATER = TIME + timedelta(microseconds=1)
CHECKPOINT = {
    "organization_id": ORGANIZATION,
    "log": 1,
    "origin": "records.example.org/org",
    "size": 7,
    "root": bytes(32),
    "checkpoint": "signed",
    "time": TIME,
    "trace_id": "1" * 32,
}


@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (
            lambda **fields: event_builders.batch_relabelled(**{**COMMON, "label": "a", "version": 2, **fields}),
            [{"version": 3}, {"time": LATER}],
        ),
        (
            lambda **fields: event_builders.batch_rejected(
                **{
                    **COMMON,
                    "rejected_source": "/a",
                    "rejected_event_id": "b/c",
                    "batch_continues": False,
                    "mistakes": [],
                    **fields,
                }
            ),
            [
                {"time": LATER},
                {"batch_continues": True},
                {"mistakes": [Mistake("/parts", "incomplete", "…")]},
                {"rejected_source": "/a/b", "rejected_event_id": "c"},
            ],
        ),
        (
            lambda **fields: event_builders.checkpoint_signed(**{**CHECKPOINT, **fields}),
            [{"time": LATER}, {"size": 8}, {"origin": "records.example.org/org#2"}],
        ),
    ],
    ids=["BatchRelabelled", "BatchRejected", "CheckpointSigned"],
)
def test_every_field_that_can_differ_is_part_of_the_id(
    build: Callable[..., OutgoingEvent], changes: list[dict[str, object]]
) -> None:
    made = [build(), *(build(**change) for change in changes)]
    assert len({id_of(event) for event in made}) == len(made)


def test_one_id_with_two_contents_is_detected() -> None:
    contents = Contents()
    first = event_builders.batch_deleted(batch_id=BATCH, organization_id=ORGANIZATION, version=2, time=TIME, trace_id="1" * 32)
    other = event_builders.batch_deleted(batch_id=BATCH, organization_id=ORGANIZATION, version=3, time=TIME, trace_id="1" * 32)
    assert contents.difference(first.key, first.headers, first.value) is None
    assert contents.difference(first.key, first.headers, first.value) is None
    assert "other content than before" in (contents.difference(other.key, other.headers, other.value) or "")


def test_all_ids_with_two_contents_are_detected() -> None:
    contents = ManyContents()
    for event_id, said in [("a", "one"), ("b", "one"), ("c", "one"), ("a", "one"), ("b", "other")]:
        contents.add(event_id, said)
    differing = contents.with_two()
    assert [event_id for event_id in "abcd" if contents.is_among(event_id, differing)] == ["b"]


@pytest.mark.parametrize("source", ["api", "API", " api ", "\uff41pi", "/bulk-registration"])
def test_a_batch_from_upstream_is_not_mistaken_for_one_by_http(pipeline: Pipeline, source: str) -> None:
    batch_id = uuid4()
    event = submitted(batch_id, upstream_items(1))
    headers = tuple((name, source.encode() if name == "ce_source" else value) for name, value in event.headers)
    take_in(pipeline, event._replace(headers=headers))
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        channels = list(connection.execute(text("SELECT channel FROM registration.audit")).scalars())
    assert channels == [f"upstream:{source}"]
    assert pipeline.status(batch_id).batch.channel == f"upstream:{source}"
    pipeline.call(delete_batch, ADMIN, batch_id)
