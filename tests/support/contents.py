"""One id has one content: whatever the product publishes is held against what it has published before (decision 31)."""

import hashlib
from collections.abc import Sequence

import orjson

from schemas.envelope import SOURCE, Header


class Contents:
    """A digest of what was published, by event id: there may be millions."""

    def __init__(self) -> None:
        self._digests: dict[str, bytes] = {}

    def difference(self, key: str, headers: Sequence[Header], value: bytes) -> str | None:
        """What is wrong with an event of ours whose id was published before with other content; None for all others."""
        header = dict(headers)
        if header.get("ce_source") != SOURCE.encode():
            return None
        data = orjson.loads(value)
        # How this delivery of a result travels, and no part of what it says: a command that is sent again may take the other lane.
        said = {name: each for name, each in data.items() if name != "bulk"}
        digest = hashlib.sha256(repr((key, sorted(headers), said)).encode()).digest()
        event_id = header["ce_id"].decode()
        if self._digests.setdefault(event_id, digest) == digest:
            return None
        return f"{header['ce_type'].decode()} {event_id} came with other content than before: {key}, {said}"
