"""Reads the logs of receipts: hashes for roots and proofs, the newest checkpoint, and the leaves of a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import Connection

from orchestrator.receipts.merkle import Place, node_hash
from orchestrator.storage import arrays
from orchestrator.storage.receipt_appending import SPAN, SPAN_LEVEL, split_hashes, unpacked_leaves
from orchestrator.storage.statements import read_statements

_SQL = read_statements("orchestrator/storage/sql/receipt_reading.sql")

_RUN_HASHES = _SQL["run_hashes"].text()
_NODES = _SQL["nodes"].text()
_LAST_CHECKPOINT = _SQL["last_checkpoint"].text()
_LEAVES_OF_BATCH = _SQL["leaves_of_batch"].text()
_PERSONS = _SQL["persons"].text()


class MissingHashError(Exception):
    """The tables lack a hash of a log. `bulkreg receipts audit` says what is missing."""


class StoredHashes:
    """The hashes of perfect subtrees of one log, as `orchestrator.receipts.merkle` asks for them. Reads a span of 256 hashes at a time."""

    def __init__(self, connection: Connection, organization_id: str, log: int) -> None:
        self._connection = connection
        self._key = {"organization_id": organization_id, "log": log}
        self._spans: dict[Place, dict[int, bytes]] = {}
        self._hashes: dict[Place, bytes] = {}

    def __call__(self, level: int, index: int) -> bytes:
        """The hash at a place. Raises MissingHashError."""
        place = Place(level, index)
        if place not in self._hashes:
            is_stored = level % SPAN_LEVEL == 0
            self._hashes[place] = self._stored(place) if is_stored else self._computed(place)
        return self._hashes[place]

    def _computed(self, place: Place) -> bytes:
        left = 2 * place.number
        return node_hash(self(place.level - 1, left), self(place.level - 1, left + 1))

    def _stored(self, place: Place) -> bytes:
        span = Place(place.level, place.number // SPAN)
        if span not in self._spans:
            self._spans[span] = dict(self._read(span))
        try:
            return self._spans[span][place.number]
        except KeyError:
            raise MissingHashError(f"the hash {place.number} of level {place.level} is missing") from None

    def _read(self, span: Place) -> Iterable[tuple[int, bytes]]:
        parameters = {**self._key, "first_index": span.number * SPAN, "end_index": (span.number + 1) * SPAN}
        if span.level == 0:
            for first_index, hashes in self._connection.execute(_RUN_HASHES, parameters):
                yield from enumerate(split_hashes(hashes), first_index)
        else:
            for index, hashed in self._connection.execute(_NODES, {**parameters, "level": span.level}):
                yield index, bytes(hashed)


class StoredCheckpoint(NamedTuple):
    """A checkpoint, and the number of the log that it is of."""

    log: int
    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """A leaf as it was hashed, its place, and its audit row."""

    index: int
    audit_id: int
    raw: bytes


class Person(NamedTuple):
    """A person, and the salt; None if the person was forgotten."""

    id: str
    salt: bytes | None


class People(NamedTuple):
    """The persons that an audit row names."""

    mentor: Person
    by: Person


def last_checkpoint(connection: Connection, organization_id: str) -> StoredCheckpoint | None:
    """The newest checkpoint of the organization."""
    row = connection.execute(_LAST_CHECKPOINT, {"organization_id": organization_id}).one_or_none()
    return None if row is None else StoredCheckpoint(row.log, row.size, bytes(row.root), row.note)


def leaves_of_batch(
    connection: Connection, organization_id: str, checkpoint: StoredCheckpoint, batch_id: UUID
) -> list[StoredLeaf]:
    """The leaves of a batch that a checkpoint covers, in their order."""
    parameters = {"organization_id": organization_id, "log": checkpoint.log, "size": checkpoint.size, "batch_id": batch_id}
    wanted = str(batch_id)
    return [
        StoredLeaf(row.first_index + number, audit_id, raw)
        for row in connection.execute(_LEAVES_OF_BATCH, parameters)
        for number, (audit_id, raw) in enumerate(zip(row.audit_ids, unpacked_leaves(row.leaves), strict=True))
        if orjson.loads(raw)["batch_id"] == wanted
    ]


def people(connection: Connection, organization_id: str, audit_ids: Sequence[int]) -> dict[int, People]:
    """The persons of audit rows, by the rows' ids."""
    rows = connection.execute(_PERSONS, {"organization_id": organization_id, "audit_ids": arrays.plain(audit_ids)})
    return {
        row.audit_id: People(Person(row.mentor_id, _salt(row.mentor_salt)), Person(row.by_id, _salt(row.by_salt))) for row in rows
    }


def _salt(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)
