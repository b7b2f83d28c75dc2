"""Receipts: evidence that records existed when a checkpoint was signed, and have not changed since (docs/receipts.md).

A receipt is one text only (canonical JSON, RFC 8785), so its models accept no field and no spelling but their own.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from schemas.api.base import Request, Response
from schemas.fields import Int32, StoredId

_UuidText = Annotated[
    str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", strict=True)
]
_DateText = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", strict=True)]
_TimeText = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$", strict=True)
]
_PersonHash = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{64}$", strict=True),
    Field(description="HMAC-SHA256 of the person's id in hexadecimal digits; the key is the person's salt."),
]
_Hash = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$", strict=True)]
_Key = Annotated[str, StringConstraints(min_length=1, strict=True)]


class _Exact(Response):
    """The base of what a receipt contains. Fields that do not apply are left out, never null."""

    model_config = ConfigDict(extra="forbid")


class LeafResponse(_Exact):
    """One change of a record, as the log keeps it. It names nobody: people stand in it as hashes."""

    change: Literal["registered", "revoked"]
    activity_id: _UuidText
    organization_id: StoredId
    mentor: _PersonHash
    activity_type: StoredId
    activity_date: _DateText
    duration_minutes: Int32
    by: Annotated[_PersonHash, Field(description="Who registered or revoked it; hashed like the mentor.")]
    at: _TimeText
    batch_id: _UuidText
    item_id: _UuidText
    attempt: Annotated[Int32 | None, Field(description="Left out if a record from before the log does not tell.")] = None
    before_log: Annotated[Literal[True] | None, Field(description="Present if the record is older than the log.")] = None


class PersonResponse(_Exact):
    """A person's id and salt, with which a hash in the leaf can be computed again."""

    id: StoredId
    salt: Annotated[_Hash, Field(description="32 random bytes in base64.")]


class PeopleResponse(_Exact):
    """The people of a leaf. A person who was forgotten is left out."""

    mentor: PersonResponse | None = None
    by: PersonResponse | None = None


class ReceiptItemResponse(_Exact):
    """A leaf, its place in the log, and the proof that it is there."""

    item_id: _UuidText
    index: Annotated[int, Field(ge=0, strict=True, description="The leaf's place in the log, from 0.")]
    leaf: LeafResponse
    proof: Annotated[tuple[_Hash, ...], Field(description="Hashes in base64, from the leaf to the root (RFC 9162).")]
    people: PeopleResponse


class ReceiptResponse(_Exact):
    """The records of a batch with their proofs, under a signed checkpoint. Items are in the order of their index."""

    version: Annotated[int, Field(ge=1, le=1, strict=True)] = 1
    checkpoint: Annotated[
        str, StringConstraints(strict=True), Field(description="Origin, size and root of the log, signed (C2SP tlog-checkpoint).")
    ]
    keys: Annotated[tuple[_Key, ...], Field(min_length=1, description="The public keys that signed the checkpoint.")]
    items: tuple[ReceiptItemResponse, ...]


class ReceiptKeyResponse(Response):
    """A public key that signs checkpoints, or did so."""

    key: Annotated[str, Field(description="As C2SP signed notes write it: name, id and bytes, with plus signs between them.")]
    current: Annotated[bool, Field(description="Whether new checkpoints are signed with it.")]


class ReceiptKeysResponse(Response):
    """All keys that ever signed checkpoints, the current one first."""

    keys: tuple[ReceiptKeyResponse, ...]


class CheckpointResponse(Response):
    """The newest checkpoint of the organization's log."""

    checkpoint: Annotated[str, Field(description="Origin, size and root of the log, signed (C2SP tlog-checkpoint).")]


class ConsistencyQuery(Request):
    """Two sizes of the log."""

    size_from: Annotated[int, Field(alias="from", ge=1, le=2**53 - 1, description="The smaller size.")]
    size_to: Annotated[
        int | None, Field(alias="to", ge=1, le=2**53 - 1, description="The larger size. Default: that of the newest checkpoint.")
    ] = None


class ConsistencyResponse(Response):
    """Shows that the log at the smaller size is the beginning of the log at the larger size (RFC 9162, 2.1.4)."""

    origin: Annotated[str, Field(description="Which log this is.")]
    size_from: Annotated[int, Field(alias="from")]
    size_to: Annotated[int, Field(alias="to")]
    from_root: _Hash
    to_root: _Hash
    proof: tuple[_Hash, ...]
