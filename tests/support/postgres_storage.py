"""The storage ports on PostgreSQL for tests: in transactions of the workers' role, which sees every organization."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Engine, text

from orchestrator.batches.repository import ActivityRepository, EventOf, TemplateStore
from orchestrator.storage.dispatch import DispatchState
from orchestrator.storage.parts import CollectedParts
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.templates import PostgresTemplates
from schemas.envelope import OutgoingEvent, Topic
from tests.support.storage import Decided, Ports, Storage

_DECIDE = """
    INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, activity_id, error, created_at)
    SELECT batch_id, :position, :attempt, organization_id, :outcome, CAST(:activity_id AS uuid), CAST(:error AS jsonb), :at
    FROM orchestrator.batch WHERE batch_id = :batch_id
    ON CONFLICT DO NOTHING
"""
_DISPATCH = """
    INSERT INTO orchestrator.dispatch (batch_id, position, organization_id, attempt, state, activity_id, error, dispatched_at, answered_at)
    SELECT batch_id, position, organization_id, attempt, :state, CASE WHEN :state = 'registered' THEN gen_random_uuid() END,
           CASE WHEN :state = 'refused' THEN jsonb_build_object() END, :at, CASE WHEN :state <> 'asked' THEN now() END
    FROM orchestrator.batch_item WHERE (batch_id, position) = (:batch_id, :position)
"""
_BURY = """
    INSERT INTO orchestrator.tombstone
    SELECT batch_id, organization_id, content_hash, now() FROM orchestrator.batch WHERE batch_id = :batch_id
"""
_OF_BATCHES = (
    "outcome",
    "item_history",
    "dispatch",
    "revocation_request",
    "batch_item",
    "batch_part",
    "batch_edit",
    "batch_dismissal",
    "batch",
)
_TAKE_OUTBOX = """
    WITH taken AS (DELETE FROM orchestrator.outbox RETURNING *)
    SELECT organization_id, batch_id, topic, key, headers, value FROM taken ORDER BY outbox_id
"""


class PostgresStorage(Storage):
    """A database of PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def transaction(self) -> Iterator[Ports]:
        with self._engine.begin() as connection:
            yield Ports(PostgresActivityRepository(connection), CollectedParts(connection))

    @contextmanager
    def template_transaction(self) -> Iterator[tuple[ActivityRepository, TemplateStore]]:
        with self._engine.begin() as connection:
            yield PostgresActivityRepository(connection), PostgresTemplates(connection)

    def know_coordinator(self, organization_id: str, coordinator_id: str) -> None:
        self._execute(
            "INSERT INTO registration.coordinator VALUES (:organization_id, :coordinator_id, 'Coordinator', 'coordinator')",
            organization_id=organization_id,
            coordinator_id=coordinator_id,
        )

    def decide(self, batch_id: UUID, position: int, attempt: int, decided: Decided) -> None:
        self._execute(
            _DECIDE,
            batch_id=batch_id,
            position=position,
            attempt=attempt,
            outcome=decided.outcome,
            activity_id=decided.activity_id,
            error=None if decided.error is None else orjson.dumps(decided.error.as_json()).decode(),
            at=decided.at,
        )

    def dispatch(self, batch_id: UUID, position: int, state: DispatchState, at: datetime) -> None:
        self._execute(_DISPATCH, batch_id=batch_id, position=position, state=state, at=at)

    def purge(self, batch_id: UUID) -> None:
        self._execute(_BURY, batch_id=batch_id)
        for table in _OF_BATCHES:
            self._execute(f"DELETE FROM orchestrator.{table} WHERE batch_id = :batch_id", batch_id=batch_id)

    def take_outbox(self) -> list[EventOf]:
        with self._engine.begin() as connection:
            return [
                EventOf(
                    row.organization_id,
                    row.batch_id,
                    OutgoingEvent(
                        Topic(row.topic), row.key, tuple((name, value.encode()) for name, value in row.headers), bytes(row.value)
                    ),
                )
                for row in connection.execute(text(_TAKE_OUTBOX))
            ]

    def _execute(self, sql: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(sql), values)
