"""People who were forgotten and come back with an import: their earlier records keep the pseudonym."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import (
    retry_failed_items,
)
from orchestrator.process.settings import Settings
from orchestrator.replay.promote import Promoted
from orchestrator.replay.rebuild import _result_row
from orchestrator.storage.people import ForgettingKey, ForgettingKeyError, ForgottenPeople, Replacement
from orchestrator.verification.verify import verify
from schemas.envelope import Topic, rfc3339
from schemas.ids import new_batch_id
from tests.support.forgetting import KEY, NAME, NOTE, OTHER, PERSON, ask, find, forget, forgetter, imported, named_in
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, item
from tests.support.replaying import RecordingPipeline, compared, projection, promoted, run
from tests.support.upstream import upstream


def test_an_import_says_who_was_forgotten_and_brings_nobody_back_unless_it_is_meant(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path
) -> None:
    pseudonym = forget(pipeline)
    for key in (None, ForgettingKey("x" * 32)):
        with pytest.raises(ForgettingKeyError):
            imported(pipeline, tmp_path, key=key)
    report = imported(pipeline, tmp_path, key=KEY)
    assert [(each.organization_id, each.id) for each in report.forgotten] == [(ORGANIZATION, PERSON)]
    assert report.changes["mentors.csv"].added == 1
    assert named_in(owner, PERSON, NAME) == set()
    again = imported(pipeline, tmp_path, key=KEY, again=True)
    assert (again.forgotten, again.changes["mentors.csv"].added) == ((), 1)
    assert named_in(owner, PERSON, NAME) == {"registration.mentor"}
    assert imported(pipeline, tmp_path, key=None).forgotten == ()
    assert forget(pipeline) != pseudonym, "it is a new person"


def test_who_is_not_in_the_import_stays_forgotten(pipeline: RecordingPipeline, owner: Engine, tmp_path: Path) -> None:
    forget(pipeline)
    forget(pipeline, OTHER)
    imported(pipeline, tmp_path, key=KEY, again=True)
    report = imported(pipeline, tmp_path, mentors=[PERSON, OTHER], key=KEY)
    assert [(each.organization_id, each.id) for each in report.forgotten] == [(ORGANIZATION, OTHER)]
    assert named_in(owner, OTHER) == set()


def test_an_import_brings_neither_a_forgotten_coordinator_back_nor_their_scope(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path
) -> None:
    forget(pipeline)
    (tmp_path / "coordinators.csv").write_text(
        "organization_id,coordinator_id,name,role\n"
        f"{ORGANIZATION},{PERSON},{NAME},coordinator\n{ORGANIZATION},coord-new,New,coordinator\n"
    )
    (tmp_path / "scopes.csv").write_text(
        f"organization_id,coordinator_id,chapter_id\n{ORGANIZATION},{PERSON},chapter-1\n{ORGANIZATION},coord-new,chapter-1\n"
    )
    report = imported(pipeline, tmp_path, key=KEY)
    assert [(each.organization_id, each.id) for each in report.forgotten] == [(ORGANIZATION, PERSON)]
    assert (report.changes["coordinators.csv"].added, report.changes["scopes.csv"].added) == (1, 1)
    assert named_in(owner, PERSON, NAME) == set()


def test_nobody_is_readmitted_while_being_forgotten(pipeline: RecordingPipeline, owner: Engine, tmp_path: Path) -> None:
    pipeline.submit([item(PERSON, notes=NOTE)], label=f"for {PERSON} and {NAME}")
    pipeline.drain()
    asked = ask(pipeline)
    forgetter().work(pipeline.engine, most_s=0)
    assert find(pipeline, asked).pseudonym is not None, "the request has begun"
    report = imported(pipeline, tmp_path, key=KEY, again=True)
    assert [(each.organization_id, each.id) for each in report.being_forgotten] == [(ORGANIZATION, PERSON)]
    assert (report.forgotten, report.changes["mentors.csv"].added) == ((), 1)
    # The next import leaves the person out, too.
    report = imported(pipeline, tmp_path, key=KEY)
    assert [(each.organization_id, each.id) for each in report.forgotten] == [(ORGANIZATION, PERSON)]
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    again = imported(pipeline, tmp_path, key=KEY, again=True)
    assert (again.being_forgotten, again.changes["mentors.csv"].added) == ([], 1)


def test_a_namesake_who_is_readmitted_takes_no_name_from_the_search(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path
) -> None:
    """The hash of a name that two people have is stored once."""
    with owner.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET name = :name WHERE mentor_id = :id"), {"name": NAME, "id": OTHER})
    pipeline.submit([item(PERSON)], label=f"with {NAME}")
    pipeline.drain()
    forget(pipeline, OTHER)
    asked = ask(pipeline)
    pipeline.submit([item("nobody")], label=f"not {NAME}")
    pipeline.drain()
    forgetter().work(pipeline.engine, most_s=0)
    imported(pipeline, tmp_path, mentors=[OTHER], key=KEY, again=True)
    assert forgetter().work(pipeline.engine).people == 1
    done = find(pipeline, asked)
    with owner.connect() as connection:
        labels = connection.execute(text("SELECT label FROM orchestrator.batch")).scalars().all()
    assert f"not {done.pseudonym}" in labels
    assert named_in(owner, PERSON, NAME) == set()


LOST = "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history"


def labels(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT label FROM orchestrator.batch ORDER BY submitted_at, batch_id")).scalars())


@pytest.mark.parametrize("swept_by", ["this version", "the version before"])
def test_a_replay_keeps_the_pseudonym_in_the_records_from_before_a_readmission(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, tmp_path: Path, swept_by: str
) -> None:
    pipeline.submit([item(PERSON), item(PERSON, kind="unknown", day=DAY - timedelta(days=1))], label=f"{PERSON}, {NAME}")
    pipeline.drain()
    first = forget(pipeline)
    if swept_by == "the version before":
        run(owner, "DELETE FROM registration.replaced_word")
    # What names the person afterwards keeps the id in the tables: nobody has asked to forget that.
    between = pipeline.submit([item(PERSON, day=DAY - timedelta(days=2))], label=f"between, {PERSON}")
    pipeline.drain()
    imported(pipeline, tmp_path, key=KEY, again=True)
    pipeline.call(retry_failed_items, ADMIN, between, RetryRequest())
    pipeline.submit([item(PERSON, day=DAY - timedelta(days=3))], label=f"anew, {NAME}")
    pipeline.drain()
    told = [f"{first}, {first}", f"between, {PERSON}", f"anew, {NAME}"]

    def is_rebuilt() -> None:
        assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
        mentors_before = projected_mentors(owner)
        run(owner, LOST)
        verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
        assert (set(verdicts.values()), after.differences) == ({Promoted.MERGED}, [])
        assert (labels(owner), projected_mentors(owner)) == (told, mentors_before)
        assert verify(pipeline.engine, settings).breaches == []

    is_rebuilt()
    assert [mentor_id for mentor_id, _ in projected_mentors(owner)] == [first, first, PERSON, PERSON]
    second = forget(pipeline)
    told[1:] = [f"between, {second}", f"anew, {second}"]
    is_rebuilt()
    imported(pipeline, tmp_path, key=KEY, again=True)
    is_rebuilt()
    assert named_in(owner, PERSON, NAME) == {"registration.mentor"}


def projected_mentors(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT mentor_id, status FROM orchestrator.batch_item ORDER BY item_id")).all()
        return [(row.mentor_id, row.status) for row in rows]


def test_a_readmitted_namesake_takes_no_name_from_a_replay(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, tmp_path: Path
) -> None:
    with owner.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET name = :name WHERE mentor_id = :id"), {"name": NAME, "id": OTHER})
    pipeline.submit([item(PERSON)], label=f"with {NAME}")
    pipeline.drain()
    first = forget(pipeline, OTHER)
    pipeline.submit([item(PERSON, day=DAY - timedelta(days=1))], label=f"not {NAME}")
    pipeline.drain()
    second = forget(pipeline)
    told = [f"with {first}", f"not {second}"]
    assert labels(owner) == told
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    imported(pipeline, tmp_path, mentors=[OTHER], key=KEY, again=True)
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    run(owner, LOST)
    verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
    assert (set(verdicts.values()), after.differences, labels(owner)) == ({Promoted.MERGED}, [], told)
    assert named_in(owner, PERSON, NAME) == set()


NOON = datetime(2026, 3, 25, 12, tzinfo=UTC)


def test_a_word_becomes_the_pseudonym_of_the_first_request_that_was_done_after_it_was_written() -> None:
    times = [NOON + timedelta(hours=hour) for hour in range(4)]
    word = KEY.words("org", "m-1", None)
    replacements = [
        Replacement("org", each, pseudonym, before)
        for each in word
        for pseudonym, before in (("still", None), ("second", times[3]), ("first", times[1]))
    ]
    people = ForgottenPeople(KEY, replacements)
    then = [people.at(time).value("org", {"mentor_id": "m-1", "notes": "m-1"}) for time in times]
    assert [each["mentor_id"] for each in then] == ["first", "second", "second", "still"]
    assert then == [{"mentor_id": each["mentor_id"], "notes": each["mentor_id"]} for each in then]
    readmitted = ForgottenPeople(KEY, replacements[2::3])
    assert [readmitted.at(time).id("org", "m-1") for time in times] == ["first", "m-1", "m-1", "m-1"]
    assert (people.id("org", "m-1"), readmitted.id("org", "m-1")) == ("still", "m-1")


def test_a_result_is_as_old_as_its_record() -> None:
    """The message of a failed item may come from an external service."""
    people = ForgottenPeople(KEY, [Replacement(ORGANIZATION, word, "P", NOON) for word in KEY.words(ORGANIZATION, "m-1", None)])
    data = {
        "batch_id": str(uuid4()),
        "position": 0,
        "attempt": 1,
        "organization_id": ORGANIZATION,
        "error": {"message": "m-1 left"},
    }
    done_ms = round(NOON.timestamp() * 1000)
    before, after = (_result_row(orjson.dumps(data), done_ms + more, people) for more in (-1, 0))
    assert ('"P left"' in (before or ""), '"m-1 left"' in (after or "")) == (True, True)


def test_an_event_whose_time_has_no_zone_has_the_time_of_its_record(pipeline: RecordingPipeline) -> None:
    """Anybody who may write to the topic can write that."""
    pipeline.submit([item(PERSON)])
    pipeline.drain()
    forget(pipeline)
    naive = b"2026-03-25T09:00:00"
    altered = [
        (offset, event._replace(headers=tuple((name, naive if name == "ce_time" else value) for name, value in event.headers)))
        for offset, event in pipeline.written
    ]
    assert compared(pipeline.engine, altered, key=KEY).differences == []


@pytest.mark.parametrize("lost", ["nothing", "the batch", "the parts", "all but the outcome"])
def test_a_promotion_brings_no_id_back_from_an_event_that_was_written_again(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path, lost: str
) -> None:
    """The first record of the event has expired."""
    batch_id = new_batch_id()
    named = {"mentor_id": PERSON, "activity_type": "unknown", "activity_date": DAY, "duration_minutes": 30, "position": 0}
    event = upstream(batch_id, [0], part=1, parts=1, total=1, items=[named], label=f"with {PERSON}")
    pipeline.queues[Topic.BATCHES].append(event)
    pipeline.drain()
    first = forget(pipeline)
    imported(pipeline, tmp_path, key=KEY, again=True)
    now = rfc3339(datetime.now(UTC) + timedelta(seconds=1)).encode()
    again = event._replace(headers=tuple((name, now if name == "ce_time" else value) for name, value in event.headers))
    later = [(offset, again if each == event else each) for offset, each in pipeline.written]
    tables = {
        "nothing": (),
        "the batch": ("batch",),
        "the parts": ("batch_part",),
        "all but the outcome": ("batch", "batch_part", "batch_item"),
    }
    run(owner, *(f"DELETE FROM orchestrator.{table}" for table in tables[lost]))
    before = projection(owner)
    verdicts, _ = promoted(pipeline.engine, later, key=KEY)
    assert (verdicts, projection(owner)) == ({batch_id: Promoted.REPEATED}, before)
    verdicts, after = promoted(pipeline.engine, [*pipeline.written, (len(later), again)], key=KEY)
    assert (set(verdicts.values()) <= {Promoted.MERGED}, after.differences) == (True, [])
    assert (labels(owner), projected_mentors(owner)) == ([f"with {first}"], [(first, "failed")])
