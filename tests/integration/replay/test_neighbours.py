"""What a replay says of a batch and restores of it depends on its own records and rows, whatever batches and organizations are beside it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import cancel_batch, relabel_batch, retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import Comparison, Replay
from orchestrator.verification.verify import verify
from schemas import events
from schemas.envelope import OutgoingEvent, Topic, rfc3339
from schemas.ids import DerivedIds, new_batch_id
from tests.support.forged import at, ours, whole
from tests.support.forgetting import KEY
from tests.support.pipeline import ADMIN, ORGANIZATION, item, mentors
from tests.support.refusals import ACCEPTED, NOT_ACCEPTED, Happens, Says, Told, half_corrected, lose, tell
from tests.support.replaying import (
    EXAMPLES,
    RecordingPipeline,
    Written,
    compared,
    everything,
    projection,
    promoted,
    replayed,
    run,
    versions,
    written_at_ms,
)
from tests.support.revoking import revoke
from tests.support.upstream import upstream


def without_results_of(batch_ids: Mapping[UUID, object], written: Written) -> Written:
    """The topics as they were before the first items of these batches had results."""
    names = [str(batch_id).encode() for batch_id in batch_ids]
    early = {events.BATCH_SUBMITTED.encode(), events.BATCH_REJECTED.encode()}

    def is_early(event: OutgoingEvent) -> bool:
        return dict(event.headers)["ce_type"] in early or not any(name in event.value for name in names)

    return [each for each in written if is_early(each[1])]


def told_of(batch_ids: Mapping[UUID, Told], found: Comparison) -> dict[UUID, Says]:
    """What a replay says of each of these batches."""
    return {
        batch_id: Says.DIFFERENCE
        if batch_id in found.different_batches
        else Says.NOT_COVERED
        if batch_id in found.not_covered
        else Says.NOTHING
        for batch_id in batch_ids
    }


def revoked_and_stopped(pipeline: RecordingPipeline) -> dict[str, UUID]:
    """A batch of which an item was revoked, and one that was cancelled in the second attempt of an item."""
    pipeline.drain()
    revoked, stopped = pipeline.submit(mentors(2, first=80)), pipeline.submit([item("nobody"), *mentors(1, first=90)])
    pipeline.drain()
    revoke(pipeline, revoked, item_ids=[DerivedIds(revoked).item_id(1)])
    pipeline.call(retry_failed_items, ADMIN, stopped, RetryRequest())
    pipeline.relay()
    pipeline.call(cancel_batch, ADMIN, stopped, None)
    return {"revoked": revoked, "stopped in an attempt": stopped}


def test_what_a_replay_says_of_each_batch_is_the_same_beside_all_others(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """All stories of refused and accepted batches at once, and one batch for each other thing that can happen."""
    # A story in which waiting batches are given up would end the one that waits at last.
    stories = sorted(
        (*NOT_ACCEPTED, *ACCEPTED), key=lambda each: (each.story is half_corrected, Happens.GIVEN_UP not in each.story(uuid4()))
    )
    told = {new_batch_id(): each for each in stories}
    for batch_id, each in told.items():
        tell(pipeline, owner, batch_id, each.story(batch_id))
    others = everything(pipeline) | revoked_and_stopped(pipeline)
    pipeline.drain()
    accepted = {batch_id: each for batch_id, each in told.items() if each in ACCEPTED}
    refused = {batch_id: each for batch_id, each in told.items() if each in NOT_ACCEPTED}
    written = without_results_of(refused, pipeline.written)
    found = compared(pipeline.engine, written)
    expected = {batch_id: each.says if batch_id in refused else Says.NOTHING for batch_id, each in told.items()}
    assert told_of(told, found) == expected
    assert set(found.different_batches) | set(found.not_covered) <= told.keys()
    assert found.in_motion == []

    before, versions_before = projection(owner, with_notes=False), versions(owner)
    lost = [*accepted, *(batch_id for name, batch_id in others.items() if name != "rejected")]
    ids = ", ".join(f"'{batch_id}'" for batch_id in lost)
    run(owner, *(f"DELETE FROM orchestrator.{table} WHERE batch_id IN ({ids})" for table in ("batch", "batch_item")))
    verdicts, after = promoted(pipeline.engine, written)
    assert {batch_id: verdicts[batch_id] for batch_id in lost} == dict.fromkeys(lost, Promoted.MERGED)
    assert told_of(told, after) == expected
    assert projection(owner, with_notes=False) == before
    assert {batch: version for batch, version in versions(owner).items() if version < versions_before[batch]} == {}
    assert verify(pipeline.engine, settings).breaches == []

    for batch_id in accepted:
        lose(owner, batch_id)
    found = compared(pipeline.engine, without_results_of(told, pipeline.written))
    assert told_of(told, found) == {batch_id: each.says for batch_id, each in told.items()}
    assert set(found.different_batches) | set(found.not_covered) <= told.keys()


def test_a_batch_in_parts_was_submitted_with_its_last_part(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Whichever came first. Its trace is that of its first part."""
    batch_id = new_batch_id()
    parts = [upstream(batch_id, range(2 * n, 2 * n + 2), part=n + 1, parts=3, total=6) for n in range(3)]
    traced = [
        event._replace(headers=(*event.headers, ("traceparent", f"00-{str(n) * 32}-{'1' * 16}-00".encode())))
        for n, event in enumerate(parts, start=1)
    ]
    for event in (traced[1], traced[2], traced[0]):
        pipeline.queues[Topic.BATCHES].append(event)
        pipeline.drain()

    run(owner, "TRUNCATE orchestrator.batch")
    assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
    last = max(dict(event.headers)["ce_time"] for event in parts).decode()
    assert pipeline.status(batch_id).batch.submitted_at == datetime.fromisoformat(last)
    with owner.connect() as connection:
        assert connection.execute(text("SELECT trace_id FROM orchestrator.batch")).scalar_one() == "1" * 32


