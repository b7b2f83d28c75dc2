"""The Merkle tree of RFC 9162, section 2.1: hashes, roots and proofs.

A log stores the hash of each perfect subtree: `node(level, number)` is that of the leaves from `number << level` to
before `(number + 1) << level`. Level 0 has the leaves. No hash changes when the log grows. A root or a proof reads at most three hashes of
each level.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

HASH_SIZE = 32


class Place(NamedTuple):
    """The place of a stored hash: how many levels it is above the leaves, and its number on this level, from 0."""

    level: int
    number: int


Nodes = Callable[[int, int], bytes]
"""Returns the stored hash at a level and a number."""


class BadProofError(ValueError):
    """A proof does not show what it should. The message says why."""


class _Range(NamedTuple):
    """The leaves from `begin` to before `end`."""

    begin: int
    end: int

    def places(self) -> Iterator[Place]:
        """The perfect subtrees that cover exactly these leaves, from left to right. In every range of this module the left ones are larger."""
        begin, left = self
        left -= begin
        while left:
            level = left.bit_length() - 1
            yield Place(level, begin >> level)
            begin += 1 << level
            left -= 1 << level

    def hash(self, node: Nodes) -> bytes:
        """The hash of the tree of these leaves."""
        *lefts, result = [node(*place) for place in self.places()]
        for left in reversed(lefts):
            result = node_hash(left, result)
        return result


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of a node from those of its children."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(size: int, node: Nodes) -> bytes:
    """The root of the first `size` leaves."""
    return _Range(0, size).hash(node) if size else hashlib.sha256().digest()


def root_places(size: int) -> list[Place]:
    """The stored hashes that `root` reads. They are also all that `appended` may read, so a log that grows needs no others."""
    return list(_Range(0, size).places())


def appended(size: int, leaf_hashes: Sequence[bytes], node: Nodes) -> list[tuple[Place, bytes]]:
    """The hashes to store when these leaves are added to a log of `size` leaves. Reads at most one stored hash for each level."""
    new: list[tuple[Place, bytes]] = []
    level, first, hashes = 0, size, list(leaf_hashes)
    while hashes:
        new += [(Place(level, number), hashed) for number, hashed in enumerate(hashes, first)]
        if first % 2:
            hashes.insert(0, node(level, first - 1))
        # The last one may have no right sibling yet.
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=False)]
        level, first = level + 1, first // 2
    return new


def inclusion_proof(index: int, size: int, node: Nodes) -> list[bytes]:
    """Shows that a leaf is at this index among the first `size` leaves."""
    return [each.hash(node) for each in _inclusion_ranges(index, size)]


def consistency_proof(first: int, second: int, node: Nodes) -> list[bytes]:
    """Shows that the first `first` leaves of a log of `second` leaves are those that it had when it was that small."""
    return [each.hash(node) for each in _consistency_ranges(first, second)]


def root_of_inclusion(leaf_hashed: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a leaf, its index and its proof lead to. Raises BadProofError if the proof does not fit the index and the size."""
    if not 0 <= index < size:
        raise BadProofError(f"there is no leaf {index} in a log of {size}")
    result = leaf_hashed
    at, last = index, size - 1
    for sibling in proof:
        if last == 0:
            raise BadProofError("the proof is too long")
        if at & 1 or at == last:
            result = node_hash(sibling, result)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        at, last = at >> 1, last >> 1
    if last:
        raise BadProofError("the proof is too short")
    return result


def _split(begin: int, end: int) -> int:
    """Where a tree of these leaves is divided: its left part is the largest power of two that is smaller than the whole."""
    return begin + (1 << ((end - begin - 1).bit_length() - 1))


def _inclusion_ranges(index: int, size: int) -> list[_Range]:
    """The subtrees beside the way from the leaf up to the root."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a log of {size}")
    beside: list[_Range] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = _split(begin, end)
        if index < middle:
            beside.append(_Range(middle, end))
            end = middle
        else:
            beside.append(_Range(begin, middle))
            begin = middle
    return beside[::-1]


def _consistency_ranges(first: int, second: int) -> list[_Range]:
    """The subtrees from which both roots can be computed."""
    if not 0 < first <= second:
        raise ValueError(f"a log of {second} has no earlier state of {first}")
    beside: list[_Range] = []
    begin, end = 0, second
    while first != end:
        middle = _split(begin, end)
        if first <= middle:
            beside.append(_Range(middle, end))
            end = middle
        else:
            beside.append(_Range(begin, middle))
            begin = middle
    if begin:
        beside.append(_Range(begin, end))  # else it is the whole smaller log, whose root the verifier has
    return beside[::-1]
