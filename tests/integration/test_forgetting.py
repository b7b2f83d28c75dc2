"""Forgetting a person: name and notes are erased, and the id is replaced by a pseudonym everywhere (docs/decisions/0045-forgetting.md)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from re import _parser
from typing import Any, Literal
from unicodedata import normalize
from unittest.mock import Mock
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import Connection, Engine, text

from consumers.upkeep.observer import ProductObserver
from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.errors import ConflictError
from orchestrator.batches.model import Actor, CorrectedItem, Idempotency, NewBatch, NewItem, RetryRequest
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.directory import forgetting, known_people, person_rewriting, person_rows
from orchestrator.directory.files import read_directory
from orchestrator.directory.forgetting import BATCH_COSTS_ITEMS, Forgetter, Forgot, Limits
from orchestrator.directory.forgetting_requests import ForgettingRequests, ForgettingView
from orchestrator.directory.importing import ImportReport, import_directory
from orchestrator.directory.known_people import is_known
from orchestrator.directory.person_columns import TABLES, Holds
from orchestrator.directory.person_pages import read_page
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import Failpoint, InjectedError, failpoints
from orchestrator.process.settings import Settings
from orchestrator.replay.batch_merge import BatchMerge
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import Replay, _result_row
from orchestrator.storage import quantities
from orchestrator.storage.database import transact
from orchestrator.storage.locks import take_batches
from orchestrator.storage.people import ForgettingKey, ForgettingKeyError, ForgottenPeople, Replacement
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.verification.receipts import Tampering, audit_logs
from orchestrator.verification.verify import verify
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.integration.test_replay import RecordingPipeline, compared, promoted, replayed, run
from tests.support.closing import close
from tests.support.log_lines import logged
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, Pipeline, item, mentors, standard_directory
from tests.support.receipts import append_and_sign
from tests.support.revoking import revoke
from tests.support.upstream import submitted, upstream_item
from tests.support.webhooks import make_webhook

KEY = ForgettingKey("k" * 32)
PERSON, NAME, NOTE = "mentor-per-17", "Kåre Ødegård", "he broke his hip"
OTHER = "mentor-per-175"
"""Another person, whose id begins with the forgotten one's."""


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    standard_directory(engine)
    with engine.begin() as connection:
        for mentor_id, name in ((PERSON, NAME), (OTHER, "Somebody Else")):
            connection.execute(
                text("INSERT INTO registration.mentor VALUES (:org, :id, :name, 'chapter-1')"),
                {"org": ORGANIZATION, "id": mentor_id, "name": name},
            )
    pipeline = RecordingPipeline(settings, engine)
    yield pipeline
    pipeline.close()


OPERATOR = Actor(ORGANIZATION, "operator", ADMIN.role, channel="operator")


def ask(pipeline: Pipeline, mentor_id: str = PERSON, *, actor: Actor = ADMIN) -> ForgettingView:
    return transact(
        pipeline.api,
        lambda connection: ForgettingRequests(connection).ask(actor, mentor_id),
        organizations=[actor.organization_id],
    )


def find(pipeline: Pipeline, asked: ForgettingView) -> ForgettingView:
    return transact(
        pipeline.api,
        lambda connection: ForgettingRequests(connection).find(ADMIN, asked.forgetting_id),
        organizations=[ORGANIZATION],
    )


SMALL = Limits(page_rows=3, hits=2, items=2, sought_rows=2)


def forgetter(setting: str = "", *, limits: Limits = SMALL, key: ForgettingKey | None = KEY) -> Forgetter:
    return Forgetter(key, failpoints(setting), limits=limits)


def forget(pipeline: Pipeline, mentor_id: str = PERSON) -> str:
    """Forgets a person. Returns the pseudonym."""
    asked = ask(pipeline, mentor_id)
    assert forgetter().work(pipeline.engine).people == 1
    done = find(pipeline, asked)
    assert done.pseudonym is not None
    return done.pseudonym


def named_in(engine: Engine, *words: str) -> set[str]:
    """The tables of which a row, with all its columns as text, has one of the words."""
    found = set()
    with engine.connect() as connection:
        tables = connection.execute(
            text("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration')")
        ).scalars()
        for table in tables.all():
            rows = connection.execute(text(f"SELECT t::text, encode(CAST(t::text AS bytea), 'escape') FROM {table} t")).all()
            for row in rows:
                shown = "".join(row) + _bytes_of(row[0])
                # An id that goes on is another person's.
                if any(re.search(re.escape(word) + r"(?!\w)", shown, re.IGNORECASE) for word in words):
                    found.add(table)
    return found


def _bytes_of(row: str) -> str:
    """The bytea columns of a row as text."""
    return " ".join(bytes.fromhex(found).decode("utf-8", "replace") for found in re.findall(r"\\x([0-9a-f]+)", row))


def funding(engine: Engine) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT activity_type, activity_date, chapter_id, revoked_at IS NULL, count(*), sum(duration_minutes)"
                " FROM registration.activity GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
            )
        )
        return [tuple(row) for row in rows]


