"""What tests of forgetting share: the person, the requests, and the search for whatever still names the person."""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine, text

from consumers.upkeep.purger import PurgePolicy, Purger
from orchestrator.batches.model import Actor, CorrectedItem, Idempotency, NewBatch, NewItem, RetryRequest
from orchestrator.batches.operations import (
    cancel_batch,
    delete_batch,
    relabel_batch,
    retry_failed_items,
    submit_bulk_registration,
)
from orchestrator.directory.files import read_directory
from orchestrator.directory.forgetting import Forgetter, Limits
from orchestrator.directory.forgetting_requests import ForgettingRequests, ForgettingView
from orchestrator.directory.importing import ImportReport, import_directory
from orchestrator.process.failpoints import failpoints
from orchestrator.storage.database import transact
from orchestrator.storage.people import ForgettingKey
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.closing import close
from tests.support.pipeline import ADMIN, COORDINATOR, DAY, ORGANIZATION, Pipeline, item
from tests.support.replaying import RecordingPipeline
from tests.support.revoking import revoke
from tests.support.sweeping import purge
from tests.support.upstream import submitted, upstream_item

KEY = ForgettingKey("k" * 32)
PERSON, NAME, NOTE = "mentor-per-17", "Kåre Ødegård", "he broke his hip"
OTHER = "mentor-per-175"
"""Another person, whose id begins with the forgotten one's."""


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
    purge(Purger(PurgePolicy(timedelta(0), timedelta(days=7))), pipeline.engine)
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


def imported(pipeline: Pipeline, folder: Path, *, mentors: Sequence[str] = (PERSON, "mentor-new"), **named: Any) -> ImportReport:
    rows = [f"{ORGANIZATION},{each},{NAME if each == PERSON else 'New'},chapter-1,,\n" for each in mentors]
    (folder / "mentors.csv").write_text("organization_id,mentor_id,name,chapter_id,active_from,active_until\n" + "".join(rows))
    directory, _ = read_directory(folder)
    return transact(pipeline.engine, lambda connection: import_directory(connection, directory, **named))
