"""Forgetting a person: name and notes are erased, and the id is replaced by a pseudonym everywhere (docs/decisions/0045-forgetting.md)."""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal
from unicodedata import normalize
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Engine, text

from orchestrator.batches.model import CorrectedItem, NewBatch, NewItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, retry_failed_items, submit_bulk_registration
from orchestrator.directory.forgetting import Forgot, Limits
from orchestrator.directory.person_columns import TABLES, Holds
from orchestrator.process.failpoints import Failpoint, InjectedError
from orchestrator.process.settings import Settings
from orchestrator.replay.batch_merge import BatchMerge
from orchestrator.replay.promote import Promoted, promote
from orchestrator.replay.rebuild import Replay
from orchestrator.storage.people import ForgettingKey, ForgettingKeyError
from orchestrator.verification.receipts import Tampering, audit_logs
from orchestrator.verification.verify import verify
from schemas.ids import DerivedIds, new_batch_id
from tests.support.forgetting import KEY, NAME, NOTE, OTHER, PERSON, ask, everywhere, find, forget, forgetter, funding, named_in
from tests.support.pipeline import ADMIN, DAY, ORGANIZATION, item, mentors
from tests.support.receipts import append_and_sign
from tests.support.replaying import RecordingPipeline, compared, promoted, replayed, run
from tests.support.revoking import revoke
from tests.support.webhooks import make_webhook


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


def test_a_replay_brings_nobody_back_who_was_a_coordinator(pipeline: RecordingPipeline, owner: Engine) -> None:
    """Who submitted, corrected, cancelled and revoked."""
    run(owner, f"INSERT INTO registration.coordinator VALUES ('{ORGANIZATION}', '{PERSON}', '{NAME}', 'admin')")
    acting = replace(ADMIN, subject=PERSON)

    def submit(*items: NewItem) -> UUID:
        batch = NewBatch(new_batch_id(), PERSON, None, False, items, "0" * 31 + "1")
        pipeline.call(submit_bulk_registration, acting, batch)
        return batch.batch_id

    done = submit(item("mentor-1"), item("nobody"))
    pipeline.drain()
    corrected = CorrectedItem(DerivedIds(done).item_id(1), {"mentor_id": "mentor-2"})
    pipeline.call(retry_failed_items, acting, done, RetryRequest(corrections=[corrected]))
    pipeline.drain()
    revoke(pipeline, done, reason=f"{NAME} was mistaken", actor=acting)
    pipeline.call(cancel_batch, acting, submit(item("mentor-3")), f"{NAME} asked for it")
    pipeline.drain()
    run(owner, f"UPDATE registration.coordinator SET role = 'closed' WHERE coordinator_id = '{PERSON}'")
    forget(pipeline)
    assert compared(pipeline.engine, pipeline.written, key=KEY).differences == []
    # A cancel from before edits were kept is only in its event.
    run(
        owner,
        "TRUNCATE orchestrator.batch, orchestrator.batch_item, orchestrator.item_history",
        "DELETE FROM orchestrator.batch_edit WHERE kind = 'cancelled'",
    )
    verdicts, after = promoted(pipeline.engine, pipeline.written, key=KEY)
    assert (set(verdicts.values()), after.differences) == ({Promoted.MERGED}, [])
    assert named_in(owner, PERSON, NAME) == set()


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


def test_another_organizations_person_with_this_id_stays(pipeline: RecordingPipeline, owner: Engine) -> None:
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.mentor VALUES ('org-other', :id, :name, 'c')"), {"id": PERSON, "name": NAME}
        )
        # There the person is a coordinator as well, which keeps nobody here from being forgotten.
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES ('org-other', :id, :name, 'coordinator')"),
            {"id": PERSON, "name": NAME},
        )
        connection.execute(text("INSERT INTO registration.coordinator_scope VALUES ('org-other', :id, 'c')"), {"id": PERSON})
    forget(pipeline)
    assert named_in(owner, PERSON) == {
        "registration.mentor",
        "registration.coordinator",
        "registration.coordinator_scope",
    }


def test_notes_about_others_in_the_same_batches_are_kept(pipeline: RecordingPipeline, owner: Engine) -> None:
    """An item was for the person until it was corrected, so its notes are erased. At its place in another batch is somebody else's item."""
    other = pipeline.submit([item("mentor-5", notes="of the fifth"), item(PERSON, kind="unknown", notes=NOTE)])
    corrected = pipeline.submit([item(PERSON, kind="unknown", notes=NOTE), item("mentor-6", notes="of the sixth")])
    pipeline.drain()
    correction = CorrectedItem(DerivedIds(corrected).item_id(0), {"mentor_id": "mentor-7", "activity_type": "visit"})
    pipeline.call(retry_failed_items, ADMIN, corrected, RetryRequest(corrections=[correction]))
    pipeline.drain()
    ask(pipeline)
    assert forgetter(limits=Limits()).work(pipeline.engine).people == 1
    kept = text("SELECT batch_id, position, notes FROM orchestrator.batch_item WHERE notes IS NOT NULL")
    with owner.connect() as connection:
        found = {(UUID(str(row.batch_id)), row.position): row.notes for row in connection.execute(kept)}
    assert found == {(other, 0): "of the fifth", (corrected, 1): "of the sixth"}


def test_nobody_is_forgotten_without_the_key_or_with_another(pipeline: RecordingPipeline) -> None:
    assert forgetter(key=None).work(pipeline.engine) == Forgot()
    ask(pipeline)
    with pytest.raises(ForgettingKeyError):
        forgetter(key=None).work(pipeline.engine)
    forgetter().work(pipeline.engine)
    ask(pipeline, OTHER)
    with pytest.raises(ForgettingKeyError):
        forgetter(key=ForgettingKey("x" * 32)).work(pipeline.engine)


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
