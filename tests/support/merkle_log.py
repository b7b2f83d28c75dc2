"""A log in memory: its leaves and stored hashes, receipts made from it, and how a client compares two of its states."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from uuid import UUID

from orchestrator.receipts.canonical import canonical_json
from orchestrator.receipts.checkpoint import Checkpoint, origin, sign
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.leaf import SALT_SIZE, leaf_bytes, person_hash
from orchestrator.receipts.merkle import BadProofError, Place, appended, inclusion_proof, leaf_hash, node_hash, root
from schemas.api.receipts import LeafResponse, PeopleResponse, PersonResponse, ReceiptItemResponse, ReceiptResponse

NAME = "records.example.org"
ORGANIZATION = "nordlys"
COORDINATOR = "ingrid"


class MerkleLog:
    """The stored hashes of a log. It remembers which places were read."""

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self.size = 0
        self.stored: dict[Place, bytes] = {}
        self.read: list[Place] = []
        self.append(leaves)

    def append(self, leaves: Sequence[bytes]) -> None:
        new = appended(self.size, [leaf_hash(each) for each in leaves], self.node)
        assert self.stored.keys().isdisjoint(place for place, _ in new)
        self.stored.update(new)
        self.size += len(leaves)

    def node(self, level: int, number: int) -> bytes:
        self.read.append(Place(level, number))
        return self.stored[Place(level, number)]

    def root(self, size: int | None = None) -> bytes:
        return root(self.size if size is None else size, self.node)


def salt(person: str) -> bytes:
    """A salt that tests can compute again."""
    return (person.encode() * SALT_SIZE)[:SALT_SIZE]


def leaf(
    *,
    change: Literal["registered", "revoked"],
    activity_id: UUID,
    organization_id: str,
    mentor: str,
    activity_type: str,
    activity_date: date,
    duration_minutes: int,
    by: str,
    at: datetime,
    batch_id: UUID,
    item_id: UUID,
    attempt: int | None,
    before_log: bool = False,
) -> LeafResponse:
    """A leaf with these values. `mentor` and `by` are hashes (`person_hash`). The attempt of an old record may be unknown."""
    return LeafResponse(
        change=change,
        activity_id=str(activity_id),
        organization_id=organization_id,
        mentor=mentor,
        activity_type=activity_type,
        activity_date=activity_date.isoformat(),
        duration_minutes=duration_minutes,
        by=by,
        at=f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z",
        batch_id=str(batch_id),
        item_id=str(item_id),
        attempt=attempt,
        before_log=True if before_log else None,
    )


def example_leaf(number: int, *, change: str = "registered", organization_id: str = ORGANIZATION) -> LeafResponse:
    return leaf(
        change="revoked" if change == "revoked" else "registered",
        activity_id=UUID(int=1_000 + number),
        organization_id=organization_id,
        mentor=person_hash(salt(f"mentor-{number}"), f"mentor-{number}"),
        activity_type="conversation",
        activity_date=date(2026, 3, 1) + timedelta(days=number),
        duration_minutes=30 + number,
        by=person_hash(salt(COORDINATOR), COORDINATOR),
        at=datetime(2026, 3, 31, 12, 0, 0, 123_456, tzinfo=UTC),
        batch_id=UUID(int=7),
        item_id=UUID(int=2_000 + number),
        attempt=1,
    )


def example_receipt(
    *,
    records: Sequence[int],
    size: int,
    key: SigningKey,
    forgotten: Sequence[int] = (),
    others: Sequence[LeafResponse] = (),
) -> ReceiptResponse:
    """A receipt of these records, from a log of example leaves and then `others`."""
    leaves = [*map(example_leaf, range(size)), *others]
    log = MerkleLog([leaf_bytes(each) for each in leaves])
    items = [
        ReceiptItemResponse(
            item_id=leaves[number].item_id,
            index=number,
            leaf=leaves[number],
            proof=tuple(encoded(each) for each in inclusion_proof(number, log.size, log.node)),
            people=PeopleResponse(
                mentor=None if number in forgotten else _person(f"mentor-{number}"),
                by=_person(COORDINATOR),
            ),
        )
        for number in records
    ]
    checkpoint = Checkpoint(origin(key.name, leaves[0].organization_id), log.size, log.root())
    return ReceiptResponse(checkpoint=sign(checkpoint, key), keys=(str(key.verifier),), items=tuple(items))


def receipt_bytes(receipt: ReceiptResponse) -> bytes:
    """The receipt as a file, in its only form."""
    return canonical_json(receipt.model_dump(mode="json", exclude_none=True))


def verify_consistency(first: int, first_root: bytes, second: int, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Raises BadProofError unless the log with the second size and root begins with the log with the first ones."""
    if not 0 < first <= second:
        raise BadProofError(f"a log of {second} has no earlier state of {first}")
    if first == second:
        if proof:
            raise BadProofError("the proof is too long")
        if first_root != second_root:
            raise BadProofError("the two logs have the same size and different roots")
        return
    hashes = list(proof) if first & (first - 1) else [first_root, *proof]
    if not hashes:
        raise BadProofError("the proof is too short")
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise BadProofError("the proof is too long")
        if at & 1 or at == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise BadProofError("the proof is too short")
    if old != first_root:
        raise BadProofError("the proof leads to another root of the smaller log")
    if new != second_root:
        raise BadProofError("the proof leads to another root of the larger log")


def _person(person: str) -> PersonResponse:
    return PersonResponse(id=person, salt=encoded(salt(person)))
