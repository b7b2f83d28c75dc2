"""Stories of batches that are refused, given up, lost and sent again, and what a replay says of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum, auto
from uuid import UUID

import orjson
from sqlalchemy import Engine

from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.support.audit import tampering
from tests.support.forged import completion, ours, revocation
from tests.support.pipeline import DAY
from tests.support.replaying import RecordingPipeline, Written, compared, run
from tests.support.sweeping import sweep
from tests.support.upstream import upstream, written_again


class Says(StrEnum):
    """What a replay says of a batch."""

    NOTHING = auto()
    DIFFERENCE = auto()
    NOT_COVERED = auto()


class Happens(StrEnum):
    """What happens between two micro-batches."""

    GIVEN_UP = auto()
    """The sweeper rejects the batch, because not all its parts have come."""
    LOST = auto()
    """The database is reset to before the batch."""


Story = Sequence[Sequence[OutgoingEvent] | Happens]
"""Micro-batches of upstream's events, and what happens between them."""


def one_by_one(*parts: OutgoingEvent) -> Story:
    return [[part] for part in parts]


def twice_named(batch_id: UUID) -> tuple[OutgoingEvent, OutgoingEvent]:
    """Two parts that name the same mentor. Each is valid by itself."""
    return (
        upstream(batch_id, [0], part=1, parts=2, total=2, first_mentor=640),
        upstream(batch_id, [1], part=2, parts=2, total=2, first_mentor=639),
    )


def corrected(batch_id: UUID) -> tuple[OutgoingEvent, OutgoingEvent]:
    """The same two parts with two mentors."""
    return (
        upstream(batch_id, [0], part=1, parts=2, total=2, first_mentor=650),
        upstream(batch_id, [1], part=2, parts=2, total=2, first_mentor=650),
    )


def refused(batch_id: UUID) -> OutgoingEvent:
    """A whole batch that is refused by itself."""
    return upstream(batch_id, [0], part=1, parts=1, total=1, coordinator_id="nobody")


def named_like(event: OutgoingEvent, other: OutgoingEvent) -> OutgoingEvent:
    """`other` under the id of `event`."""
    own_id = dict(event.headers)["ce_id"]
    return other._replace(headers=tuple((name, own_id if name == "ce_id" else value) for name, value in other.headers))


def malformed(event: OutgoingEvent) -> OutgoingEvent:
    """The event with a duration that is no number."""
    data = orjson.loads(event.value)
    data["items"][0]["duration_minutes"] = "thirty"
    return event._replace(value=orjson.dumps(data))


def refused_twice(batch_id: UUID) -> Story:
    return one_by_one(*twice_named(batch_id), *reversed(twice_named(batch_id)))


def refused_once(batch_id: UUID) -> Story:
    return one_by_one(*twice_named(batch_id))


def refused_by_itself(batch_id: UUID) -> Story:
    return one_by_one(refused(batch_id))


def given_up(batch_id: UUID) -> Story:
    return [corrected(batch_id)[:1], Happens.GIVEN_UP]


def given_up_with_each_part(batch_id: UUID) -> Story:
    first, second = corrected(batch_id)
    return [[first], Happens.GIVEN_UP, [second], Happens.GIVEN_UP]


def half_corrected(batch_id: UUID) -> Story:
    return one_by_one(*twice_named(batch_id), corrected(batch_id)[1])


def half_corrected_and_given_up(batch_id: UUID) -> Story:
    """The sender repeats only the part that the rejection names. The refusal has forgotten the other one."""
    return [*half_corrected(batch_id), Happens.GIVEN_UP]


def refused_and_doubled(batch_id: UUID) -> Story:
    """Two records of one event, with one time. Both are refused."""
    event = refused(batch_id)
    return one_by_one(event, event)


def refused_after_it_was_lost(batch_id: UUID) -> Story:
    return [*one_by_one(*corrected(batch_id)), Happens.LOST, [refused(batch_id)]]


@dataclass(frozen=True)
class Told:
    story: Callable[[UUID], Story]
    says: Says


NOT_ACCEPTED = [
    Told(refused_once, Says.NOTHING),
    Told(refused_twice, Says.NOTHING),
    Told(refused_by_itself, Says.NOTHING),
    Told(given_up, Says.NOTHING),
    # Both parts are on the topic, and they are also there if a batch that was given up is sent again, accepted and lost.
    Told(given_up_with_each_part, Says.NOT_COVERED),
    # Part 2 is collected, and the topic also has a part 1, which was refused with the batch.
    Told(half_corrected, Says.NOT_COVERED),
    Told(half_corrected_and_given_up, Says.NOT_COVERED),
    Told(refused_and_doubled, Says.NOT_COVERED),
    Told(refused_after_it_was_lost, Says.DIFFERENCE),
]


