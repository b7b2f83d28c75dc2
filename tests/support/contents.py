"""One id has one content: compares everything that the product publishes with what it published before (decision 31)."""

import hashlib
from collections.abc import Iterator, Sequence, Set

import orjson

from schemas.envelope import SOURCE, Header


def said_by(key: str, headers: Sequence[Header], value: bytes) -> tuple[str, str] | None:
    """Returns the id of an event of ours and its whole content. None: another service's event."""
    header = dict(headers)
    if header.get("ce_source") != SOURCE.encode():
        return None
    # `bulk` says how this delivery of a result travels and is no part of its content: a command that is sent again may take the other lane.
    data = {name: each for name, each in orjson.loads(value).items() if name != "bulk"}
    return header["ce_id"].decode(), repr((key, sorted(headers), data))


class Contents:
    """A digest of what was published, by event id."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def difference(self, key: str, headers: Sequence[Header], value: bytes) -> str | None:
        """Returns what is wrong with an event of ours whose id was published before with other content. None for all others."""
        found = said_by(key, headers, value)
        if found is None:
            return None
        event_id, said = found
        digest = hashlib.sha256(said.encode()).digest()
        if self._digests.setdefault(event_id, digest) == digest:
            return None
        return f"{event_id} came with other content than before: {said}"


class ManyContents:
    """The same for millions of events, in 24 bytes each. It tells which ids have two contents, after all have been added."""

    HEAPS = 256
    ID_BYTES, ENTRY_BYTES = 16, 24

    def __init__(self) -> None:
        self._heaps = [bytearray() for _ in range(self.HEAPS)]

    def add(self, event_id: str, said: str) -> None:
        """Notes that an event was published."""
        digest = hashlib.sha256(event_id.encode()).digest()[: self.ID_BYTES]
        content = hashlib.sha256(said.encode()).digest()[: self.ENTRY_BYTES - self.ID_BYTES]
        self._heaps[digest[0]] += digest + content

    def with_two(self) -> Set[bytes]:
        """Returns the digests of the ids that came with two contents."""
        return {digest for heap in self._heaps for digest in self._with_two(heap)}

    def is_among(self, event_id: str, digests: Set[bytes]) -> bool:
        """Whether its digest is one of them."""
        return hashlib.sha256(event_id.encode()).digest()[: self.ID_BYTES] in digests

    def _with_two(self, heap: bytearray) -> Iterator[bytes]:
        """Unpacks one heap after the other, because Python's own objects take ten times the memory."""
        contents: dict[bytes, bytes] = {}
        for begin in range(0, len(heap), self.ENTRY_BYTES):
            entry = bytes(heap[begin : begin + self.ENTRY_BYTES])
            digest, content = entry[: self.ID_BYTES], entry[self.ID_BYTES :]
            if contents.setdefault(digest, content) != content:
                yield digest