def everywhere(pipeline: RecordingPipeline) -> None:
    """Batches that name the person in every column that can, of which one is purged."""
    named = f"a visit at {NAME}'s ({PERSON.upper()})"
    values = item(PERSON, notes=NOTE).values
    batch = NewBatch(
        new_batch_id(), COORDINATOR, named, False, [NewItem(values, client_reference=f"row of {PERSON}"), item(OTHER)], "1" * 32
    )
    pipeline.call(submit_bulk_registration, ADMIN, batch, Idempotency(f"{PERSON}, today", b"hash"))
    failed = pipeline.submit(
        [item("nobody", kind="unknown", notes=f"ask {PERSON}"), item("nobody", day=DAY + timedelta(days=-1))]
    )
    pipeline.drain()
    for correction in (
        {"mentor_id": PERSON, "notes": NOTE},
        {"mentor_id": PERSON, "activity_type": "visit", "activity_date": DAY - timedelta(days=9)},
    ):
        corrected = CorrectedItem(DerivedIds(failed).item_id(0), correction)  # type: ignore[arg-type]
        pipeline.call(retry_failed_items, ADMIN, failed, RetryRequest(corrections=[corrected]))
        pipeline.drain()
    revoke(pipeline, batch.batch_id, reason=f"{PERSON} was ill", actor=ADMIN)
    pipeline.call(relabel_batch, ADMIN, failed, f"not {PERSON}, and {OTHER}")
    purged = pipeline.submit([item(PERSON, day=DAY - timedelta(days=30), notes=NOTE)])
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, purged)
    Purger(PurgePolicy(timedelta(0), timedelta(days=7))).purge(pipeline.engine)
    upstream = uuid4()
    pipeline.queues[Topic.BATCHES].append(
        submitted(
            upstream,
            [upstream_item(0, PERSON, activity_date="2026-02-03", notes=NOTE), upstream_item(1, "nobody", notes=PERSON)],
            label=NAME,
        )
    )
    pipeline.drain()
    cancelled = pipeline.submit([item(PERSON, day=DAY - timedelta(days=40), notes=NOTE)])
    pipeline.call(cancel_batch, ADMIN, cancelled, f"{NAME} asked for it")
    pipeline.drain()
    close(pipeline, DAY - timedelta(days=300), reason=f"for {PERSON}")
    with pipeline.engine.begin() as connection:
        for group, members in (("all", [PERSON, OTHER]), (PERSON, [PERSON]), (f"with {NAME}", [OTHER])):
            connection.execute(
                text(
                    "INSERT INTO orchestrator.template VALUES (:id, :org, 'coord-1', :name, :members, 'visit', 60, NULL, 1, now())"
                ),
                {"id": uuid4(), "org": ORGANIZATION, "name": group, "members": members},
            )
        connection.execute(
            text("INSERT INTO orchestrator.receipt_salt VALUES (:org, :person, sha256('salt'))"),
            {"org": ORGANIZATION, "person": PERSON},
        )
        connection.execute(
            text(
                "UPDATE orchestrator.idempotency_key SET request_hash = '', answer = jsonb_build_object('said', CAST(:person AS text))"
            ),
            {"person": PERSON},
        )
    pipeline.drain()


