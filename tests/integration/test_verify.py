"""`verify` is green on every healthy state, and detects each corruption that it claims to detect. The tests make each one, a row at a time."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from orchestrator.batches.model import NewBatch, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items, submit_bulk_registration
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.verification import verify as verification
from orchestrator.verification.checks import CHECKS
from orchestrator.verification.verify import Breach, verify
from schemas.envelope import Topic
from schemas.ids import new_batch_id
from tests.integration.corruptions import CORRUPTIONS
from tests.support.audit import tampering
from tests.support.databases import fresh_database
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors, standard_directory
from tests.support.revoking import revoke
from tests.support.stack import Stack

# Constraints that prevent these corruptions. They are dropped, because `verify` must not rely on what a restore or a person may have lost.
CONSTRAINTS = (
    "ALTER TABLE orchestrator.batch DROP CONSTRAINT batch_counts",
    "ALTER TABLE orchestrator.outcome DROP CONSTRAINT outcome_answer",
    "ALTER TABLE orchestrator.outcome DROP CONSTRAINT outcome_pkey",
    "DROP INDEX registration.activity_item",
    "DROP INDEX registration.activity_once",
)


def healthy(pipeline: Pipeline) -> dict[str, UUID]:
    """One batch of every kind."""
    batches = {}
    batches["completed"] = pipeline.submit([item("mentor-1", notes="a note that is long enough"), item("mentor-2")])
    batches["partial"] = pipeline.submit([item("mentor-3"), item("nobody", notes="another note, long enough")])
    batches["retried"] = pipeline.submit([item("mentor-4"), item("no one")])
    pipeline.drain()
    pipeline.call(retry_failed_items, ADMIN, batches["retried"], RetryRequest())
    pipeline.drain()
    batches["cancelled"] = pipeline.submit(mentors(3, first=10))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)[:1])
    pipeline.call(cancel_batch, ADMIN, batches["cancelled"], "a mistake")
    overriding = item("mentor-1").values._replace(override_duplicates=True)
    batch = NewBatch(new_batch_id(), COORDINATOR, None, True, [item("mentor-1")._replace(values=overriding)], "1" * 32)
    batches["overriding"] = pipeline.call(submit_bulk_registration, ADMIN, batch).batch.batch_id
    batches["deleted"] = pipeline.submit(mentors(1, first=20))
    batches["revoked"] = pipeline.submit(mentors(1, first=21))
    pipeline.drain()
    pipeline.call(delete_batch, ADMIN, batches["deleted"])
    revoke(pipeline, batches["revoked"])
    batches["running"] = pipeline.submit(mentors(2, first=30))
    pipeline.drain_until_registered()
    batches["queued"] = pipeline.submit(mentors(1, first=40))
    pipeline.relay()
    return batches


def test_a_healthy_database_is_green(pipeline: Pipeline, settings: Settings) -> None:
    healthy(pipeline)
    report = verify(pipeline.engine, settings)
    assert report.breaches == []
    assert report.checked == {"batches": 9, "items": 15, "outcomes": 15, "activities": 10}


def test_it_reads_one_snapshot_and_can_change_nothing(
    pipeline: Pipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the settings of its own transaction that have the right value."""
    wanted = {"transaction_read_only": "on", "transaction_isolation": "repeatable read", "statement_timeout": "0"}
    counted = {name: f"pg_settings WHERE (name, setting) = ('{name}', '{value}')" for name, value in wanted.items()}
    monkeypatch.setattr(verification, "_COUNTED", counted)
    assert verify(pipeline.engine, settings).checked == dict.fromkeys(wanted, 1)


def test_work_under_way_is_no_breach(pipeline: Pipeline, settings: Settings) -> None:
    def green() -> bool:
        return verify(pipeline.engine, settings).breaches == []

    batch_id = pipeline.submit([*mentors(5), item("nobody")])
    assert green(), "submitted"
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    assert green(), "split"
    commands = pipeline.take(Topic.COMMANDS)
    pipeline.handle(pipeline.registration, commands[:4])
    assert green(), "partly registered, not folded"
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS)[:2])
    assert green(), "partly folded"
    pipeline.call(cancel_batch, ADMIN, batch_id, None)
    assert green(), "cancelled with commands in flight"
    pipeline.handle(pipeline.registration, commands)
    assert green(), "the fence held"


@pytest.fixture(scope="module")
def fragile(infrastructure: Stack, template_database: str) -> Iterator[tuple[str, dict[str, UUID]]]:
    """A healthy database to copy from, in which everything can be damaged, and its batches."""
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        worker = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        owner = create_engine(settings.owner_url)
        standard_directory(worker)
        pipeline = Pipeline(settings, worker)
        batches = healthy(pipeline)
        with owner.begin() as connection:
            for statement in CONSTRAINTS:
                connection.execute(text(statement))
        assert verify(worker, settings).breaches == []
        pipeline.close()
        worker.dispose()
        owner.dispose()
        yield url, batches


