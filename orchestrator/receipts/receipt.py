"""Receipts as files, and what can be checked of one without asking anybody."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from orchestrator.receipts.canonical import canonical_json
from orchestrator.receipts.checkpoint import (
    BadCheckpointError,
    Checkpoint,
    SignedCheckpoint,
    UnknownKeyError,
    WrongSignatureError,
    is_origin_of,
)
from orchestrator.receipts.encoding import decoded
from orchestrator.receipts.keys import BadKeyError, VerifierKey
from orchestrator.receipts.leaf import leaf_bytes, person_hash
from orchestrator.receipts.merkle import leaf_hash, root_of_inclusion
from schemas.api.receipts import PersonResponse, ReceiptItemResponse, ReceiptResponse
from schemas.strict_json import BadJsonError, loads

_MAX_DEPTH = 6


class Fault(StrEnum):
    """What can be wrong with a receipt."""

    UNREADABLE = "unreadable"
    """It is not a receipt: not JSON, or fields are missing, unknown or malformed."""
    REWRITTEN = "rewritten"
    """It is not written in the one form that a receipt has."""
    KEY_MALFORMED = "key_malformed"
    CHECKPOINT_MALFORMED = "checkpoint_malformed"
    KEY_UNKNOWN = "key_unknown"
    SIGNATURE_WRONG = "signature_wrong"
    PROOF_MALFORMED = "proof_malformed"
    """The proof does not fit the record's place and the size of the log."""
    RECORD_CHANGED = "record_changed"
    """Record, place and proof lead to another root: one of them was changed."""
    ITEM_CHANGED = "item_changed"
    """What stands beside the record contradicts it: the item, or the organization that the log belongs to."""
    PERSON_CHANGED = "person_changed"
    """A person's id and salt do not give the hash in the record."""
    ORDER_WRONG = "order_wrong"
    """A record appears twice, or the records are not in the order of the log."""


@dataclass(frozen=True, slots=True)
class ReceiptFault:
    """Something wrong: of the whole receipt, or of the item at a position in its list."""

    fault: Fault
    message: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class CheckedReceipt:
    """What a check found. The receipt holds if there is no fault. Receipt, checkpoint and signers are there as far as they could be read."""

    faults: tuple[ReceiptFault, ...]
    receipt: ReceiptResponse | None = None
    checkpoint: Checkpoint | None = None
    signers: tuple[VerifierKey, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything in the receipt is as it was when it was signed."""
        return not self.faults


def check_receipt(raw: bytes, trusted: Sequence[VerifierKey] | None = None) -> CheckedReceipt:
    """Checks everything in a receipt, and returns all that is wrong with it.

    Without trusted keys, only the keys in the receipt are used. The check then shows that their owner signed the receipt, but not who that
    is: somebody has to compare the keys.
    """
    try:
        document = loads(raw, max_depth=_MAX_DEPTH)
        receipt = ReceiptResponse.model_validate(document)
    except BadJsonError as error:
        return CheckedReceipt((ReceiptFault(Fault.UNREADABLE, f"This is not a receipt: {error}."),))
    except ValidationError as error:
        return CheckedReceipt((ReceiptFault(Fault.UNREADABLE, f"This is not a receipt: {_first_mistake(error)}."),))
    faults = list(_rewritten(raw, document))
    keys, key_faults = _keys(receipt)
    faults += key_faults
    signers: tuple[VerifierKey, ...] = ()
    try:
        signed = SignedCheckpoint.parse(receipt.checkpoint)
    except BadCheckpointError as error:
        faults.append(ReceiptFault(Fault.CHECKPOINT_MALFORMED, _sentence(error)))
        return CheckedReceipt(tuple(faults), receipt)
    try:
        signers = signed.signers(keys)
        if trusted is not None and not set(signers) & set(trusted):
            faults.append(ReceiptFault(Fault.KEY_UNKNOWN, "The checkpoint was not signed with the key that you named."))
    except UnknownKeyError as error:
        faults.append(ReceiptFault(Fault.KEY_UNKNOWN, _sentence(error)))
    except WrongSignatureError as error:
        faults.append(ReceiptFault(Fault.SIGNATURE_WRONG, _sentence(error)))
    faults += _item_faults(receipt, signed.checkpoint)
    return CheckedReceipt(tuple(faults), receipt, signed.checkpoint, signers)


def _rewritten(raw: bytes, document: Any) -> Iterator[ReceiptFault]:
    try:
        if canonical_json(document) == raw:
            return
    except ValueError:
        pass
    yield ReceiptFault(
        Fault.REWRITTEN, "The file was rewritten: blanks, order or spelling are not those of a receipt. Use the original file."
    )


def _keys(receipt: ReceiptResponse) -> tuple[list[VerifierKey], list[ReceiptFault]]:
    keys: list[VerifierKey] = []
    faults: list[ReceiptFault] = []
    for text in receipt.keys:
        try:
            keys.append(VerifierKey.parse(text))
        except BadKeyError as error:
            faults.append(ReceiptFault(Fault.KEY_MALFORMED, f"A key of the receipt was changed: {error}."))
    return keys, faults


def _item_faults(receipt: ReceiptResponse, checkpoint: Checkpoint) -> Iterator[ReceiptFault]:
    previous = -1
    for position, item in enumerate(receipt.items):
        if item.index <= previous:
            yield ReceiptFault(Fault.ORDER_WRONG, f"Record {item.index} appears twice or out of order.", position)
        previous = item.index
        for fault, message in _faults_of(item, checkpoint):
            yield ReceiptFault(fault, message, position)


def _faults_of(item: ReceiptItemResponse, checkpoint: Checkpoint) -> Iterator[tuple[Fault, str]]:
    leaf = item.leaf
    try:
        proof = [decoded(each) for each in item.proof]
        if root_of_inclusion(leaf_hash(leaf_bytes(leaf)), item.index, checkpoint.size, proof) != checkpoint.root:
            yield Fault.RECORD_CHANGED, f"Record {item.index} or its proof was changed: they do not lead to the root of the log."
    except ValueError as error:
        yield Fault.PROOF_MALFORMED, f"The proof of record {item.index} was changed: {error}."
    if item.item_id != leaf.item_id:
        yield Fault.ITEM_CHANGED, f"Record {item.index} is not about the item that the receipt names."
    if not is_origin_of(checkpoint.origin, leaf.organization_id):
        yield Fault.ITEM_CHANGED, f"Record {item.index} is about another organization than the log."
    for person, hashed in ((item.people.mentor, leaf.mentor), (item.people.by, leaf.by)):
        if person is not None and not _is(person, hashed):
            yield Fault.PERSON_CHANGED, f"Record {item.index} is not about the person that the receipt names."


def _is(person: PersonResponse, hashed: str) -> bool:
    try:
        return person_hash(decoded(person.salt), person.id) == hashed
    except ValueError:
        return False


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."


def _first_mistake(error: ValidationError) -> str:
    """Where the first mistake is, without the value that is there."""
    mistake = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = "".join(f"/{part}" for part in mistake["loc"])
    match mistake["type"]:
        case "missing":
            return f"{place} is missing"
        case "extra_forbidden":
            return f"{place} is unknown"
        case _:
            return f"{place or 'the whole'} has a value that no receipt has"
