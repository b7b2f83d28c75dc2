"""Checkpoints: the size and the root of a log, signed (C2SP tlog-checkpoint in a signed note)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from orchestrator.receipts.encoding import decoded, encoded
from orchestrator.receipts.keys import SigningKey, VerifierKey
from orchestrator.receipts.merkle import HASH_SIZE

_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_SIGNATURE = re.compile(r"— (?P<name>[^ ]+) (?P<value>[^ ]+)")
_ID_SIZE, _SIGNATURE_SIZE = 4, 64


class BadCheckpointError(ValueError):
    """A text is not a checkpoint of ours. The message says why."""


class UnknownKeyError(BadCheckpointError):
    """A signature is by a key that is not among those given."""


class WrongSignatureError(BadCheckpointError):
    """A signature does not belong to the text and the key that it names: one of the three was changed."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log: its origin (which log it is), its size, and its root."""

    origin: str
    size: int
    root: bytes

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{encoded(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The checkpoint that `str` wrote. Raises BadCheckpointError."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0]:
            raise BadCheckpointError("a checkpoint has three lines: origin, size and root")
        if not _SIZE.fullmatch(lines[1]):
            raise BadCheckpointError("the size of the checkpoint is not a number")
        try:
            root = decoded(lines[2])
        except ValueError as error:
            raise BadCheckpointError(f"the root of the checkpoint is {error}") from None
        if len(root) != HASH_SIZE:
            raise BadCheckpointError("the root of the checkpoint does not have 32 bytes")
        return cls(lines[0], int(lines[1]), root)


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature of a checkpoint, and the key that it names."""

    name: str
    key_id: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint with its signatures, not yet verified."""

    checkpoint: Checkpoint
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, note: str) -> Self:
        """The parts of a signed checkpoint. Raises BadCheckpointError."""
        text, separator, signed = note.partition("\n\n")
        if not separator or not signed.endswith("\n"):
            raise BadCheckpointError("the checkpoint has no signature")
        signatures = tuple(_signature(line) for line in signed.removesuffix("\n").split("\n"))
        return cls(Checkpoint.parse(text + "\n"), signatures)

    def signers(self, keys: Sequence[VerifierKey]) -> tuple[VerifierKey, ...]:
        """The keys that signed. Every signature must be one of these keys' and be valid: raises UnknownKeyError or WrongSignatureError.

        Notes of other systems may have signatures of unknown keys, which their readers skip. Here such a signature is refused, so that
        no byte of a receipt can be changed without being noticed.
        """
        return tuple(self._signer(signature, keys) for signature in self.signatures)

    def is_signed_by_one_of(self, keys: Sequence[VerifierKey]) -> bool:
        """Whether one of these keys has signed it. Other signatures are skipped, as readers of signed notes do."""
        message = str(self.checkpoint).encode()
        return any(
            (key.name, key.key_id) == (signature.name, signature.key_id) and key.has_signed(message, signature.value)
            for signature in self.signatures
            for key in keys
        )

    def _signer(self, signature: Signature, keys: Sequence[VerifierKey]) -> VerifierKey:
        named = [key for key in keys if (key.name, key.key_id) == (signature.name, signature.key_id)]
        if not named:
            raise UnknownKeyError(f"the key {signature.name}+{signature.key_id.hex()}, which signed the checkpoint, is not known")
        message = str(self.checkpoint).encode()
        for key in named:
            if key.has_signed(message, signature.value):
                return key
        raise WrongSignatureError("the checkpoint or its signature was changed: they do not belong together")


def sign(checkpoint: Checkpoint, *keys: SigningKey) -> str:
    """The checkpoint as a note, signed with each key."""
    text = str(checkpoint)
    lines = [f"— {key.name} {encoded(key.verifier.key_id + key.sign(text.encode()))}\n" for key in keys]
    return f"{text}\n{''.join(lines)}"


def origin(name: str, organization_id: str, number: int = 1) -> str:
    """Which log this is: the name that all logs of a product share (the name of its key), the organization, and `#2` for its second log.

    A log with a number replaces the one before it, whose origin it names in this way.
    """
    return f"{name}/{quote(organization_id, safe='')}" + (f"#{number}" if number > 1 else "")


def is_origin_of(text: str, organization_id: str) -> bool:
    """Returns whether a log with this origin is one of the organization's."""
    return text.rpartition("/")[2].partition("#")[0] == quote(organization_id, safe="")


def is_origin_of_log(text: str, organization_id: str, number: int) -> bool:
    """Returns whether this is the origin of the organization's log with that number."""
    return text.rpartition("/")[2] == origin("", organization_id, number)[1:]


def _signature(line: str) -> Signature:
    match = _SIGNATURE.fullmatch(line)
    if match is None:
        raise BadCheckpointError("a signature of the checkpoint is not written as one")
    try:
        value = decoded(match["value"])
    except ValueError as error:
        raise BadCheckpointError(f"a signature of the checkpoint is {error}") from None
    if len(value) != _ID_SIZE + _SIGNATURE_SIZE:
        raise BadCheckpointError("a signature of the checkpoint does not have 68 bytes")
    return Signature(match["name"], value[:_ID_SIZE], value[_ID_SIZE:])