@pytest.mark.parametrize(("check", "kind", "sql"), CORRUPTIONS, ids=[f"{check}-{kind}" for check, kind, _ in CORRUPTIONS])
def test_a_corruption_turns_its_check_red(
    infrastructure: Stack, fragile: tuple[str, dict[str, UUID]], check: str, kind: str, sql: str
) -> None:
    template, batches = fragile
    with fresh_database(infrastructure.postgres_url, template=template) as url:
        settings = Settings(database_url=SecretStr(url))
        owner = create_engine(settings.owner_url)
        with owner.begin() as connection:
            statements = sql if "TRIGGER" in sql else tampering(sql)
            connection.execute(text(statements), {"b": batches[kind]} if ":b" in sql else {})
        seen = [breach for breach in verify(owner, settings).breaches if breach.detail.startswith(f"{check}:")]
        owner.dispose()
    assert seen, "the corruption was not detected"
    assert about(seen) <= {str(batches[kind]), None}
    assert not any("long enough" in breach.detail for breach in seen), "the breach quotes notes"


def test_a_batch_with_impossible_counts_hides_no_other(infrastructure: Stack, fragile: tuple[str, dict[str, UUID]]) -> None:
    template, batches = fragile
    with fresh_database(infrastructure.postgres_url, template=template) as url:
        owner = create_engine(Settings(database_url=SecretStr(url)).owner_url)
        with owner.begin() as connection:
            wrong = {"b": batches["completed"]}
            # The other rows come first.
            connection.execute(text("UPDATE orchestrator.batch SET pending = -1 WHERE batch_id <> :b"), wrong)
            connection.execute(text("UPDATE orchestrator.batch SET status = 'failed' WHERE batch_id = :b"), wrong)
        found = verify(owner, Settings(database_url=SecretStr(url))).breaches
        owner.dispose()
    assert about([breach for breach in found if breach.detail.startswith("status_differs:")]) == {str(batches["completed"])}


def about(breaches: list[Breach]) -> set[str | None]:
    return {breach.batch_id for breach in breaches}


def test_every_check_has_a_corruption() -> None:
    assert {check.name for check in CHECKS} <= {check for check, _, _ in CORRUPTIONS}


def test_activities_of_purged_batches_are_no_breach(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = healthy(pipeline)["deleted"]
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO orchestrator.tombstone SELECT batch_id, organization_id, '', now() FROM orchestrator.batch WHERE batch_id = :b"),
            {"b": batch_id},
        )  # fmt: skip
        for table in ("outcome", "batch_item", "batch_part", "batch"):
            connection.execute(text(f"DELETE FROM orchestrator.{table} WHERE batch_id = :b"), {"b": batch_id})
    assert verify(pipeline.engine, settings).breaches == []


# --- Healthy states that look a little like trouble --------------------------------------------------------------------------------

WELL = [
    "INSERT INTO orchestrator.outbox (slot, organization_id, batch_id, topic, key, headers, value, created_at)"
    " VALUES (0, 'org-standard', :b, 'batches', 'k', '[]', '{}', now() - interval '4 minutes')",
    "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 3, now() - interval '4 minutes', now())",
    "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 7, NULL, now())",
    # A sweeper that has not looked since then says nothing about the present.
    "INSERT INTO orchestrator.queue_end VALUES ('batches', 1, 'id', 7, 3, now() - interval '2 days', now() - interval '1 day')",
    "INSERT INTO orchestrator.role_start SELECT 'splitter', 'host', now() - n * interval '1 minute' FROM generate_series(1, 5) AS n",
    "INSERT INTO orchestrator.role_start SELECT 'splitter', 'host-' || n, now() FROM generate_series(1, 20) AS n",
    "INSERT INTO orchestrator.role_start SELECT 'splitter', 'host', now() - n * interval '1 hour' FROM generate_series(1, 20) AS n",
    # It has waited for long, but something of its batch was decided just now.
    "UPDATE orchestrator.batch_item SET attempt_at = now() - interval '2 hours' WHERE batch_id = :b AND position = 0",
]


@pytest.mark.parametrize("sql", WELL)
def test_row_53_a_healthy_state_is_no_breach(pipeline: Pipeline, settings: Settings, sql: str) -> None:
    running = healthy(pipeline)["running"]
    owner = create_engine(settings.owner_url)
    with owner.begin() as connection:
        connection.execute(text(sql), {"b": running} if ":b" in sql else {})
    owner.dispose()
    assert verify(pipeline.engine, settings).breaches == []


def test_row_53_ages_are_settings(pipeline: Pipeline, settings: Settings) -> None:
    """An age that means trouble in one deployment is normal in another."""
    running = healthy(pipeline)["running"]
    with pipeline.engine.begin() as connection:
        for sql in (WELL[0], WELL[1], WELL[4]):
            connection.execute(text(sql), {"b": running} if ":b" in sql else {})
    strict = settings.model_copy(update={"trouble_after_ms": 60_000, "max_restarts": 4})
    found = {breach.detail.partition(":")[0] for breach in verify(pipeline.engine, strict).breaches}
    assert found == {"event_waits", "queue_stands", "role_restarts"}
    assert {breach.invariant for breach in verify(pipeline.engine, strict).breaches} == {5}