def refused_and_corrected(batch_id: UUID) -> Story:
    return one_by_one(*twice_named(batch_id), *corrected(batch_id))


def refused_in_one_micro_batch_and_corrected(batch_id: UUID) -> Story:
    """A micro-batch is handled by the numbers of its parts. So the refused event is the second part, although it was written first."""
    return [[*reversed(twice_named(batch_id))], *one_by_one(*corrected(batch_id))]


def half_corrected_and_then_whole(batch_id: UUID) -> Story:
    return [*half_corrected(batch_id), corrected(batch_id)[:1]]


def refused_twice_and_corrected(batch_id: UUID) -> Story:
    return [*refused_twice(batch_id), *one_by_one(*corrected(batch_id))]


def refused_twice_and_sent_with_another_total(batch_id: UUID) -> Story:
    return [*refused_twice(batch_id), [upstream(batch_id, [0], part=1, parts=1, total=1)]]


def refused_between_its_parts(batch_id: UUID) -> Story:
    """The refused part is handled before the second one, although it was written afterwards."""
    of_one = {"mentor_id": "mentor-640", "activity_type": "visit", "activity_date": DAY, "duration_minutes": 30}
    wrong = [{"position": position, **of_one} for position in range(2)]
    second = upstream(batch_id, [2], part=2, parts=2, total=3)
    return [
        [second, upstream(batch_id, range(2), part=1, parts=2, total=3, items=wrong)],
        [upstream(batch_id, range(2), part=1, parts=2, total=3)],
    ]


def refused_and_cut_otherwise(batch_id: UUID) -> Story:
    return one_by_one(
        upstream(batch_id, [0, 1], part=1, parts=2, total=3),
        upstream(batch_id, [2], part=2, parts=2, total=3, first_mentor=638),
        upstream(batch_id, [0], part=1, parts=2, total=3),
        upstream(batch_id, [1, 2], part=2, parts=2, total=3),
    )


def refused_and_sent_with_other_positions(batch_id: UUID) -> Story:
    return one_by_one(
        upstream(batch_id, [0, 1], part=1, parts=2, total=3),
        upstream(batch_id, [2], part=2, parts=2, total=3, first_mentor=638),
        upstream(batch_id, [0, 2], part=1, parts=2, total=3),
        upstream(batch_id, [1], part=2, parts=2, total=3),
    )


def given_up_and_sent_again(batch_id: UUID) -> Story:
    return [*given_up(batch_id), *one_by_one(*corrected(batch_id))]


def given_up_and_sent_again_under_the_same_ids(batch_id: UUID) -> Story:
    first, second = corrected(batch_id)
    return [[first], Happens.GIVEN_UP, [written_again(first)], [second]]


def refused_and_accepted_under_the_same_id(batch_id: UUID) -> Story:
    return refused_and_corrected_after(refused(batch_id), batch_id)


def refused_and_corrected_after(first: OutgoingEvent, batch_id: UUID) -> Story:
    return one_by_one(first, named_like(first, upstream(batch_id, [0], part=1, parts=1, total=1)))


def refused_with_its_last_part_and_corrected_under_the_same_ids(batch_id: UUID) -> Story:
    parts = twice_named(batch_id)
    return one_by_one(*parts, *map(named_like, parts, corrected(batch_id)))


def refused_and_written_again_with_a_correction(batch_id: UUID) -> Story:
    first, second = twice_named(batch_id)
    return [[first], [second], [written_again(second), corrected(batch_id)[0]]]


def refused_and_written_twice_at_that_time_with_a_correction(batch_id: UUID) -> Story:
    """A broker that sets the times gives all records of one request the same. The second record is accepted."""
    first, second = twice_named(batch_id)
    return [[first], [second], [second, corrected(batch_id)[0]]]


def malformed_and_accepted_under_the_same_id(batch_id: UUID) -> Story:
    event = upstream(batch_id, [0], part=1, parts=1, total=1)
    return one_by_one(malformed(event), written_again(event))


def malformed_and_accepted_with_the_same_id_and_time(batch_id: UUID) -> Story:
    event = upstream(batch_id, [0], part=1, parts=1, total=1)
    return one_by_one(malformed(event), event)


