"""A log in memory: its leaves and stored hashes, and receipts made from it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

from orchestrator.receipts.checkpoint import Checkpoint, origin, sign
from orchestrator.receipts.encoding import encoded
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.leaf import SALT_SIZE, leaf, leaf_bytes, person_hash
from orchestrator.receipts.merkle import Place, appended, inclusion_proof, leaf_hash, root
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


def _person(person: str) -> PersonResponse:
    return PersonResponse(id=person, salt=encoded(salt(person)))
