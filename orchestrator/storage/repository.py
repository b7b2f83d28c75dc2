"""The activity repository on PostgreSQL: all table families behind one port."""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from orchestrator.batches.model import Actor, Idempotency
from orchestrator.batches.repository import KeyUse, UsedKey
from orchestrator.storage import arrays
from orchestrator.storage.items import Items
from orchestrator.storage.prepared import Prepared
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/repository.sql")

_USE_KEYS = _SQL["use_keys"].prepared()
_USED_KEYS = _SQL["used_keys"].text()
_USED_KEY = _SQL["used_key"].text()
_STORE_RESULT = _SQL["store_result"].text()
_KNOWN_COORDINATORS = _SQL["known_coordinators"].prepared()
_CLOCK_AND_COORDINATORS = Prepared(f"SELECT clock_timestamp(), ARRAY ({_KNOWN_COORDINATORS.sql})")


class PostgresActivityRepository(Items):
    """Implements `ActivityRepository` in the transaction of its connection."""

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
            # If the conflicting key no longer exists, it has expired in between, and the next round claims it.
            unsettled = [use for use in lost if use.batch_id not in used]
        return used

    def used_key(self, actor: Actor, idempotency: Idempotency) -> UsedKey | None:
        row = self._connection.execute(_USED_KEY, _key(actor, idempotency)).one_or_none()
        return None if row is None else UsedKey(bytes(row.request_hash), UUID(row.batch_id), row.answer)

    def store_result(self, actor: Actor, idempotency: Idempotency, result: Mapping[str, Any]) -> None:
        self._connection.execute(_STORE_RESULT, {**_key(actor, idempotency), "answer": orjson.dumps(result).decode()})


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
