"""Receipts: what is made holds, and nothing in it can be changed."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.receipts.canonical import canonical_json
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.leaf import leaf_bytes, person_hash
from orchestrator.receipts.receipt import Fault, check_receipt
from schemas.api.receipts import LeafResponse
from tests.support.merkle_log import example_leaf, example_receipt, leaf, receipt_bytes

KEY = SigningKey("records.example.org", bytes(range(32)))
OTHER = SigningKey("records.example.org", bytes(32))
RECEIPT = receipt_bytes(example_receipt(records=[2, 5], size=7, key=KEY, forgotten=[5]))


def test_a_leaf_has_one_text() -> None:
    built = leaf(
        change="registered",
        activity_id=UUID(int=1),
        organization_id="nordlys",
        mentor=person_hash(bytes(32), "kari"),
        activity_type="samtale på kafé",
        activity_date=date(2026, 3, 31),
        duration_minutes=60,
        by=person_hash(bytes(32), "ingrid"),
        at=datetime(2026, 3, 31, 14, tzinfo=timezone(timedelta(hours=2))),
        batch_id=UUID(int=2),
        item_id=UUID(int=3),
        attempt=1,
    )
    assert leaf_bytes(built).decode() == (
        '{"activity_date":"2026-03-31","activity_id":"00000000-0000-0000-0000-000000000001","activity_type":"samtale på kafé",'
        '"at":"2026-03-31T12:00:00.000000Z","attempt":1,"batch_id":"00000000-0000-0000-0000-000000000002",'
        '"by":"e041fd63e14c1895f298b6bcf05709e0a637081ea0a4d68818a53a86127964d7","change":"registered","duration_minutes":60,'
        '"item_id":"00000000-0000-0000-0000-000000000003",'
        '"mentor":"d4d6fc1bdf0b63dd69002618e8c90d62d926cc527716b4c0724bef16e8c46f30","organization_id":"nordlys"}'
    )
    assert LeafResponse.model_validate_json(leaf_bytes(built)) == built


def test_a_leaf_of_a_record_from_before_the_log_says_so() -> None:
    old = example_leaf(1).model_copy(update={"before_log": True, "attempt": None})
    assert b'"before_log":true' in leaf_bytes(old)
    assert b"attempt" not in leaf_bytes(old)


def test_a_receipt_holds() -> None:
    checked = check_receipt(RECEIPT)
    assert checked.holds
    assert checked.faults == ()
    assert checked.signers == (KEY.verifier,)
    assert checked.checkpoint is not None
    assert (checked.checkpoint.origin, checked.checkpoint.size) == ("records.example.org/nordlys", 7)
    assert checked.receipt is not None
    first, second = checked.receipt.items
    assert first.people.mentor is not None
    assert first.people.mentor.id == "mentor-2"
    assert second.people.mentor is None


@pytest.mark.parametrize("size", [1, 2, 3, 8, 33])
def test_every_record_of_a_log_has_a_receipt_that_holds(size: int) -> None:
    assert check_receipt(receipt_bytes(example_receipt(records=range(size), size=size, key=KEY))).holds


def test_a_trusted_key_has_to_be_the_one_that_signed() -> None:
    assert check_receipt(RECEIPT, [OTHER.verifier, KEY.verifier]).holds
    assert [each.fault for each in check_receipt(RECEIPT, [OTHER.verifier]).faults] == [Fault.KEY_UNKNOWN]


def test_every_altered_byte_is_refused() -> None:
    for at in range(len(RECEIPT)):
        altered = RECEIPT[:at] + bytes([RECEIPT[at] ^ 1]) + RECEIPT[at + 1 :]
        assert not check_receipt(altered).holds, (at, altered[at - 20 : at + 20])


@given(at=st.integers(0, len(RECEIPT) - 1), by=st.integers(0, 255))
def test_any_other_byte_is_refused(at: int, by: int) -> None:
    altered = RECEIPT[:at] + bytes([by]) + RECEIPT[at + 1 :]
    assert check_receipt(altered).holds == (altered == RECEIPT)


@given(at=st.integers(0, len(RECEIPT)), extra=st.binary(max_size=3), removed=st.integers(0, 3))
def test_any_bytes_more_or_fewer_are_refused(at: int, extra: bytes, removed: int) -> None:
    altered = RECEIPT[:at] + extra + RECEIPT[at + removed :]
    assert check_receipt(altered).holds == (altered == RECEIPT)


def changed(change: Callable[[Any], None]) -> bytes:
    """The receipt with a change, written as receipts are."""
    document = json.loads(RECEIPT)
    change(document)
    return canonical_json(document)


def other_leaf(document: Any) -> None:
    document["items"][0]["leaf"]["duration_minutes"] = 600


def other_index(document: Any) -> None:
    document["items"][0]["index"] = 3


def index_outside(document: Any) -> None:
    document["items"][1]["index"] = 7


def other_proof(document: Any) -> None:
    document["items"][0]["proof"][1] = document["items"][1]["proof"][1]


def short_proof(document: Any) -> None:
    document["items"][0]["proof"].pop()


def other_item(document: Any) -> None:
    document["items"][0]["item_id"] = document["items"][1]["item_id"]


def other_mentor(document: Any) -> None:
    document["items"][0]["people"]["mentor"]["id"] = "mentor-3"


def other_salt(document: Any) -> None:
    document["items"][0]["people"]["by"]["salt"] = encoded(bytes(32))


def other_size(document: Any) -> None:
    document["checkpoint"] = document["checkpoint"].replace("\n7\n", "\n8\n")


def other_key(document: Any) -> None:
    document["keys"] = [str(OTHER.verifier)]


def key_with_another_name(document: Any) -> None:
    document["keys"] = [document["keys"][0].replace("records", "record5")]


def no_signature(document: Any) -> None:
    document["checkpoint"] = document["checkpoint"].partition("\n\n")[0]


def twice(document: Any) -> None:
    document["items"].append(document["items"][1])


def unknown_field(document: Any) -> None:
    document["items"][0]["leaf"]["notes"] = "more"


def no_keys(document: Any) -> None:
    document["keys"] = []


def later_version(document: Any) -> None:
    document["version"] = 2


FAULTS: list[tuple[Callable[[Any], None], set[tuple[Fault, int | None]]]] = [
    (other_leaf, {(Fault.RECORD_CHANGED, 0)}),
    (other_index, {(Fault.RECORD_CHANGED, 0)}),
    (index_outside, {(Fault.PROOF_MALFORMED, 1)}),
    (other_proof, {(Fault.RECORD_CHANGED, 0)}),
    (short_proof, {(Fault.PROOF_MALFORMED, 0)}),
    (other_item, {(Fault.ITEM_CHANGED, 0)}),
    (other_mentor, {(Fault.PERSON_CHANGED, 0)}),
    (other_salt, {(Fault.PERSON_CHANGED, 0)}),
    (other_key, {(Fault.KEY_UNKNOWN, None)}),
    (key_with_another_name, {(Fault.KEY_MALFORMED, None), (Fault.KEY_UNKNOWN, None)}),
    (no_signature, {(Fault.CHECKPOINT_MALFORMED, None)}),
    (twice, {(Fault.ORDER_WRONG, 2)}),
    (unknown_field, {(Fault.UNREADABLE, None)}),
    (no_keys, {(Fault.UNREADABLE, None)}),
    (later_version, {(Fault.UNREADABLE, None)}),
]


@pytest.mark.parametrize(("change", "faults"), FAULTS, ids=[change.__name__ for change, _ in FAULTS])
def test_a_fault_is_named(change: Callable[[Any], None], faults: set[tuple[Fault, int | None]]) -> None:
    checked = check_receipt(changed(change))
    assert {(each.fault, each.position) for each in checked.faults} == faults


def test_a_changed_checkpoint_is_named_although_the_proofs_fail_too() -> None:
    assert Fault.SIGNATURE_WRONG in {each.fault for each in check_receipt(changed(other_size)).faults}


def test_a_record_of_another_organization_is_named() -> None:
    foreign = example_leaf(9, organization_id="sorlys").model_copy(update={"item_id": example_leaf(2).item_id})
    checked = check_receipt(receipt_bytes(example_receipt(records=[2], size=2, key=KEY, others=[foreign])))
    assert Fault.ITEM_CHANGED in {each.fault for each in checked.faults}
    assert any("organization" in each.message for each in checked.faults)


@pytest.mark.parametrize(
    "raw",
    [RECEIPT + b"\n", json.dumps(json.loads(RECEIPT)).encode(), json.dumps(json.loads(RECEIPT), indent=1).encode()],
    ids=["a line break at the end", "blanks", "indented"],
)
def test_a_rewritten_file_is_named(raw: bytes) -> None:
    assert [each.fault for each in check_receipt(raw).faults] == [Fault.REWRITTEN]


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04", b"[]", b"{}", b"null", b'"receipt"', b"[" * 100])
def test_another_file_is_not_a_receipt(raw: bytes) -> None:
    [fault] = check_receipt(raw).faults
    assert fault.fault is Fault.UNREADABLE
    assert fault.message.startswith("This is not a receipt: ")


def test_a_message_does_not_quote_the_file() -> None:
    def secret(document: Any) -> None:
        document["items"][0]["leaf"]["at"] = "a secret"

    [fault] = check_receipt(changed(secret)).faults
    assert fault.message == "This is not a receipt: /items/0/leaf/at has a value that no receipt has."