def test_nothing_names_the_person_and_the_funding_stays(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    everywhere(pipeline)
    before = funding(owner)
    names_people = {
        name
        for name, table in TABLES.items()
        if any(holds not in (Holds.NOTHING, Holds.REQUEST, Holds.EVENT) for holds in table.columns.values())
    }
    unnamed = {
        "orchestrator.batch_dismissal", "orchestrator.dispatch", "orchestrator.revocation_request", "orchestrator.batch_part",
        "registration.coordinator", "registration.coordinator_scope", "orchestrator.console_session", "registration.notes_erasure",
        "registration.forgetting", "orchestrator.outcome", "orchestrator.receipt_log", "orchestrator.webhook", "orchestrator.webhook_delivery",
        "orchestrator.webhook_change",
    }  # fmt: skip
    assert named_in(owner, PERSON, NAME, NOTE) == names_people - unnamed
    pseudonym = forget(pipeline)
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert funding(owner) == before
    assert verify(pipeline.engine, settings).breaches == []
    assert {"registration.activity", "registration.audit", "orchestrator.batch_item"} <= named_in(owner, pseudonym)
    with owner.connect() as connection:
        labels = (
            connection.execute(text("SELECT label FROM orchestrator.batch WHERE label IS NOT NULL ORDER BY 1")).scalars().all()
        )
        groups = connection.execute(text("SELECT mentor_ids FROM orchestrator.template ORDER BY name")).scalars().all()
    assert labels == [f"a visit at {pseudonym}'s ({pseudonym})", pseudonym, f"not {pseudonym}, and {OTHER}"]
    assert groups == [[OTHER], [OTHER]]


def test_a_replay_brings_nobody_back_and_reports_no_difference(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    everywhere(pipeline)
    forget(pipeline)
    with pipeline.engine.connect() as connection:
        with pytest.raises(ForgettingKeyError):
            Replay(connection)
        connection.invalidate()
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    run(owner, "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history")
    verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
    assert (set(verdicts.values()), after.differences) == ({Promoted.MERGED}, [])
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert verify(pipeline.engine, settings).breaches == []


def test_nothing_is_promoted_while_somebody_is_being_forgotten(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    """The replay knows the person by the pseudonym. If it wrote that, the search would not find the person's notes."""
    batch_id = pipeline.submit([item(PERSON, kind="unknown", notes=NOTE)])
    pipeline.drain()
    ask(pipeline)
    forgetter().work(pipeline.engine, most_s=0)
    verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
    assert (verdicts, len(after.differences)) == ({batch_id: Promoted.FORGETTING}, 1)
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []


def test_a_promotion_brings_nobody_back_who_was_forgotten_since_the_replay_began(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = pipeline.submit([item(PERSON, kind="unknown", notes=NOTE)])
    pipeline.drain()
    run(owner, "UPDATE orchestrator.batch_item SET activity_type = 'phone'")
    with replayed(pipeline.engine, pipeline.written) as (replay, connection):
        assert replay.compare(examples=9).different_batches == [batch_id]
        forget(pipeline)
        assert promote(connection, batch_id) is Promoted.MOVED
    assert named_in(owner, PERSON, NAME, NOTE) == set()

    lock, others_may_forget = BatchMerge.lock, []

    def noted(merge: BatchMerge) -> Any:
        with owner.begin() as other:
            others_may_forget.append(other.scalar(text("SELECT pg_try_advisory_xact_lock(0x64697265, 1)")))
        return lock(merge)

    monkeypatch.setattr(BatchMerge, "lock", noted)
    verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
    assert (verdicts, after.differences) == ({batch_id: Promoted.MERGED}, [])
    assert others_may_forget == [False]
    assert named_in(owner, PERSON, NAME, NOTE) == set()


@pytest.mark.parametrize("at", [1, 2, 3, 9, 20, 40])
def test_a_forgetting_that_is_killed_is_continued(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, at: int
) -> None:
    everywhere(pipeline)
    before = funding(owner)
    asked = ask(pipeline)
    with pytest.raises(InjectedError):
        forgetter(f"{Failpoint.FORGETTING_AFTER_PAGE}=raise@{at}").work(pipeline.engine)
    assert verify(pipeline.engine, settings).breaches == [], "the rows of a batch change together"
    assert find(pipeline, asked).done_at is None
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert funding(owner) == before
    assert forgetter().work(pipeline.engine) == Forgot()


def test_the_audit_of_receipts_is_green_while_and_after_somebody_is_forgotten(pipeline: RecordingPipeline, owner: Engine) -> None:
    everywhere(pipeline)
    append_and_sign(pipeline.engine)
    ask(pipeline)
    # The second step has rewritten the audit, and the salt still exists.
    with pytest.raises(InjectedError):
        forgetter(f"{Failpoint.FORGETTING_AFTER_PAGE}=raise@3").work(pipeline.engine)
    assert audit_logs(pipeline.engine, [])[1] == []
    assert forgetter().work(pipeline.engine).people == 1
    leaves, findings = audit_logs(pipeline.engine, [])
    assert (leaves > 0, findings) == (True, [])
    # What was done behind the product's back is still found: a record of the forgotten person becomes somebody else's.
    run(owner, f"UPDATE registration.activity SET attributed_to = '{OTHER}' WHERE attributed_to LIKE 'forgotten-%'")
    assert {each.kind for each in audit_logs(pipeline.engine, [])[1]} == {Tampering.ACTIVITY_CHANGED}


def test_forgetting_again_keeps_the_pseudonym_and_finds_what_came_later(pipeline: RecordingPipeline, owner: Engine) -> None:
    pipeline.submit([item(PERSON, notes=NOTE)])
    pipeline.drain()
    pseudonym = forget(pipeline)
    later = pipeline.submit([item(PERSON)])
    pipeline.drain()
    assert [view.error.code for view in pipeline.status(later).items if view.error] == ["mentor_not_found"]
    assert named_in(owner, PERSON) != set()
    assert forget(pipeline) == pseudonym
    assert named_in(owner, PERSON) == set()


def test_an_id_that_is_a_number_is_not_replaced_in_dates_ids_and_counts(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings
) -> None:
    year = str(DAY.year)
    with owner.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.mentor VALUES (:org, :id, :name, 'chapter-1')"),
            {"org": ORGANIZATION, "id": year, "name": NAME},
        )
    batch_id = pipeline.submit([item(year), item("nobody", notes=f"ask {year}")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    pipeline.drain()
    told = {"batch_id": f"0190f0c2-7a3b-{year}-8f2e-6d3c1a1f7a10", "completed": DAY.year, "completed_at": f"{DAY}T10:00:00Z"}
    bodies = [
        {"type": "BatchCompleted", "timestamp": f"{DAY}T10:00:00Z", "data": {**told, **more}}
        for more in ({}, {"revoked_by": year})
    ]
    with owner.begin() as connection:
        for body in bodies:
            connection.execute(
                text(
                    "INSERT INTO orchestrator.webhook_delivery (webhook_id, event_id, organization_id, event_type, body)"
                    " VALUES (gen_random_uuid(), gen_random_uuid(), :org, 'BatchCompleted', :body)"
                ),
                {"org": ORGANIZATION, "body": orjson.dumps(body).decode()},
            )
    pseudonym = forget(pipeline, year)
    with owner.connect() as connection:
        [submitted_before] = connection.execute(text("SELECT submitted FROM orchestrator.item_history")).scalars()
        now = connection.execute(text("SELECT body FROM orchestrator.webhook_delivery ORDER BY length(body)")).scalars().all()
    assert (submitted_before["activity_date"], submitted_before["notes"]) == (DAY.isoformat(), f"ask {pseudonym}")
    bodies[1]["data"]["revoked_by"] = pseudonym  # type: ignore[index]
    assert [orjson.loads(body) for body in now] == bodies
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_however_its_letters_are_composed(
    pipeline: RecordingPipeline, owner: Engine, form: Literal["NFC", "NFD"]
) -> None:
    composed, decomposed = normalize("NFC", NAME), normalize("NFD", NAME)
    batch_id = pipeline.submit([item("mentor-1")])
    pipeline.drain()
    with owner.begin() as connection:
        names = {"name": normalize(form, NAME), "id": PERSON, "label": f"{composed}, {decomposed.upper()}", "batch_id": batch_id}
        connection.execute(text("UPDATE registration.mentor SET name = :name WHERE mentor_id = :id"), names)
        connection.execute(text("UPDATE orchestrator.batch SET label = :label WHERE batch_id = :batch_id"), names)
    pseudonym = forget(pipeline)
    assert named_in(owner, composed, decomposed) == set()
    with owner.connect() as connection:
        label = connection.scalar(text("SELECT label FROM orchestrator.batch WHERE batch_id = :id"), {"id": batch_id})
    assert label == f"{pseudonym}, {pseudonym}"


def test_an_id_of_any_characters_is_found_in_texts_as_it_is_written(pipeline: RecordingPipeline, owner: Engine) -> None:
    odd = ["a.b(c", "***=x|y", r"back\slash", "[a-z]{2}", "m 1#", "$^", 'quoted"id', "ÆØ.1"]
    for number, mentor_id in enumerate(odd):
        pipeline.submit([item(mentor_id), item(OTHER, day=DAY - timedelta(days=number), notes=f"not {mentor_id}, aXb")])
    pipeline.drain()
    with owner.connect() as connection:
        of_others = text("SELECT notes FROM orchestrator.batch_item WHERE mentor_id = :id ORDER BY activity_date DESC")
        for mentor_id in odd:
            ask(pipeline, mentor_id)
        assert forgetter(limits=Limits()).work(pipeline.engine).people == len(odd)
        notes = connection.execute(of_others, {"id": OTHER}).scalars().all()
    assert [re.fullmatch(r"not forgotten-\w+, aXb", note) is not None for note in notes] == [True] * len(odd)


def test_it_waits_for_a_batch_that_began_before(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    asked = ask(pipeline)
    assert ask(pipeline).forgetting_id == asked.forgetting_id, "the request is open"
    running = pipeline.submit([item(PERSON, notes=NOTE), item(OTHER)])
    assert forgetter().work(pipeline.engine) == Forgot(rows=0, people=0, waiting=1)
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert pipeline.status(running).batch.counts.completed == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()
    assert verify(pipeline.engine, settings).breaches == []


@pytest.mark.parametrize("emptied_by", ["the cancellation", "forgetting"])
def test_an_upstream_batch_that_was_cancelled_before_all_its_parts_came_keeps_nothing_of_the_person(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, emptied_by: str
) -> None:
    """A version before kept the items of its parts."""
    batch_id, others = uuid4(), f"{PERSON}.b"
    part = submitted(
        batch_id,
        [upstream_item(0, PERSON, notes=NOTE), upstream_item(1, others, notes="she came")],
        part=1,
        parts=2,
        total_items=3,
    )
    pipeline.handle(pipeline.splitter, [part])
    with owner.connect() as connection:
        items = connection.execute(text("SELECT items FROM orchestrator.batch_part")).scalar_one()
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    pipeline.drain()
    if emptied_by == "forgetting":
        with owner.begin() as connection:
            connection.execute(
                text("UPDATE orchestrator.batch_part SET items = CAST(:items AS jsonb)"), {"items": orjson.dumps(items).decode()}
            )
        before = pipeline.status(batch_id).batch
        forget(pipeline)
        assert pipeline.status(batch_id).batch.version == before.version + 1
    assert named_in(owner, NOTE, "she came") == set()
    with owner.connect() as connection:
        assert connection.execute(text("SELECT items FROM orchestrator.batch_part")).scalars().all() == [[]]
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    assert verify(pipeline.engine, settings).breaches == []


def test_a_batch_that_does_not_name_the_person_is_not_locked(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The other person's id begins with the forgotten one's, so that only a closer look tells them apart."""
    named = pipeline.submit([item(PERSON)])
    other = pipeline.submit([item(OTHER, notes=f"{OTHER} came")], label=f"for {OTHER}")
    pipeline.drain()
    ask(pipeline)
    with owner.begin() as connection:
        take_batches(connection, [other])
        assert forgetter(limits=Limits()).work(pipeline.engine).people == 1
    assert named_in(owner, PERSON) == set()
    assert pipeline.status(named).batch.status == "completed"


def test_a_transaction_locks_few_batches_and_those_that_run_keep_no_others_from_it(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = [pipeline.submit([item(PERSON, day=DAY - timedelta(days=day)), item(OTHER)]) for day in range(1, 8)]
    pipeline.drain()
    asked = ask(pipeline)
    running = pipeline.submit([item(PERSON)])
    locked: list[int] = []
    lock = PostgresActivityRepository.lock_batches

    def noted(repository: PostgresActivityRepository, batch_ids: Sequence[UUID]) -> None:
        locked.append(len(batch_ids))
        lock(repository, batch_ids)

    monkeypatch.setattr(PostgresActivityRepository, "lock_batches", noted)
    assert forgetter(limits=Limits(items=2 * BATCH_COSTS_ITEMS)).work(pipeline.engine).waiting == 1
    assert (max(locked), sum(locked)) == (2, len(ended))
    with owner.connect() as connection:
        left = connection.execute(text("SELECT batch_id FROM orchestrator.batch_item WHERE mentor_id = :id"), {"id": PERSON})
        assert left.scalars().all() == [running]
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).done_at is not None
    assert named_in(owner, PERSON) == set()
    assert verify(pipeline.engine, settings).breaches == []


def test_no_more_text_is_looked_at_between_two_statements_than_takes_a_second(
    pipeline: RecordingPipeline, owner: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL ends a session that is idle in a transaction for longer than 15 s, and the same step would be tried again for good."""
    notes = [f"{letter * 1_500} {PERSON}" for letter in "abcd"]
    ended = [
        pipeline.submit([item("nobody", day=DAY - timedelta(days=day), notes=note) for note in notes]) for day in range(1, 4)
    ]
    large = "another's, of which much is to be read " * 60
    ended += [pipeline.submit([item(PERSON, day=DAY - timedelta(days=day)), item("nobody", notes=large)]) for day in range(5, 7)]
    pipeline.drain()
    for group in range(3):
        run(
            owner,
            "INSERT INTO orchestrator.template (template_id, organization_id, coordinator_id, name, mentor_ids, activity_type,"
            " duration_minutes, version, changed_at) VALUES"
            f" (gen_random_uuid(), '{ORGANIZATION}', 'coord-1', repeat('{group}', 1500) || ' {PERSON}', '{{}}', 'visit', 60, 1, now())",
        )
    locked, read = [], []
    lock, read_rows = PostgresActivityRepository.lock_batches, person_rows.read_rows

    def locking(repository: PostgresActivityRepository, batch_ids: Sequence[UUID]) -> None:
        locked.append(len(batch_ids))
        lock(repository, batch_ids)

    def reading(*arguments: Any, **named: Any) -> Sequence[Any]:
        rows = read_rows(*arguments, **named)
        read.append(sum(len(value) for row in rows for value in row if isinstance(value, str) and PERSON in value))
        return rows

    monkeypatch.setattr(PostgresActivityRepository, "lock_batches", locking)
    for module in (forgetting, person_rewriting):
        monkeypatch.setattr(module, "read_rows", reading)
    ask(pipeline)
    assert forgetter(limits=Limits(text_bytes=4_000)).work(pipeline.engine).people == 1
    assert 3_000 < max(read) <= 4_000
    assert (max(locked), sum(locked)) == (1, len(ended))
    assert named_in(owner, PERSON) == set()
    assert verify(pipeline.engine, settings).breaches == []


def test_it_waits_for_a_batch_of_which_only_a_part_has_come(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The items move from the parts to a table of their own when the last part comes, which may be after that table was searched."""
    upstream = uuid4()
    first = submitted(upstream, [upstream_item(0, PERSON, notes=NOTE)], part=1, parts=2, total_items=2)
    second = submitted(upstream, [upstream_item(1, OTHER)], part=2, parts=2, total_items=2)
    pipeline.queues[Topic.BATCHES].append(first)
    pipeline.drain()
    ask(pipeline)
    assert forgetter().work(pipeline.engine).waiting == 1
    pipeline.queues[Topic.BATCHES].append(second)
    pipeline.drain()
    assert pipeline.status(upstream).batch.counts.failed == 1, "the mentor is unknown by now"
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()


def test_it_waits_for_an_event_that_is_not_published_yet(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item(PERSON, notes=NOTE)])
    pipeline.drain()
    ask(pipeline)
    revoke(pipeline, batch_id, reason=f"{PERSON} was ill", actor=ADMIN)
    assert forgetter().work(pipeline.engine).waiting == 1
    pipeline.drain()
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON, NAME, NOTE) == set()


def test_it_waits_for_an_item_in_doubt_of_a_cancelled_batch(pipeline: RecordingPipeline, owner: Engine) -> None:
    batch_id = pipeline.submit([item(PERSON, notes=NOTE)])
    in_doubt = (
        "INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, dispatched_at)"
        " VALUES (:batch_id, 0, :organization, 1, 'asked', now())"
    )
    with owner.begin() as connection:
        connection.execute(text(in_doubt), {"batch_id": batch_id, "organization": ORGANIZATION})
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    assert pipeline.status(batch_id).batch.counts.pending == 1
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM orchestrator.outbox"))
    ask(pipeline)
    assert forgetter().work(pipeline.engine) == Forgot(waiting=1)
    assert pipeline.status(batch_id).items[0].values.mentor_id == PERSON, "the service has to be asked for the same item again"


def test_the_oldest_request_is_taken_first(pipeline: RecordingPipeline, owner: Engine) -> None:
    asked = [ask(pipeline, mentor_id) for mentor_id in (PERSON, OTHER)]
    with owner.begin() as connection:
        later = "UPDATE registration.forgetting SET requested_at = requested_at + interval '1 hour' WHERE mentor_id = :person"
        connection.execute(text(later), {"person": PERSON})
    forgetter().work(pipeline.engine, most_s=0)
    assert [find(pipeline, each).pseudonym is not None for each in asked] == [False, True]


def test_a_request_counts_the_rows_of_all_its_pages(pipeline: RecordingPipeline) -> None:
    for number in (1, 2):
        pipeline.submit([item(PERSON, day=DAY - timedelta(days=number), notes=NOTE)], label=f"with {NAME}")
    pipeline.drain()
    asked = ask(pipeline)
    done = forgetter(limits=Limits(page_rows=1, hits=1, items=1)).work(pipeline.engine)
    assert done.rows > 2
    assert find(pipeline, asked).changed_rows == done.rows


def test_who_was_a_coordinator_is_forgotten_under_the_mentors_name(pipeline: RecordingPipeline, owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES (:org, :person, 'K. of old times', 'closed')"),
            {"org": ORGANIZATION, "person": PERSON},
        )
    pipeline.submit([item(OTHER)], label=f"with {NAME}")
    pipeline.drain()
    forget(pipeline)
    assert named_in(owner, PERSON, NAME) == set()


def test_the_oldest_open_request_is_measured(pipeline: RecordingPipeline) -> None:
    observer = ProductObserver(pipeline.engine, backlog_limit_items=1)

    def waited_s() -> float:
        [figure] = [metric for metric in observer.collect() if metric.name == "bulkreg_forgetting_wait_seconds"]
        return figure.samples[0].value

    assert waited_s() == 0
    ask(pipeline)
    ask(pipeline, OTHER)
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("UPDATE registration.forgetting SET requested_at = requested_at - interval '1 hour' WHERE mentor_id = :person"),
            {"person": OTHER},
        )
    assert 3_600 <= waited_s() < 7_200
    assert forgetter().work(pipeline.engine).people == 2
    assert waited_s() == 0


def test_it_is_refused_while_a_batch_runs_or_the_id_is_a_coordinators(pipeline: RecordingPipeline) -> None:
    pipeline.submit([item(PERSON)])
    for mentor_id, code in ((PERSON, "mentor_in_running_batch"), (COORDINATOR, "mentor_coordinates")):
        with pytest.raises(ConflictError) as refused:
            ask(pipeline, mentor_id)
        assert refused.value.code == code


def test_it_waits_while_an_id_is_a_coordinators_who_was_added_after_the_request(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    asked = ask(pipeline)
    person = {"org": ORGANIZATION, "person": PERSON}
    for added in (
        "coordinator VALUES (:org, :person, 'K.', 'coordinator')",
        "coordinator_scope VALUES (:org, :person, 'chapter-1')",
    ):
        with owner.begin() as connection:
            connection.execute(text(f"INSERT INTO registration.{added}"), person)
    assert forgetter().work(pipeline.engine) == Forgot(waiting=1)
    assert find(pipeline, asked).pseudonym is None
    assert named_in(owner, PERSON) == {
        f"registration.{each}" for each in ("mentor", "coordinator", "coordinator_scope", "forgetting")
    }
    run(owner, f"UPDATE registration.coordinator SET role = 'closed' WHERE coordinator_id = '{PERSON}'")
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, PERSON) == set()


def test_a_word_that_is_nobodys_id_is_refused_and_erases_nothing(pipeline: RecordingPipeline) -> None:
    batch_id = pipeline.submit([item(PERSON)], label="a visit at Kari's")
    pipeline.drain()
    for word in ("visit", "Kari", PERSON[:-1], PERSON.upper()):
        with pytest.raises(ConflictError, match="Check the spelling") as refused:
            ask(pipeline, word)
        assert (refused.value.code, word in str(refused.value)) == ("mentor_unknown", False)
    assert forgetter().work(pipeline.engine) == Forgot()
    with pipeline.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM registration.forgetting")) == 0
        assert (
            connection.scalar(text("SELECT label FROM orchestrator.batch WHERE batch_id = :id"), {"id": batch_id})
            == "a visit at Kari's"
        )


@pytest.mark.parametrize("stands_in", ["an item", "a correction", "an activity", "an edit", "a group", "a part", "a log"])
def test_an_id_that_only_a_record_has_is_somebodys(pipeline: RecordingPipeline, owner: Engine, stands_in: str) -> None:
    left = "left-1"
    failed = pipeline.submit([item(left if stands_in == "an item" else "nobody")])
    pipeline.drain()
    match stands_in:
        case "a correction":
            corrected = CorrectedItem(DerivedIds(failed).item_id(0), {"mentor_id": left})
            for correction in (corrected, CorrectedItem(corrected.item_id, {"mentor_id": "nobody"})):
                pipeline.call(retry_failed_items, ADMIN, failed, RetryRequest(corrections=[correction]))
                pipeline.drain()
        case "an activity":
            pipeline.submit([item("mentor-1")])
            pipeline.drain()
            run(owner, f"UPDATE registration.activity SET attributed_to = '{left}'")
        case "an edit":
            registered = pipeline.submit([item("mentor-1")])
            pipeline.drain()
            revoke(pipeline, registered, actor=Actor(ORGANIZATION, left, ADMIN.role))
        case "a group":
            columns = "(template_id, organization_id, coordinator_id, name, mentor_ids, activity_type, duration_minutes, version, changed_at)"
            values = f"(gen_random_uuid(), '{ORGANIZATION}', 'coord-1', 'all', ARRAY['{left}'], 'visit', 60, 1, now())"
            run(owner, f"INSERT INTO orchestrator.template {columns} VALUES {values}")
        case "a part":
            part = submitted(uuid4(), [upstream_item(0, left)], part=1, parts=2, total_items=2)
            pipeline.handle(pipeline.splitter, [part])
        case "a log":
            run(owner, f"INSERT INTO orchestrator.receipt_salt VALUES ('{ORGANIZATION}', '{left}', sha256('salt'))")
    assert ask(pipeline, left).pseudonym is None


def test_an_id_that_stands_in_any_column_which_forgetting_searches_is_somebodys(
    pipeline: RecordingPipeline, owner: Engine
) -> None:
    """A row is made up for each column that may have a person's id, with nothing else in it."""
    left = "left-1"
    columns = [
        (name, column, f"ARRAY['{left}']" if holds is Holds.IDS else f"'{left}'")
        for name, table in TABLES.items()
        for column, holds in table.columns.items()
        if holds in (Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT)
    ]
    unknown = []
    with owner.connect() as connection:
        for name, column, value in columns:
            with connection.begin_nested() as savepoint:
                assert not is_known(connection, ORGANIZATION, left)
                insert_anything(connection, name, {"organization_id": f"'{ORGANIZATION}'", column: value})
                unknown += [] if is_known(connection, ORGANIZATION, left) else [(name, column)]
                assert not is_known(connection, "another", left)
                savepoint.rollback()
    assert (len(columns) > 25, unknown) == (True, [])


def insert_anything(connection: Connection, name: str, values: Mapping[str, str]) -> None:
    """Inserts a row with these values, and something of the right type in every other column that needs one."""
    found = text("SELECT conname FROM pg_constraint WHERE conrelid = to_regclass(:name) AND contype IN ('c', 'f')")
    for constraint in connection.execute(found, {"name": name}).scalars().all():
        connection.execute(text(f"ALTER TABLE {name} DROP CONSTRAINT {constraint}"))
    needed = text(
        "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = to_regclass(:name) AND attnum > 0"
        " AND attnotnull AND NOT atthasdef AND attidentity = '' AND attgenerated = '' AND NOT attisdropped"
    )
    made_up = {
        "text": "''", "uuid": "gen_random_uuid()", "jsonb": "'{}'", "bytea": "''", "boolean": "false", "date": "now()",
        "timestamp with time zone": "now()", "smallint": "1", "integer": "1", "bigint": "1", "text[]": "'{}'",
    }  # fmt: skip
    row = {**{each.attname: made_up[each.format_type] for each in connection.execute(needed, {"name": name})}, **values}
    connection.execute(text(f"INSERT INTO {name} ({', '.join(row)}) VALUES ({', '.join(row.values())})"))


def test_texts_that_are_stored_apart_from_their_rows_count_towards_the_size_of_the_tables(
    pipeline: RecordingPipeline, owner: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    megabyte = "(SELECT jsonb_build_array(string_agg(md5(n::text), '')) FROM generate_series(1, 32768) AS n)"
    with owner.connect() as connection:
        names = [f"'{name}'" for name in TABLES]
        before = connection.scalar(
            text(f"SELECT sum(pg_table_size(name)) FROM unnest(ARRAY[{', '.join(names)}]::regclass[]) AS n (name)")
        )
        monkeypatch.setattr(known_people, "AT_ONCE_BYTES", before + 512 * 1024)
        assert is_known(connection, ORGANIZATION, "left-1") is False
        insert_anything(connection, "orchestrator.batch_part", {"organization_id": f"'{ORGANIZATION}'", "items": megabyte})
        assert is_known(connection, ORGANIZATION, "left-1") is None
        connection.rollback()


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table is too large for a request to search it."""
    monkeypatch.setattr(known_people, "AT_ONCE_BYTES", -1)


@pytest.mark.usefixtures("large")
def test_in_large_tables_a_word_that_is_nobodys_id_is_found_out_later_and_erases_nothing(
    pipeline: RecordingPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    batch_id = pipeline.submit([item(PERSON)], label="a visit at Kari's")
    pipeline.drain()
    asked = ask(pipeline, "visit")
    assert ask(pipeline, "visit") == asked, "the request is open"
    with pytest.raises(InjectedError):
        forgetter(f"{Failpoint.FORGETTING_AFTER_PAGE}=raise@3").work(pipeline.engine)
    assert (find(pipeline, asked).done_at, find(pipeline, asked).pseudonym) == (None, None)
    assert forgetter().work(pipeline.engine) == Forgot()
    done = find(pipeline, asked)
    assert (done.done_at is not None, done.pseudonym, done.changed_rows) == (True, None, 0)
    [line] = logged(caplog, Action.PERSON_UNKNOWN)
    assert (line["request"], logged(caplog, Action.PERSON_FORGOTTEN)) == (str(asked.forgetting_id), [])
    with pipeline.engine.connect() as connection:
        label = connection.scalar(text("SELECT label FROM orchestrator.batch WHERE batch_id = :id"), {"id": batch_id})
        left = connection.execute(text("SELECT mentor_id, place FROM registration.forgetting")).one()
        words = connection.scalar(text("SELECT count(*) FROM registration.forgotten_word"))
    assert (label, tuple(left), words) == ("a visit at Kari's", (None, None), 0)


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_who_only_has_a_failed_item_is_forgotten(pipeline: RecordingPipeline, owner: Engine) -> None:
    """No index finds the item of somebody who has no activity."""
    pipeline.submit([item("nobody"), item("left-1", notes=NOTE)], label="with left-1")
    pipeline.drain()
    asked = ask(pipeline, "left-1")
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).changed_rows > 0
    assert named_in(owner, "left-1", NOTE) == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_who_was_forgotten_is_recognized(pipeline: RecordingPipeline, owner: Engine) -> None:
    """The sweeper has the key, so it need not find the id anywhere."""
    batch_id = pipeline.submit([item(PERSON)])
    pipeline.drain()
    pseudonym = forget(pipeline)
    pipeline.call(relabel_batch, ADMIN, batch_id, f"for {PERSON}")
    pipeline.drain()
    assert forget(pipeline) == pseudonym
    assert named_in(owner, PERSON) == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_somebody_whom_an_import_adds_meanwhile_is_not_called_unknown(
    pipeline: RecordingPipeline, owner: Engine, tmp_path: Path
) -> None:
    asked = ask(pipeline, "mentor-new")
    passed: list[str] = []
    while "registration.mentor" not in passed[:-1] or passed[-1] == "registration.mentor":
        forgetter().work(pipeline.engine, most_s=0)
        with owner.connect() as connection:
            passed.append(connection.scalar(text("SELECT place ->> 'table' FROM registration.forgetting")))
    imported(pipeline, tmp_path, key=KEY)
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).pseudonym is not None
    assert named_in(owner, "mentor-new") == set()


@pytest.mark.usefixtures("large")
def test_in_large_tables_a_request_that_seeks_an_id_can_be_told_that_nobody_need_have_it(pipeline: RecordingPipeline) -> None:
    asked = ask(pipeline, "left-1")
    forgetter().work(pipeline.engine, most_s=0)
    again = transact(
        pipeline.engine, lambda connection: ForgettingRequests(connection).ask(OPERATOR, "left-1", also_unknown=True)
    )
    assert again == asked
    assert forgetter().work(pipeline.engine).people == 1
    assert find(pipeline, asked).pseudonym is not None


def test_an_id_that_stands_in_any_column_is_also_found_page_by_page(pipeline: RecordingPipeline, owner: Engine) -> None:
    left = "left-1"
    searched = [
        name for name, table in TABLES.items() if {Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT} & set(table.columns.values())
    ]
    with owner.connect() as connection:
        for name in searched:
            with connection.begin_nested() as savepoint:
                [(column, holds), *_] = [
                    each for each in TABLES[name].columns.items() if each[1] in (Holds.ID, Holds.ROW, Holds.IDS, Holds.SALT)
                ]
                value = f"ARRAY['{left}']" if holds is Holds.IDS else f"'{left}'"
                insert_anything(connection, name, {"organization_id": f"'{ORGANIZATION}'", column: value})
                assert list(sought(connection, left)) == [name]
                savepoint.rollback()


def sought(connection: Connection, person: str) -> Iterator[str]:
    """The tables of which a page has the person."""
    place: Mapping[str, Any] | None = known_people.FIRST_SOUGHT
    while place is not None:
        page = read_page(connection, place["table"], place["after"], 1)
        if known_people.has_person(connection, page, ORGANIZATION, person):
            yield page.table
        place = known_people.sought_after(page)


def test_what_the_product_does_itself_makes_nobody_of_its_names(pipeline: RecordingPipeline, owner: Engine) -> None:
    pipeline.submit([item(PERSON, notes=NOTE)])
    pipeline.drain()
    transact(pipeline.engine, lambda connection: ForgettingRequests(connection).ask(OPERATOR, PERSON))
    assert forgetter().work(pipeline.engine).people == 1
    assert named_in(owner, "operator", "forgetting") >= {"registration.forgetting", "registration.notes_erasure"}
    for word in ("operator", "forgetting"):
        with pytest.raises(ConflictError) as refused:
            ask(pipeline, word)
        assert refused.value.code == "mentor_unknown"


def test_asking_again_returns_the_request_until_it_is_done(pipeline: RecordingPipeline) -> None:
    """Halfway, no table has the person's id any more."""
    pipeline.submit([item(PERSON)])
    pipeline.drain()
    first = ask(pipeline)
    steps = 0
    while not forgetter().work(pipeline.engine, most_s=0).people:
        steps += 1
        again = ask(pipeline)
        assert (again.forgetting_id, again.done_at) == (first.forgetting_id, None)
    assert steps > 3
    with pytest.raises(ConflictError) as refused:
        ask(pipeline)
    assert refused.value.code == "mentor_unknown"


def test_another_organizations_person_with_this_id_stays(pipeline: RecordingPipeline, owner: Engine) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.mentor VALUES ('org-other', :id, :name, 'c')"), {"id": PERSON, "name": NAME}
        )
    forget(pipeline)
    assert named_in(owner, PERSON) == {"registration.mentor"}


def test_nobody_is_forgotten_without_the_key_or_with_another(pipeline: RecordingPipeline) -> None:
    assert forgetter(key=None).work(pipeline.engine) == Forgot()
    ask(pipeline)
    with pytest.raises(ForgettingKeyError):
        forgetter(key=None).work(pipeline.engine)
    forgetter().work(pipeline.engine)
    ask(pipeline, OTHER)
    with pytest.raises(ForgettingKeyError):
        forgetter(key=ForgettingKey("x" * 32)).work(pipeline.engine)


def imported(pipeline: Pipeline, folder: Path, *, mentors: Sequence[str] = (PERSON, "mentor-new"), **named: Any) -> ImportReport:
    rows = [f"{ORGANIZATION},{each},{NAME if each == PERSON else 'New'},chapter-1,,\n" for each in mentors]
    (folder / "mentors.csv").write_text("organization_id,mentor_id,name,chapter_id,active_from,active_until\n" + "".join(rows))
    directory, _ = read_directory(folder)
    return transact(pipeline.engine, lambda connection: import_directory(connection, directory, **named))


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


def test_nobody_is_readmitted_while_being_forgotten(pipeline: RecordingPipeline, owner: Engine, tmp_path: Path) -> None:
    pipeline.submit([item(PERSON, notes=NOTE)], label=f"for {PERSON} and {NAME}")
    pipeline.drain()
    asked = ask(pipeline)
    forgetter().work(pipeline.engine, most_s=0)
    assert find(pipeline, asked).pseudonym is not None, "the request has begun"
    report = imported(pipeline, tmp_path, key=KEY, again=True)
    assert [(each.organization_id, each.id) for each in report.being_forgotten] == [(ORGANIZATION, PERSON)]
    assert (report.forgotten, report.changes["mentors.csv"].added) == ((), 1)
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


def test_a_request_that_fails_keeps_no_others_waiting(
    pipeline: RecordingPipeline, owner: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    for mentor_id in (PERSON, OTHER):
        pipeline.submit([item(mentor_id)])
    pipeline.drain()
    failing, other = (ask(pipeline, mentor_id) for mentor_id in (PERSON, OTHER))
    with pipeline.engine.begin() as connection:
        wrong = (
            """UPDATE registration.forgetting SET place = '{"table": "no.such_table"}', pseudonym = 'p' WHERE mentor_id = :id"""
        )
        connection.execute(text(wrong), {"id": PERSON})
    with pytest.raises(KeyError):
        forgetter().work(pipeline.engine)
    assert (find(pipeline, failing).done_at, find(pipeline, other).done_at is not None) == (None, True)
    [line] = logged(caplog, Action.FORGETTING_FAILED)
    assert (line["request"], "KeyError" in str(line["error"])) == (str(failing.forgetting_id), True)
    assert named_in(owner, OTHER) == set()


def test_who_changed_webhooks_is_replaced_too(pipeline: RecordingPipeline, owner: Engine, settings: Settings) -> None:
    make_webhook(pipeline.engine, settings, "https://receiver.example.org/")
    columns = "(organization_id, webhook_id, change, url, events, changed_by, channel)"
    for by in (PERSON, OTHER):
        values = f"SELECT organization_id, webhook_id, 'created', url, events, '{by}', 'api' FROM orchestrator.webhook"
        run(pipeline.engine, f"INSERT INTO orchestrator.webhook_change {columns} {values}")
    pseudonym = forget(pipeline)
    with owner.connect() as connection:
        named = connection.execute(text("SELECT changed_by FROM orchestrator.webhook_change ORDER BY number")).scalars().all()
    assert named == [pseudonym, OTHER]
    with pytest.raises(Exception, match="permission denied"):
        run(pipeline.engine, "UPDATE orchestrator.webhook_change SET changed_by = 'x'")


def test_every_column_of_text_is_classified(owner: Engine) -> None:
    with owner.connect() as connection:
        live = connection.execute(
            text(
                "SELECT table_schema || '.' || table_name, column_name FROM information_schema.columns"
                " WHERE table_schema IN ('orchestrator', 'registration')"
                " AND data_type NOT IN ('uuid', 'smallint', 'integer', 'bigint', 'boolean', 'date', 'timestamp with time zone')"
            )
        ).all()
    classified = {(name, column) for name, table in TABLES.items() for column in table.columns}
    assert {tuple(row) for row in live} == classified, "classify the column in orchestrator/directory/person_columns.py"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE registration.audit SET reason = 'x'",
        "SELECT registration.forget_in_audit(:org, 'coord-1', 'forgotten-x', audit_id, NULL) FROM registration.audit",
        "SELECT registration.begin_forgetting(:org, 'forgotten-x', 'audit')",
        "SELECT set_config('registration.forgets', 'audit', true); UPDATE registration.audit SET reason = 'x'",
    ],
)
def test_the_audit_stays_append_only(pipeline: RecordingPipeline, statement: str) -> None:
    pipeline.submit(mentors(1))
    pipeline.drain()
    for engine in (pipeline.engine, pipeline.api):
        with pytest.raises(Exception, match=r"permission denied|nobody was forgotten"), engine.begin() as connection:
            connection.execute(text(statement), {"org": ORGANIZATION})


PEOPLE = ForgottenPeople(KEY, [Replacement("org", word, "P") for word in KEY.words("org", "m-1", "Åse Bø")])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("m-1", "P"),
        ("M-1 and m-1.", "P and P."),
        ("m-12, xm-1, m-1x", "m-12, xm-1, m-1x"),
        ("(m-1)m-1", "(P)P"),
        ("with ÅSE BØ today", "with P today"),
        ("with A\N{COMBINING RING ABOVE}se Bø", "with P"),
        ("m-1\N{COMBINING ACUTE ACCENT}", "m-1\N{COMBINING ACUTE ACCENT}"),
        ("åse", "åse"),
        ("", ""),
    ],
)
def test_texts_are_searched_for_whole_words(given: str, wanted: str) -> None:
    assert PEOPLE.text("org", given) == wanted
    assert PEOPLE.text("another", given) == given


NUMERIC_IDS = ("12", "90", "482", "2026")
NUMBERS = ForgottenPeople(
    KEY, [Replacement("org", word, "P") for number in NUMERIC_IDS for word in KEY.words("org", number, None)]
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        # An id that stands alone.
        ("12", "P"),
        ("ask 482, 12 and 90.", "ask P, P and P."),
        ("#482 (12) 90: ill", "#P (P) P: ill"),
        ("90 minutes with 90", "90 minutes with P"),
        ("12 came in 2026", "P came in P"),
        # These numbers may be the person's id, so they are replaced: before initials, before words that only look like units or months, in
        # lists, and in what is no date.
        *((given, given.replace("12", "P")) for given in ("12 M. Hansen", "12 T Berg", "12 s", "12 may not come", "12. May I ask", "12 Jan")),
        *((given, given.replace("12", "P")) for given in ("ids: 7,12,19", "12/13", "12:75", "mentor-12", "Mentor_12", "mentor 12 min")),
        # Longer ids, and numbers that are joined.
        *((kept, kept) for kept in ("4821", "x12", "team-12", "12-b", "mentor-482-b", "12.5", "12,5", "10:12", "12'000", "0.12")),
        # Quantities and amounts.
        *((kept, kept) for kept in ("90 min", "90min", "90 minutter", "12 %", "1 482 kr", "kr 482", "€90", "12\N{NO-BREAK SPACE}km")),
        *((kept, kept) for kept in ("12 482,90 kr", "2 h", "tlf 90 12 34 56")),
        # Dates and times.
        *((kept, kept) for kept in ("2026-12-12", "12.12.2026", "12/12", "12 March 2026", "March 2026", "12. mars", "December 12, 2026")),
        *((kept, kept) for kept in ("12.mars", "12 og 13. mars", "12. mai", "12 may 2026", "uke 12", "kl 12", "Q1 2026", "2025/2026")),
    ],
)  # fmt: skip
def test_an_id_that_is_a_number_is_replaced_where_it_stands_alone(given: str, wanted: str) -> None:
    assert NUMBERS.text("org", given) == wanted


def test_a_long_text_is_searched_for_quantities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes have up to 10,000 characters, and are searched while the locks of batches are held."""
    given = "12 min, 12 came " * 600
    searched = Mock(wraps=quantities._QUANTITY)
    monkeypatch.setattr(quantities, "_QUANTITY", searched)
    assert NUMBERS.text("org", given) == "12 min, P came " * 600
    assert searched.finditer.call_count == 1
    NUMBERS.text("org", "nobody, and 7 min")
    assert searched.finditer.call_count == 1, "a text without a hit is not searched"


def test_what_a_quantity_is_costs_time_in_proportion_to_the_text() -> None:
    """Each alternative begins where a word begins, and gives back nothing that it repeats without a bound."""

    def repeats(parsed: Any) -> Iterator[tuple[Any, Any]]:
        for operation, argument in parsed:
            yield operation, argument
            for inner in argument if isinstance(argument, tuple | list) else ():
                if isinstance(inner, _parser.SubPattern):
                    yield from repeats(inner)
                elif isinstance(inner, list):
                    for branch in inner:
                        yield from repeats(branch) if isinstance(branch, _parser.SubPattern) else ()

    [(operation, (_, branches))] = _parser.parse(quantities._QUANTITY.pattern, re.IGNORECASE)
    assert (str(operation), len(branches) > 10) == ("BRANCH", True)
    for branch in branches:
        first, (direction, _) = branch[0]
        assert (str(first), direction) == ("ASSERT_NOT", -1), branch
    found = list(repeats(_parser.parse(quantities._QUANTITY.pattern, re.IGNORECASE)))
    assert {str(operation) for operation, _ in found} >= {"POSSESSIVE_REPEAT", "MAX_REPEAT"}
    unbounded = [argument for operation, argument in found if str(operation) in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] > 10]
    assert unbounded == []


def test_an_id_in_json_is_a_whole() -> None:
    submitted = [{"mentor_id": "m-1", "notes": "m-1"}, {"mentor_id": "m-1.b", "notes": None}]
    assert PEOPLE.value("org", submitted) == [{"mentor_id": "P", "notes": "P"}, {"mentor_id": "m-1.b", "notes": None}]


def test_only_the_exact_id_is_a_persons() -> None:
    assert [PEOPLE.id("org", each) for each in ("m-1", "M-1", "m-12")] == ["P", "M-1", "m-12"]
    assert not ForgottenPeople(None)
