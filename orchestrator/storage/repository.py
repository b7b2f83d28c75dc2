"""The activity repository on PostgreSQL: all table families behind one port."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from orchestrator.batches.model import Actor, Idempotency
from orchestrator.batches.repository import KeyUse, UsedKey
from orchestrator.storage import arrays
from orchestrator.storage.items import Items
from orchestrator.storage.prepared import Prepared

# A rival that uses the same key right now is waited for: its row decides. In order of the key, so that two sets don't wait in a circle.
_USE_KEYS = Prepared("""
    INSERT INTO orchestrator.idempotency_key (organization_id, subject, key, request_hash, batch_id, created_at)
    SELECT u.organization_id, u.subject, u.key, u.request_hash, u.batch_id, now()
    FROM unnest(CAST(:organizations AS text[]), CAST(:subjects AS text[]), CAST(:keys AS text[]), CAST(:hashes AS bytea[]),
                CAST(:batch_ids AS uuid[])) WITH ORDINALITY AS u (organization_id, subject, key, request_hash, batch_id, ord)
    ORDER BY u.organization_id, u.subject, u.key, u.ord
    ON CONFLICT DO NOTHING
    RETURNING batch_id::text
""")
_USED_KEYS = text("""
    SELECT u.batch_id::text AS wanted_by, k.request_hash, k.batch_id::text, k.answer
    FROM unnest(CAST(:organizations AS text[]), CAST(:subjects AS text[]), CAST(:keys AS text[]), CAST(:batch_ids AS uuid[]))
         AS u (organization_id, subject, key, batch_id)
    JOIN orchestrator.idempotency_key k USING (organization_id, subject, key)
""")
_USED_KEY = text("""
    SELECT request_hash, batch_id::text, answer FROM orchestrator.idempotency_key
    WHERE (organization_id, subject, key) = (:organization_id, :subject, :key)
""")
_ANSWER_KEY = text("""
    UPDATE orchestrator.idempotency_key SET answer = CAST(:answer AS jsonb)
    WHERE (organization_id, subject, key) = (:organization_id, :subject, :key)
""")
_KNOWN_COORDINATORS = Prepared("""
    SELECT coordinator_id FROM registration.coordinator
    WHERE organization_id = :organization_id AND coordinator_id = ANY (CAST(:coordinator_ids AS text[]))
""")
_CLOCK_AND_COORDINATORS = Prepared(f"SELECT clock_timestamp(), ARRAY ({_KNOWN_COORDINATORS.sql})")


class PostgresActivityRepository(Items):
    """Implements `ActivityRepository` in the transaction of the connection it is given."""

    def known_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> Set[str]:
        parameters = {"organization_id": organization_id, "coordinator_ids": arrays.texts(coordinator_ids)}
        return frozenset(_KNOWN_COORDINATORS.scalars(self._connection, parameters))

    def clock_and_coordinators(self, organization_id: str, coordinator_ids: Set[str]) -> tuple[datetime, Set[str]]:
        parameters = {"organization_id": organization_id, "coordinator_ids": arrays.texts(coordinator_ids)}
        [(now, known)] = _CLOCK_AND_COORDINATORS.rows(self._connection, parameters)
        return now, frozenset(known)

    def use_keys(self, uses: Sequence[KeyUse]) -> Mapping[UUID, UsedKey]:
        used: dict[UUID, UsedKey] = {}
        unsettled = list(uses)
        while unsettled:
            claimed = set(_USE_KEYS.scalars(self._connection, _keys(unsettled)))
            lost = [use for use in unsettled if str(use.batch_id) not in claimed]
            if not lost:
                break
            rows = self._connection.execute(_USED_KEYS, _keys(lost))
            used |= {UUID(row.wanted_by): UsedKey(bytes(row.request_hash), UUID(row.batch_id), row.answer) for row in rows}
            # A key that stood in the way and is not there any more has expired in between: it is claimed like any other.
            unsettled = [use for use in lost if use.batch_id not in used]
        return used

    def used_key(self, actor: Actor, idempotency: Idempotency) -> UsedKey | None:
        row = self._connection.execute(_USED_KEY, _key(actor, idempotency)).one_or_none()
        return None if row is None else UsedKey(bytes(row.request_hash), UUID(row.batch_id), row.answer)

    def answer_key(self, actor: Actor, idempotency: Idempotency, answer: Mapping[str, Any]) -> None:
        self._connection.execute(_ANSWER_KEY, {**_key(actor, idempotency), "answer": orjson.dumps(answer).decode()})


def _keys(uses: Sequence[KeyUse]) -> dict[str, Any]:
    return {
        "organizations": arrays.texts([use.actor.organization_id for use in uses]),
        "subjects": arrays.texts([use.actor.subject for use in uses]),
        "keys": arrays.texts([use.idempotency.key for use in uses]),
        "hashes": [use.idempotency.request_hash for use in uses],
        "batch_ids": arrays.plain([use.batch_id for use in uses]),
    }


def _key(actor: Actor, idempotency: Idempotency) -> dict[str, str]:
    return {"organization_id": actor.organization_id, "subject": actor.subject, "key": idempotency.key}
