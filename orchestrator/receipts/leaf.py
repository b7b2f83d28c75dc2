"""Leaves: one registration or revocation of a record, as the log keeps it. A leaf names no person and has no notes."""

import hashlib
import hmac

from orchestrator.receipts.canonical import canonical_json
from schemas.api.receipts import LeafResponse

SALT_SIZE = 32


def person_hash(salt: bytes, person_id: str) -> str:
    """How a leaf writes a person: without the salt, nobody can tell who it is."""
    return hmac.digest(salt, person_id.encode(), hashlib.sha256).hex()


def leaf_bytes(leaf: LeafResponse) -> bytes:
    """The leaf as it is hashed: its canonical JSON."""
    return canonical_json(leaf.model_dump(mode="json", exclude_none=True))
