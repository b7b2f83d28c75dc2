"""Ids: which are random, which are derived, and from what.

A batch id is a new UUIDv7 (RFC 9562, 5.7). Item and activity ids are derived from the batch id and the position, so that repeated work yields
the same ids. They begin with the batch id's 48 bits of time, so that index inserts go to the right-hand edge (random keys cost three times the
WAL, docs/decisions/0004-ids.md). They end with the position, so that an item can be found by its id without another index. Event ids are UUIDv5.
"""

import hashlib
import secrets
import time
from functools import lru_cache
from uuid import UUID, uuid5

EVENT_NAMESPACE = UUID("6f0d6c0e-5c1f-5b0e-9d6c-3d7c1a1f7a10")

POSITION_BITS = 20
MAX_POSITIONS = 1 << POSITION_BITS

_TIME_MASK = ((1 << 48) - 1) << 80
_VERSION_AND_VARIANT = (7 << 76) | (2 << 62)


def new_batch_id() -> UUID:
    """A UUIDv7 with the present time."""
    milliseconds = time.time_ns() // 1_000_000
    return UUID(int=(milliseconds << 80) | _VERSION_AND_VARIANT | (secrets.randbits(12) << 64) | secrets.randbits(62))


def _prefix(kind: bytes, batch_id: UUID) -> int:
    """All bits except the position: the batch's time, then 54 bits of a hash that distinguish batches of one millisecond."""
    digest = int.from_bytes(hashlib.sha256(kind + batch_id.bytes).digest()[:8], "big")
    high, low = (digest >> 42) & 0xFFF, digest & ((1 << 42) - 1)
    return (batch_id.int & _TIME_MASK) | _VERSION_AND_VARIANT | (high << 64) | (low << POSITION_BITS)


class DerivedIds:
    """The item and activity ids of one batch. Hashes the batch id only once."""

    __slots__ = ("_activity", "_item", "_item_text")

    def __init__(self, batch_id: UUID) -> None:
        self._item = _prefix(b"item", batch_id)
        self._item_text = _text_before_position(self._item)
        self._activity = _text_before_position(_prefix(b"activity", batch_id))

    def item_id(self, position: int) -> UUID:
        """The id of the item at a position (0 to 2**20 - 1)."""
        return UUID(int=self._item | position)

    def activity_id(self, position: int) -> str:
        """The id that the item's activity has once it exists. It is text, because each command needs one."""
        return f"{self._activity}{position:05x}"

    def item_id_text(self, position: int) -> str:
        """`item_id` as text, at a tenth of its cost."""
        return f"{self._item_text}{position:05x}"


@lru_cache(maxsize=4_096)
def derived_ids(batch_id: str) -> DerivedIds:
    """The ids of a batch that is named as text. Cached, because the items of a batch come in several sets."""
    return DerivedIds(UUID(batch_id))


def _text_before_position(prefix: int) -> str:
    """An id as text without its last five digits, which are the position."""
    x = f"{prefix:032x}"[: -POSITION_BITS // 4]
    return f"{x[:8]}-{x[8:12]}-{x[12:16]}-{x[16:20]}-{x[20:]}"


def item_position(batch_id: UUID, item_id: UUID) -> int | None:
    """The position in an item id; None if it is not an id of that batch."""
    position = item_id.int & (MAX_POSITIONS - 1)
    return position if DerivedIds(batch_id).item_id(position) == item_id else None


def event_id(event_type: str, *parts: object) -> UUID:
    """The id of an event. The same type and parts give the same id, so that a repeated event is recognized."""
    return uuid5(EVENT_NAMESPACE, "/".join([event_type, *map(str, parts)]))


def content_id(event_type: str, *parts: object, value: bytes) -> UUID:
    """The id of an event whose content may differ for the same parts. Different content gives a different id."""
    return event_id(event_type, *parts, hashlib.sha256(value).hexdigest())


class EventIds:
    """The ids of one type's events as text: the same as from `event_id`, at a fifth of its cost. There are two such events for each item."""

    __slots__ = ("_hash",)

    def __init__(self, event_type: str) -> None:
        self._hash = hashlib.sha1(EVENT_NAMESPACE.bytes + f"{event_type}/".encode(), usedforsecurity=False)

    def text(self, item_id: UUID | str, attempt: int) -> str:
        """The id of the event of an item's attempt."""
        digest = self._hash.copy()
        digest.update(f"{item_id}/{attempt}".encode())
        x = digest.hexdigest()
        # RFC 9562, 5.5: the version in the 13th digit, the variant in the two high bits of the 17th.
        return f"{x[:8]}-{x[8:12]}-5{x[13:16]}-{_VARIANT[x[16]]}{x[17:20]}-{x[20:32]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def batch_lock_key(batch_id: UUID) -> int:
    """The signed 64-bit key of a batch's advisory lock (docs/decisions/0008-the-fence.md)."""
    return _signed((batch_id.int >> 64) ^ (batch_id.int & ((1 << 64) - 1)))


def period_lock_key(organization_id: str) -> int:
    """The signed 64-bit key of the advisory lock on an organization's closed period (docs/decisions/0040-closed-periods.md)."""
    return _signed(int.from_bytes(hashlib.sha256(b"period" + organization_id.encode()).digest()[:8], "big"))


def period_stream(organization_id: str) -> UUID:
    """The id under which the events and the Idempotency-Keys of an organization's closed period are stored, in place of a batch's id."""
    return event_id("period", organization_id)


def _signed(unsigned: int) -> int:
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


def receipt_stream(organization_id: str) -> UUID:
    """The id under which the checkpoints of an organization's logs are in the outbox, in place of a batch's id."""
    return event_id("receipts", organization_id)
