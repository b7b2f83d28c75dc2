"""What the API returns of the logs: receipts, the newest checkpoint, consistency proofs and keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection

from orchestrator.receipts.canonical import canonical_json
from orchestrator.receipts.checkpoint import SignedCheckpoint
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import VerifierKey
from orchestrator.receipts.leaf import person_hash
from orchestrator.receipts.merkle import consistency_proof, inclusion_proof, root
from orchestrator.storage.receipt_checkpoints import known_keys
from orchestrator.storage.receipt_reading import (
    People,
    Person,
    StoredCheckpoint,
    StoredHashes,
    StoredLeaf,
    last_checkpoint,
    leaves_of_batch,
    people,
)


@dataclass(frozen=True, slots=True)
class Consistency:
    """Shows that a log of one size is the beginning of the same log at a later size."""

    origin: str
    first_root: bytes
    second_root: bytes
    proof: Sequence[bytes]


class ReceiptReader:
    """The logs as the transaction of the connection sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def receipt(self, organization_id: str, batch_id: UUID, *, registered: int, revoked: int) -> bytes | None:
        """The receipt of a batch, in its only form. `registered` and `revoked` say how many of its records were.

        None while a checkpoint does not cover all of them.
        """
        checkpoint = last_checkpoint(self._connection, organization_id)
        if checkpoint is None:
            return None
        leaves = leaves_of_batch(self._connection, organization_id, checkpoint, batch_id)
        documents = [orjson.loads(leaf.raw) for leaf in leaves]
        changes = [document["change"] for document in documents]
        if changes.count("registered") < registered or changes.count("revoked") < revoked:
            return None
        hashes = StoredHashes(self._connection, organization_id, checkpoint.log)
        named = people(self._connection, organization_id, [leaf.audit_id for leaf in leaves])
        return canonical_json(
            {
                "version": 1,
                "checkpoint": checkpoint.note,
                "keys": [str(key) for key in self._signers(checkpoint)],
                "items": [
                    _item(leaf, document, named.get(leaf.audit_id), inclusion_proof(leaf.index, checkpoint.size, hashes))
                    for leaf, document in zip(leaves, documents, strict=True)
                ],
            }
        )

    def checkpoint(self, organization_id: str) -> StoredCheckpoint | None:
        """The organization's newest checkpoint."""
        return last_checkpoint(self._connection, organization_id)

    def consistency(self, organization_id: str, checkpoint: StoredCheckpoint, first: int, second: int) -> Consistency:
        """The proof between two sizes of the log of a checkpoint, which is at least as large as both."""
        hashes = StoredHashes(self._connection, organization_id, checkpoint.log)
        return Consistency(
            SignedCheckpoint.parse(checkpoint.note).checkpoint.origin,
            root(first, hashes),
            root(second, hashes),
            consistency_proof(first, second, hashes),
        )

    def keys(self, organization_id: str) -> Sequence[tuple[str, bool]]:
        """All public keys, and whether each signed the organization's newest checkpoint. Those that did come first."""
        checkpoint = last_checkpoint(self._connection, organization_id)
        current = set() if checkpoint is None else {str(key) for key in self._signers(checkpoint)}
        return sorted(((key, key in current) for key in known_keys(self._connection)), key=lambda pair: not pair[1])

    def has_keys(self) -> bool:
        """Whether there is a key that signs. A notary makes its key known before it signs anything."""
        return bool(known_keys(self._connection))

    def _signers(self, checkpoint: StoredCheckpoint) -> Sequence[VerifierKey]:
        signed = {(each.name, each.key_id) for each in SignedCheckpoint.parse(checkpoint.note).signatures}
        known = [VerifierKey.parse(text) for text in known_keys(self._connection)]
        return [key for key in known if (key.name, key.key_id) in signed]


def _item(leaf: StoredLeaf, document: dict[str, Any], named: People | None, proof: Sequence[bytes]) -> dict[str, Any]:
    shown = {}
    if named is not None:
        for role, person in named._asdict().items():
            # A person who was forgotten has no salt, or now has another id.
            if _is(person, document[role]):
                shown[role] = {"id": person.id, "salt": encoded(person.salt)}
    return {
        "item_id": document["item_id"],
        "index": leaf.index,
        "leaf": document,
        "proof": [encoded(each) for each in proof],
        "people": shown,
    }


def _is(person: Person, hashed: str) -> bool:
    return person.salt is not None and person_hash(person.salt, person.id) == hashed
