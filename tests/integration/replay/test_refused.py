"""What a replay says of batches that were refused and sent again: nothing that was accepted is lost in silence."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import Engine

from orchestrator.replay.promote import Promoted
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.support.forged import completion, ours, rejection
from tests.support.pipeline import mentors
from tests.support.refusals import (
    ACCEPTED,
    NOT_ACCEPTED,
    PROOFS,
    Happens,
    Says,
    Story,
    Told,
    before_results,
    corrected,
    lose,
    malformed,
    one_by_one,
    refused,
    refused_and_corrected,
    refused_and_corrected_after,
    refused_twice,
    refused_twice_and_sent_with_another_total,
    says,
    tell,
    twice_named,
)
from tests.support.replaying import RecordingPipeline, compared, projection, promoted, run
from tests.support.upstream import upstream, written_again


def refused_twice_and_cut_otherwise(batch_id: UUID) -> Story:
    """With another total."""
    parts = (upstream(batch_id, positions, part=part, parts=2, total=3) for part, positions in ((1, [0]), (2, [1, 2])))
    return [*refused_twice(batch_id), *one_by_one(*parts)]


@pytest.mark.parametrize("told", NOT_ACCEPTED, ids=lambda told: told.story.__name__)
def test_what_a_replay_says_of_a_batch_that_was_not_accepted(pipeline: RecordingPipeline, owner: Engine, told: Told) -> None:
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, told.story(batch_id))
    assert says(pipeline, before_results(pipeline.written)) is told.says


@pytest.mark.parametrize("told", ACCEPTED, ids=lambda told: told.story.__name__)
def test_what_a_replay_says_of_a_batch_that_was_accepted_after_a_refusal(
    pipeline: RecordingPipeline, owner: Engine, told: Told
) -> None:
    """It is healthy, and waits; it is finished; its row and items are lost, which is repaired; all of it is lost before its first result."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, told.story(batch_id))
    assert pipeline.status(batch_id).batch.status == "completed"
    assert says(pipeline, pipeline.written) is Says.NOTHING
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before
    lose(owner, batch_id)
    written = before_results(pipeline.written)
    assert any(event.topic is Topic.LIFECYCLE for _, event in written)
    assert says(pipeline, written) is told.says


@pytest.mark.parametrize("told", ACCEPTED, ids=lambda told: told.story.__name__)
def test_a_batch_that_was_accepted_after_a_refusal_and_waits_is_no_difference(
    pipeline: RecordingPipeline, owner: Engine, told: Told
) -> None:
    batch_id = new_batch_id()
    *story, last = told.story(batch_id)
    tell(pipeline, owner, batch_id, story)
    assert not isinstance(last, Happens)
    pipeline.handle(pipeline.splitter, last)
    pipeline.queues[Topic.BATCHES] += last
    pipeline.relay()
    assert pipeline.status(batch_id).batch.status == "processing"
    assert says(pipeline, before_results(pipeline.written)) is Says.NOTHING


@pytest.mark.parametrize(("times", "expected"), [(1, Says.DIFFERENCE), (2, Says.NOTHING)])
def test_an_event_that_was_written_twice_is_refused_if_each_record_was(
    pipeline: RecordingPipeline, owner: Engine, times: int, expected: Says
) -> None:
    """A dead letter that is redriven comes under the same id, and may be accepted. A rejection that the relay publishes twice counts once."""
    batch_id = new_batch_id()
    event = refused(batch_id)
    records = [event, written_again(event)]
    tell(pipeline, owner, batch_id, one_by_one(*records))
    rejections = [each for _, each in pipeline.written if each.topic is Topic.LIFECYCLE]
    assert len(rejections) == 2
    published = rejections if times == 2 else rejections[:1] * 2
    assert says(pipeline, list(enumerate([*records, *published]))) is expected