# With what a replay says when the batch is lost before its first result. Before, and with its results, it says nothing.
ACCEPTED = [
    Told(refused_and_corrected, Says.DIFFERENCE),
    Told(refused_in_one_micro_batch_and_corrected, Says.DIFFERENCE),
    Told(half_corrected_and_then_whole, Says.DIFFERENCE),
    Told(refused_twice_and_corrected, Says.DIFFERENCE),
    Told(refused_twice_and_sent_with_another_total, Says.DIFFERENCE),
    Told(refused_between_its_parts, Says.DIFFERENCE),
    Told(refused_and_cut_otherwise, Says.NOT_COVERED),
    Told(refused_and_sent_with_other_positions, Says.NOT_COVERED),
    Told(given_up_and_sent_again, Says.NOT_COVERED),
    Told(given_up_and_sent_again_under_the_same_ids, Says.NOT_COVERED),
    Told(refused_and_accepted_under_the_same_id, Says.DIFFERENCE),
    Told(refused_with_its_last_part_and_corrected_under_the_same_ids, Says.DIFFERENCE),
    Told(refused_and_written_again_with_a_correction, Says.DIFFERENCE),
    Told(refused_and_written_twice_at_that_time_with_a_correction, Says.NOT_COVERED),
    Told(malformed_and_accepted_under_the_same_id, Says.DIFFERENCE),
    Told(malformed_and_accepted_with_the_same_id_and_time, Says.NOT_COVERED),
]


def tell(pipeline: RecordingPipeline, owner: Engine, batch_id: UUID, story: Story) -> None:
    sweeper = Sweeper(SweepPolicy(timedelta(), timedelta(), 1, timedelta(), bulk_threshold_items=100), lambda _: {})
    for step in story:
        if step is Happens.LOST:
            lose(owner, batch_id)
        elif step is Happens.GIVEN_UP:
            sweep(sweeper, pipeline.engine)
        else:
            pipeline.queues[Topic.BATCHES] += [event for event in step if isinstance(event, OutgoingEvent)]
        pipeline.drain()


def lose(owner: Engine, batch_id: UUID) -> None:
    """Resets the database to before the batch."""
    tables = ("orchestrator.batch", "orchestrator.batch_item", "orchestrator.batch_part", "orchestrator.outcome")
    registered = ("registration.activity", "registration.audit")
    run(owner, *(tampering(f"DELETE FROM {table} WHERE batch_id = '{batch_id}'") for table in (*tables, *registered)))


def before_results(written: Written) -> Written:
    """The submissions and the rejections, as they are on the topics before the first item of a batch has a result."""
    types = {events.BATCH_SUBMITTED.encode(), events.BATCH_REJECTED.encode()}
    return [(offset, event) for offset, event in written if dict(event.headers)["ce_type"] in types]


def says(pipeline: RecordingPipeline, written: Written) -> Says:
    """What a replay says of the only batch."""
    found = compared(pipeline.engine, written)
    if found.differences:
        return Says.DIFFERENCE
    return Says.NOT_COVERED if found.not_covered else Says.NOTHING


COUNTS = {"total_items": 2, "pending": 0, "completed": 0, "failed": 0, "cancelled": 2}
# What only an accepted or a cancelled batch has, and what a replay says if the database does not have the batch.
PROOFS: dict[str, tuple[Callable[[UUID], list[OutgoingEvent]], Says]] = {
    "nothing": (lambda b: [], Says.NOTHING),
    "a result": (
        lambda b: [ours(events.CANCELLED, b, item_id=DerivedIds(b).item_id(0), position=0, attempt=1)],
        Says.DIFFERENCE,
    ),
    "a retry": (
        lambda b: [ours(events.BATCH_RETRY_REQUESTED, b, retry_number=1, items=[{"position": 0, "attempt": 2}])],
        Says.NOT_COVERED,
    ),
    "a cancel": (lambda b: [ours(events.BATCH_CANCELLED, b, **COUNTS, cancelled_positions=[[0, 1, 1]])], Says.NOT_COVERED),
    "a completion": (lambda b: [completion(b, "completed", 2)], Says.NOT_COVERED),
    "a deletion": (lambda b: [ours(events.BATCH_DELETED, b, version=5)], Says.NOT_COVERED),
    "a revocation": (lambda b: [revocation(b, (0, 0))], Says.NOT_COVERED),
}
