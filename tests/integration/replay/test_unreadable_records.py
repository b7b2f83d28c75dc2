"""A replay counts the records that it can't read, and nothing else comes of them."""

import random

import pytest
from sqlalchemy import Engine

from orchestrator.storage.people import ForgettingKey, remember_forgotten
from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import new_batch_id
from tests.support.forged import ours
from tests.support.pipeline import ORGANIZATION
from tests.support.replaying import EXAMPLES, RecordingPipeline, replayed, small

POISON = [
    b"",
    b"\xff",
    b"[]",
    b'"x"',
    b"{}",
    b'{"batch_id": "0", "position": 0, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": true, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": 0.5, "attempt": 1}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 0}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 9999999999}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "error": "text"}',
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "error": {"code": "\\u0000"}}',
    b'{"batch_id": "BATCH", "organization_id": "o", "position": 0, "attempt": 2, "error": {"code": '
    + b"[" * 300
    + b"]" * 300
    + b"}}",
    b'{"batch_id": "BATCH", "organization_id": "o", "position": 0, "attempt": 2, "error": ' + b'{"a":' * 400 + b"1" + b"}" * 401,
    b'{"batch_id": "BATCH", "position": 0, "attempt": 2, "activity_id": "x\\n\\\\.\\n"}',
    b'{"batch_id": "BATCH\\t0\\t1\\tcancelled\\t\\\\N\\t\\\\N\\n", "position": 0, "attempt": 2}',
]


@pytest.mark.parametrize("is_somebody_forgotten", [False, True])
def test_unreadable_records_are_only_counted(pipeline: RecordingPipeline, owner: Engine, is_somebody_forgotten: bool) -> None:
    key = ForgettingKey("a key of 32 characters or of more")
    if is_somebody_forgotten:
        with owner.begin() as connection:
            remember_forgotten(connection, key, ORGANIZATION, key.words(ORGANIZATION, "somebody", None), "a pseudonym")
    batches = small(pipeline)
    poison = [value.replace(b"BATCH", str(batches["completed"]).encode()) for value in POISON]
    good = pipeline.written
    bad: list[OutgoingEvent] = [OutgoingEvent(Topic.RESULTS, "", (), value) for value in poison]
    bad += [OutgoingEvent(Topic.BATCHES, "", good[0][1].headers, value) for value in poison]
    bad += [
        ours(
            events.BATCH_RETRY_REQUESTED,
            batches["completed"],
            retry_number=1,
            items=[{"position": 0, "attempt": 2, "correction": change}],
        )
        for change in ({"activity_date": "soon"}, {"duration_minutes": 2**40}, {"override_duplicates": "x"}, {"mentor_id": "\0"})
    ]
    bad.append(ours(events.BATCH_RETRY_REQUESTED, batches["completed"], retry_number=1, items=[{"position": 0, "attempt": 1}]))
    bad.append(ours("no.such.type", batches["completed"]))
    for event in (
        ours(
            events.BATCH_RETRY_REQUESTED,
            batches["completed"],
            retry_number=1,
            retried_by="NAME",
            items=[{"position": 0, "attempt": 2}],
        ),
        ours(
            events.ACTIVITIES_REVOKED,
            batches["completed"],
            revocation=2,
            reason="x",
            revoked_by="NAME",
            revoked_at="",
            revoked_positions=[[0, 0]],
        ),
    ):
        bad += [event._replace(value=event.value.replace(b"NAME", name)) for name in (b"\\ud800", b"\\u0000")]
    mixed = [*good, *((100_000 + offset, event) for offset, event in enumerate(bad))]
    random.Random(3).shuffle(mixed)
    with replayed(pipeline.engine, mixed, key=key) as (replay, _):
        assert replay.compare(examples=EXAMPLES).differences == []
        assert replay.unreadable == len(bad)


def test_an_error_is_read_with_as_many_levels_as_are_written(pipeline: RecordingPipeline, owner: Engine) -> None:
    key = ForgettingKey("a key of 32 characters or of more")
    with owner.begin() as connection:
        remember_forgotten(connection, key, ORGANIZATION, key.words(ORGANIZATION, "somebody", None), "a pseudonym")
    deep = b'{"batch_id": "%s", "organization_id": "o", "position": 0, "attempt": 2, "error": %s1%s}' % (
        str(new_batch_id()).encode(),
        b'{"a":' * 254,
        b"}" * 254,
    )
    with replayed(pipeline.engine, [(0, OutgoingEvent(Topic.RESULTS, "", (), deep))], key=key) as (replay, _):
        assert replay.unreadable == 0