def test_a_record_that_was_written_twice_with_its_time_and_refused_is_not_covered(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """As a mirror writes it. Its rejection is the same event both times, and the second record could have been accepted."""
    batch_id = new_batch_id()
    event = refused(batch_id)
    tell(pipeline, owner, batch_id, one_by_one(event, event))
    assert says(pipeline, pipeline.written) is Says.NOT_COVERED
    # A record that is read twice is one record.
    [first, _, *others] = pipeline.written
    assert says(pipeline, [first, first, *others]) is Says.NOTHING


def test_a_malformed_record_does_not_make_up_for_a_missing_rejection(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = new_batch_id()
    event = refused(batch_id)
    tell(pipeline, owner, batch_id, one_by_one(malformed(event), written_again(event)))
    assert says(pipeline, pipeline.written) is Says.NOTHING
    of_malformed, of_event = (each for each in pipeline.written if each[1].topic is Topic.LIFECYCLE)
    assert says(pipeline, [each for each in pipeline.written if each[1] != of_event[1]]) is Says.DIFFERENCE
    assert says(pipeline, [each for each in pipeline.written if each[1] != of_malformed[1]]) is Says.NOTHING


def test_the_rejection_of_a_record_that_has_expired_cancels_no_later_record(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = new_batch_id()
    first = refused(batch_id)
    tell(pipeline, owner, batch_id, refused_and_corrected_after(first, batch_id))
    assert pipeline.status(batch_id).batch.status == "completed"
    lose(owner, batch_id)
    read = [each for each in before_results(pipeline.written) if each[1] != first]
    assert {event.topic for _, event in read} == {Topic.BATCHES, Topic.LIFECYCLE}
    assert says(pipeline, read) is Says.DIFFERENCE


@pytest.mark.parametrize("left", ["completion", "deletion", "deletion and rejection"])
def test_a_lost_batch_of_which_one_late_event_is_left_is_not_covered(pipeline: RecordingPipeline, left: str) -> None:
    """Its parts and results have expired. Only a batch that was accepted is completed or deleted."""
    batch_id = new_batch_id()
    deletion = ours(events.BATCH_DELETED, batch_id, version=5)
    found = {
        "completion": [completion(batch_id, "completed", 2)],
        "deletion": [deletion],
        "deletion and rejection": [deletion, rejection(batch_id)],
    }
    assert says(pipeline, list(enumerate(found[left]))) is Says.NOT_COVERED


def test_a_rejection_beside_which_the_batch_continued_tells_that_it_was_there(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Its own events are no longer on the topic, and the database has lost it."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, one_by_one(*corrected(batch_id)))
    before = {event for _, event in pipeline.written}
    tell(pipeline, owner, batch_id, one_by_one(*reversed(twice_named(batch_id))))
    lose(owner, batch_id)
    written = [each for each in pipeline.written if each[1] not in before]
    assert {event.topic for _, event in written} == {Topic.BATCHES, Topic.LIFECYCLE}
    assert says(pipeline, written) is Says.NOT_COVERED


@pytest.mark.parametrize(
    ("story", "left"),
    [(refused_and_corrected, 0), (refused_and_corrected, 1), (refused_twice_and_sent_with_another_total, 0)],
    ids=["two contents of both parts", "two contents of the part that is lost", "two ways to cut it"],
)
def test_a_promotion_creates_no_items_of_which_another_content_was_perhaps_accepted(
    pipeline: RecordingPipeline, owner: Engine, story: Callable[[UUID], Story], left: int
) -> None:
    """Only the outcomes, the activities and the first `left` parts are left, and the topics have two contents of a part, or two ways to cut the
    batch. Another batch has all its rows."""
    pipeline.submit(mentors(1))
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, story(batch_id))
    lost = {"batch": "true", "batch_item": "true", "batch_part": f"part > {left}"}
    run(owner, *(f"DELETE FROM orchestrator.{table} WHERE batch_id = '{batch_id}' AND {rows}" for table, rows in lost.items()))
    before = projection(owner)
    verdicts, _ = promoted(pipeline.engine, pipeline.written)
    assert verdicts == {batch_id: Promoted.NOT_BORNE_OUT}
    assert projection(owner) == before


OTHERWISE = [(refused_twice_and_sent_with_another_total, 0), *((refused_twice_and_cut_otherwise, left) for left in (0, 1))]


@pytest.mark.parametrize(("story", "left"), OTHERWISE)
def test_the_row_of_a_batch_tells_which_of_two_contents_was_accepted(
    pipeline: RecordingPipeline, owner: Engine, story: Callable[[UUID], Story], left: int
) -> None:
    """The hashes of its parts are lost, except those of the first `left`."""
    batch_id = new_batch_id()
    tell(pipeline, owner, batch_id, story(batch_id))
    before = projection(owner)
    run(owner, f"DELETE FROM orchestrator.batch_part WHERE part > {left}")
    assert says(pipeline, pipeline.written) is Says.NOTHING
    run(owner, "TRUNCATE orchestrator.batch_item")
    verdicts, after = promoted(pipeline.engine, pipeline.written)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert projection(owner) == before


@pytest.mark.parametrize(("proof", "expected"), PROOFS.values(), ids=PROOFS)
def test_a_refused_batch_of_which_an_event_tells_that_it_was_accepted_is_not_passed_over(
    pipeline: RecordingPipeline, proof: Callable[[UUID], list[OutgoingEvent]], expected: Says
) -> None:
    """One of its parts is not on the topic."""
    batch_id = new_batch_id()
    read = list(enumerate([corrected(batch_id)[0], rejection(batch_id), *proof(batch_id)]))
    assert says(pipeline, read) is expected
    assert compared(pipeline.engine, read).not_covered == ([] if expected is Says.NOTHING else [batch_id])