def test_a_cancelled_batch_was_cancelled_by_whoever_did_it(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Others have edited it before and afterwards, and one has revoked the item that was registered."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:1])
    first, last = (replace(ADMIN, subject=subject) for subject in ("a-first", "z-last"))
    pipeline.call(relabel_batch, first, batch_id, "a label")
    pipeline.call(cancel_batch, ADMIN, batch_id, "a reason")
    pipeline.call(relabel_batch, last, batch_id, "another")
    pipeline.drain()
    revoke(pipeline, batch_id, actor=first, item_ids=[DerivedIds(batch_id).item_id(0)], reason="a first reason")
    pipeline.drain()
    before = projection(owner)
    run(owner, "TRUNCATE orchestrator.batch")
    without = [(n, event) for n, event in pipeline.written if dict(event.headers)["ce_type"] != events.BATCH_CANCELLED.encode()]
    promoted(pipeline.engine, without)
    assert projection(owner) == before


def test_the_progress_of_other_consumers_and_partitions_puts_no_batch_in_motion(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    batch_id = pipeline.submit(mentors(2))
    lost = pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    behind = len(pipeline.written)
    places = [(topic, partition) for topic in ("batches", "results", "lifecycle", "commands") for partition in (0, 1)]
    run(
        owner,
        *(
            f"INSERT INTO orchestrator.consumer_progress VALUES ('{topic}', {partition},"
            f" {behind if (topic, partition) in (('batches', 0), ('results', 0)) else 0}, now())"
            for topic, partition in places
        ),
        "UPDATE orchestrator.batch SET label = 'x'",
    )
    lose(owner, lost)
    found = compared(pipeline.engine, pipeline.written)
    assert (set(found.different_batches), found.in_motion) == ({batch_id, lost}, [])
    only_results = [each for each in pipeline.written if each[1].topic is Topic.RESULTS]
    assert compared(pipeline.engine, only_results).different_batches == [lost]
    # The splitter has not reached the lost batch.
    run(owner, "UPDATE orchestrator.consumer_progress SET next_offset = 0 WHERE (topic, partition) = ('batches', 0)")
    assert compared(pipeline.engine, pipeline.written).in_motion == [lost]


def place(written: Written, event_type: str, batch_id: UUID) -> int:
    """The first offset of an event of this type about a batch."""
    about, kind = str(batch_id).encode(), event_type.encode()
    return next(n for n, event in written if about in event.value and dict(event.headers)["ce_type"] == kind)


def note_progress(owner: Engine, next_offsets: Mapping[tuple[str, int], int]) -> None:
    rows = (f"('{topic}', {partition}, {n}, now())" for (topic, partition), n in next_offsets.items())
    run(owner, "TRUNCATE orchestrator.consumer_progress", f"INSERT INTO orchestrator.consumer_progress VALUES {', '.join(rows)}")


def test_a_lost_batch_is_in_motion_until_the_splitter_has_passed_its_own_events(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """Not those of another batch, nor those with another label under its id."""
    lost, other = pipeline.submit(mentors(2)), pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    lose(owner, lost)
    written = [*pipeline.written, (100_000, whole(lost, 1, 2, label="another"))]
    own, of_other = (place(written, events.BATCH_SUBMITTED, each) for each in (lost, other))
    assert own < of_other
    for behind, in_motion, by_field in ((own, [lost], {}), (own + 1, [], {"batch": 1, "item": 2})):
        note_progress(owner, {("batches", 0): behind})
        found = compared(pipeline.engine, written)
        assert (found.in_motion, found.by_field) == (in_motion, by_field)


def test_a_batch_of_which_only_results_were_read_is_lost_if_the_aggregator_has_passed_them(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """Whatever has been read of other batches, and however far it has come in other partitions."""
    lost = pipeline.submit(mentors(2))
    pipeline.drain()
    pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    lose(owner, lost)
    without = [each for each in pipeline.written if each[0] != place(pipeline.written, events.BATCH_SUBMITTED, lost)]
    first = place(without, events.SUCCEEDED, lost)
    for behind, different in ((first, []), (first + 1, [lost])):
        note_progress(owner, {("results", 0): behind, ("results", 1): 100_000, ("batches", 0): 100_000})
        assert compared(pipeline.engine, without).different_batches == different


def test_a_batch_that_came_or_went_while_the_topics_were_read_is_not_lost(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Only its results were read."""
    batch_id, elsewhere = pipeline.submit(mentors(2)), new_batch_id()
    pipeline.submit(mentors(2, first=10))
    pipeline.drain()
    results = [each for each in pipeline.written if each[1].topic is Topic.RESULTS]
    goes, comes = (
        f"UPDATE orchestrator.batch SET batch_id = '{to}' WHERE batch_id = '{of}'"
        for of, to in ((batch_id, elsewhere), (elsewhere, batch_id))
    )
    for meanwhile, different in ((goes, []), ("SELECT 1", [batch_id]), (comes, [])):
        with replayed(pipeline.engine, results) as (replay, _):
            run(owner, meanwhile)
            assert replay.compare(examples=EXAMPLES).different_batches == different


def test_a_label_of_a_batch_in_parts_counts_only_if_its_own_edit_has_it(pipeline: RecordingPipeline, owner: Engine) -> None:
    """For other batches each label is compared."""
    in_parts, other = new_batch_id(), pipeline.submit(mentors(1), label="old")
    pipeline.queues[Topic.BATCHES] += [upstream(in_parts, [n], part=n + 1, parts=2, total=2) for n in range(2)]
    pipeline.drain()
    for batch_id, labels in ((in_parts, ("first", "second")), (other, (*"abcdef", "of the other"))):
        for label in labels:
            pipeline.call(relabel_batch, ADMIN, batch_id, label)
    pipeline.drain()
    own, last = (versions(owner)[str(batch_id)] for batch_id in (in_parts, other))
    assert own < last
    for batch_id, version, label, by_field in (
        (in_parts, last, "of the other", {}),
        (in_parts, last, "first", {}),
        (other, last + 1, "first", {"label": 1}),
    ):
        event = ours(events.BATCH_RELABELLED, batch_id, version=version, label=label)
        found = compared(pipeline.engine, [*pipeline.written, (100_000, event)])
        assert (found.by_field, found.not_covered) == (by_field, []), (label, version)


def test_the_progress_of_a_group_counts_for_its_partitions_alone(pipeline: RecordingPipeline, owner: Engine) -> None:
    known = {("batches", 0): 1, ("batches", 1): 2, ("results", 0): 3}
    run(owner, *(f"INSERT INTO orchestrator.consumer_progress VALUES ('{t}', {p}, {n}, now())" for (t, p), n in known.items()))
    with pipeline.engine.connect() as connection:
        Replay(connection).note_handled({(Topic.BATCHES, 0): 5, (Topic.RESULTS, 1): 7})
        found = connection.execute(text("SELECT topic, partition, next_offset FROM replay_handled")).all()
        connection.invalidate()
    assert {(topic, partition): offset for topic, partition, offset in found} == known | {("batches", 0): 5, ("results", 1): 7}
    assert len(found) == len(known) + 1


def test_a_batch_with_a_part_beyond_their_number_is_not_rebuilt(pipeline: RecordingPipeline) -> None:
    """The part is refused, and its rejection may have expired."""
    batch_id = new_batch_id()
    parts = [upstream(batch_id, [n], part=part, parts=2, total=2) for n, part in enumerate((1, 3))]
    found = compared(pipeline.engine, list(enumerate(parts)))
    assert (found.batches, found.differences, found.not_covered) == (0, [], [batch_id])


@pytest.mark.parametrize("positions", [[0, 2], [1, 2], [0, 1, 2], [0, 0]])
def test_a_batch_whose_positions_are_not_those_of_its_items_is_not_rebuilt(
    pipeline: RecordingPipeline, positions: list[int]
) -> None:
    """It is refused, and its rejection may have expired."""
    batch_id = new_batch_id()
    found = compared(pipeline.engine, [(0, upstream(batch_id, positions, part=1, parts=1, total=2))])
    assert (found.batches, found.differences) == (0, [])


COUNTS = [("pending", "failed"), ("completed", "cancelled"), ("revoked", "total_items")]


def test_each_count_is_compared(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain()
    before = projection(owner)
    run(owner, "ALTER TABLE orchestrator.batch DROP CONSTRAINT IF EXISTS batch_counts")
    for pair in COUNTS:
        run(owner, f"UPDATE orchestrator.batch SET {', '.join(f'{name} = {name} + 1' for name in pair)}")
        assert compared(pipeline.engine, pipeline.written).by_field == dict.fromkeys(pair, 1)
        assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
        assert projection(owner) == before


def test_the_notes_of_an_item_stay_erased_after_two_attempts(pipeline: RecordingPipeline, owner: Engine) -> None:
    """A row for each attempt says that the notes of an item were erased."""
    batch_id = new_batch_id()
    event = upstream(batch_id, range(1), part=1, parts=1, total=1, first_mentor=9_000)
    pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    run(
        owner,
        "UPDATE orchestrator.batch_item SET notes = NULL",
        "UPDATE orchestrator.item_history SET submitted = jsonb_set(submitted, '{notes}', 'null')",
        *(
            "INSERT INTO registration.notes_erasure (batch_id, position, attempt, organization_id, item_id, erased_by, channel, erased_at)"
            f" SELECT batch_id, position, {attempt}, organization_id, item_id, 'x', 'api', now() FROM orchestrator.batch_item"
            for attempt in (1, 2)
        ),
    )
    before = projection(owner)["batch_item"]
    run(owner, "TRUNCATE orchestrator.batch_item, orchestrator.item_history")
    assert promoted(pipeline.engine, pipeline.written)[0] == {batch_id: Promoted.MERGED}
    assert projection(owner)["batch_item"] == before


# Which rows the readmission of a person leaves, and whether they are of this batch's organization.
ALIKE: dict[str, Any] = {"done": 1, "of": ORGANIZATION, "word_of": ORGANIZATION, "word": "P", "early": "batch_part"}
READMITTED: dict[str, tuple[dict[str, Any], Promoted]] = {
    "the part is older": (ALIKE, Promoted.REPEATED),
    "the row is older": (ALIKE | {"early": "batch"}, Promoted.REPEATED),
    "an outcome is older": (ALIKE | {"early": "outcome"}, Promoted.REPEATED),
    "nothing is older": (ALIKE | {"early": "nothing"}, Promoted.MERGED),
    "the rows of another batch are older": (ALIKE | {"early": "other"}, Promoted.MERGED),
    "done after the event": (ALIKE | {"done": -1}, Promoted.MERGED),
    "done before another batch": (ALIKE, Promoted.MERGED),
    "somebody of another organization": (ALIKE | {"of": "org-other", "word_of": "org-other"}, Promoted.MERGED),
    "a word of another organization": (ALIKE | {"word_of": "org-other"}, Promoted.MERGED),
    "a word of another person": (ALIKE | {"word": "Q"}, Promoted.MERGED),
    "done at the time of the event": (ALIKE | {"done": 0}, Promoted.REPEATED),
    "done when the part came": (ALIKE | {"done": 2}, Promoted.MERGED),
    "still forgotten": (ALIKE | {"forgotten": "P"}, Promoted.MERGED),
    "another person is still forgotten": (ALIKE | {"forgotten": "Q"}, Promoted.REPEATED),
    "of another organization, still forgotten": (ALIKE | {"forgotten": "P", "forgotten_of": "org-other"}, Promoted.REPEATED),
    "somebody with the same name is still forgotten": (ALIKE | {"forgotten": "P", "is_id": "false"}, Promoted.REPEATED),
}


def test_only_a_person_of_the_organization_who_was_readmitted_stops_a_promotion(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """And only if the batch is older than the forgetting, and its event was written afterwards: not one with another label."""
    batch_id, other = new_batch_id(), new_batch_id()
    parts = [
        upstream(each, [n], part=n + 1, parts=2, total=2, first_mentor=first)
        for each, first in ((batch_id, 9_000), (other, 1))
        for n in (0, 1)
    ]
    pipeline.queues[Topic.BATCHES] += parts
    pipeline.drain()
    columns = "(organization_id, hash, is_id, length, pseudonym, key_check)"
    _, submitted_at, _, later_at = (datetime.fromtimestamp(written_at_ms(part) / 1000, UTC) for part in parts)
    forged = at(whole(batch_id, 9_000, 2, label="another"), rfc3339(submitted_at + timedelta(hours=2)))
    written = [*pipeline.written, (100_000, forged)]
    for name, (given, verdict) in READMITTED.items():
        with owner.begin() as connection:
            done_at = submitted_at - timedelta(hours=given["done"])
            if name == "done before another batch":
                done_at = submitted_at + (later_at - submitted_at) / 2
            long_ago = submitted_at - timedelta(hours=2)
            for table, column in (("batch_part", "received_at"), ("batch", "submitted_at"), ("outcome", "created_at")):
                connection.execute(
                    text(f"UPDATE orchestrator.{table} SET {column} = :at"), {"at": submitted_at + timedelta(seconds=1)}
                )
                if given["early"] in (table, "other"):
                    which = other if given["early"] == "other" else batch_id
                    only = " AND position = 1" if table == "outcome" and which == batch_id else ""
                    connection.execute(
                        text(f"UPDATE orchestrator.{table} SET {column} = :at WHERE batch_id = :id{only}"),
                        {"at": long_ago, "id": which},
                    )
            for table in ("forgetting", "replaced_word", "forgotten_word"):
                connection.execute(text(f"DELETE FROM registration.{table}"))
            connection.execute(
                text(
                    "INSERT INTO registration.forgetting (forgetting_id, organization_id, pseudonym, requested_by, channel, requested_at,"
                    " done_at) VALUES (gen_random_uuid(), :of, 'P', 'x', 'api', :done, :done)"
                ),
                {"of": given["of"], "done": done_at},
            )
            words = [("replaced_word", given["word_of"], given["word"], True)]
            if "forgotten" in given:
                is_id = "is_id" not in given
                words.append(("forgotten_word", given.get("forgotten_of", ORGANIZATION), given["forgotten"], is_id))
            for table, organization, pseudonym, is_id in words:
                connection.execute(
                    text(f"INSERT INTO registration.{table} {columns} VALUES (:of, sha256('x'), :is_id, 4, :pseudonym, :check)"),
                    {"of": organization, "is_id": is_id, "pseudonym": pseudonym, "check": KEY.check},
                )
            connection.execute(
                text("UPDATE orchestrator.batch_item SET client_reference = 'x' WHERE batch_id = :id"), {"id": batch_id}
            )
        verdicts, _ = promoted(pipeline.engine, written, key=KEY)
        assert verdicts == {batch_id: verdict}, name


# What happens between the reading and a promotion, and the verdict.
WORD = "INSERT INTO registration.forgotten_word VALUES ('{}', sha256('{}'), {}, 4, '{}', '\\x00')"
BEING_FORGOTTEN = (
    "INSERT INTO registration.forgetting (forgetting_id, organization_id, mentor_id, pseudonym, requested_by, channel, requested_at)"
    " VALUES (gen_random_uuid(), '{}', 'm', {}, 'x', 'api', now())"
)
MEANWHILE = {
    "nothing": ("SELECT 1", Promoted.MERGED),
    "somebody is being forgotten": (BEING_FORGOTTEN.format(ORGANIZATION, "'P'"), Promoted.FORGETTING),
    "nobody has begun to forget somebody": (BEING_FORGOTTEN.format(ORGANIZATION, "NULL"), Promoted.MERGED),
    "somebody of another organization is being forgotten": (BEING_FORGOTTEN.format("org-other", "'P'"), Promoted.MERGED),
    "somebody was forgotten": (WORD.format(ORGANIZATION, "new", "true", "P"), Promoted.MOVED),
    "somebody of another organization was forgotten": (WORD.format("org-other", "new", "true", "P"), Promoted.MERGED),
    "somebody was readmitted": (
        f"DELETE FROM registration.forgotten_word WHERE organization_id = '{ORGANIZATION}'",
        Promoted.MOVED,
    ),
    "somebody of another organization was readmitted": (
        f"DELETE FROM registration.forgotten_word WHERE organization_id <> '{ORGANIZATION}'",
        Promoted.MERGED,
    ),
    "a word became that of another person": (
        f"UPDATE registration.forgotten_word SET pseudonym = 'R' WHERE is_id AND organization_id = '{ORGANIZATION}'",
        Promoted.MOVED,
    ),
}


def test_only_who_is_forgotten_meanwhile_in_the_organization_stops_a_promotion(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    for name, (statement, verdict) in MEANWHILE.items():
        words = [
            WORD.format(organization, "x", is_id, pseudonym)
            for organization in (ORGANIZATION, "org-other")
            for is_id, pseudonym in (("true", "P"), ("false", "Q"))
        ]
        done = (
            "INSERT INTO registration.forgetting (forgetting_id, organization_id, pseudonym, requested_by, channel, requested_at, done_at)"
            f" VALUES (gen_random_uuid(), '{ORGANIZATION}', 'P', 'x', 'api', now(), now())"
        )
        run(owner, "DELETE FROM registration.forgetting", "DELETE FROM registration.forgotten_word", done, *words)
        with owner.begin() as connection:
            connection.execute(text("UPDATE registration.forgotten_word SET key_check = :check"), {"check": KEY.check})
        run(owner, "UPDATE orchestrator.batch SET coordinator_id = 'x'")
        with replayed(pipeline.engine, pipeline.written, key=KEY) as (replay, connection):
            assert replay.compare(examples=1).different_batches == [batch_id]
            run(owner, statement)
            assert promote(connection, batch_id) is verdict, name
