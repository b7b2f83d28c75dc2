"""The Merkle tree: the published vectors, and what holds for every size."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.receipts.merkle import (
    BadProofError,
    appended,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
    root_of_inclusion,
    root_places,
)
from tests.support.merkle_log import MerkleLog, verify_consistency

# The eight leaves with which implementations of certificate transparency (RFC 6962) test themselves, and their results.
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
EMPTY_ROOT = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
CT_INCLUSION = {
    (0, 1): [],
    (0, 8): [A, B, C],
    (5, 8): [D, E, CT_ROOTS[3]],
    (2, 3): [CT_ROOTS[1]],
    (1, 5): [CT_ROOTS[0], B, D],
}
CT_CONSISTENCY = {(1, 1): [], (1, 8): [A, B, C], (6, 8): [F, E, CT_ROOTS[3]], (2, 5): [B, D]}

MOST = 300
LOG = MerkleLog([str(number).encode() for number in range(MOST)])
ROOTS = [LOG.root(size) for size in range(MOST + 1)]
SIZES = st.integers(1, MOST)


def test_the_published_roots() -> None:
    log = MerkleLog()
    assert log.root().hex() == EMPTY_ROOT
    for leaf, expected in zip(CT_LEAVES, CT_ROOTS, strict=True):
        log.append([leaf])
        assert log.root().hex() == expected


@pytest.mark.parametrize(("index", "size"), CT_INCLUSION)
def test_the_published_inclusion_proofs(index: int, size: int) -> None:
    log = MerkleLog(CT_LEAVES)
    assert [each.hex() for each in inclusion_proof(index, size, log.node)] == CT_INCLUSION[index, size]


@pytest.mark.parametrize(("first", "second"), CT_CONSISTENCY)
def test_the_published_consistency_proofs(first: int, second: int) -> None:
    log = MerkleLog(CT_LEAVES)
    assert [each.hex() for each in consistency_proof(first, second, log.node)] == CT_CONSISTENCY[first, second]


def recursive_root(leaves: list[bytes]) -> bytes:
    """The definition of section 2.1.1, word for word."""
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(recursive_root(leaves[:split]), recursive_root(leaves[split:]))


@given(SIZES)
def test_a_root_is_the_one_of_the_definition(size: int) -> None:
    assert ROOTS[size] == recursive_root([str(number).encode() for number in range(size)])


@given(st.lists(st.integers(0, 40), max_size=8))
def test_it_makes_no_difference_in_which_portions_leaves_are_appended(portions: list[int]) -> None:
    log = MerkleLog()
    for portion in portions:
        log.read.clear()
        before = log.size
        log.append([str(number).encode() for number in range(before, before + portion)])
        assert set(log.read) <= set(root_places(before))
    assert log.stored == {place: LOG.stored[place] for place in log.stored}
    assert log.root() == ROOTS[log.size]


@pytest.mark.parametrize("most", [100, pytest.param(MOST, marks=pytest.mark.full)])
def test_every_leaf_of_every_size_is_proved(most: int) -> None:
    for size in range(1, most + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, LOG.node)
            assert root_of_inclusion(LOG.node(0, index), index, size, proof) == ROOTS[size]


def leads_to(root_hash: bytes, leaf: bytes, index: int, size: int, proof: list[bytes]) -> bool:
    try:
        return root_of_inclusion(leaf, index, size, proof) == root_hash
    except BadProofError:
        return False


@given(st.data(), SIZES)
def test_another_leaf_index_size_root_or_proof_is_refused(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaf, proof = LOG.node(0, index), inclusion_proof(index, size, LOG.node)
    assert leads_to(ROOTS[size], leaf, index, size, proof)
    other = data.draw(st.integers(-1, size).filter(lambda at: at != index))
    larger = data.draw(st.integers(size + 1, size + 5))
    wrong = [
        (ROOTS[size], leaf_hash(b"other"), index, size, proof),
        (ROOTS[size], leaf, other, size, proof),
        (ROOTS[size - 1], leaf, index, size, proof),
        (ROOTS[size], leaf, index, size, [*proof, ROOTS[size]]),
        # A proof may also fit a larger size, but the root of that size is another one.
        (LOG.root(larger) if larger <= MOST else leaf_hash(b"other"), leaf, index, larger, proof),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong += [
            (ROOTS[size], leaf, index, size, proof[:-1]),
            (ROOTS[size], leaf, index, size, [*proof[:at], leaf_hash(b"other"), *proof[at + 1 :]]),
        ]
    assert [each for each in wrong if leads_to(*each)] == []


@given(st.data(), SIZES)
def test_every_log_is_proved_to_begin_with_what_it_was(data: st.DataObject, second: int) -> None:
    first = data.draw(st.integers(1, second))
    proof = consistency_proof(first, second, LOG.node)
    verify_consistency(first, ROOTS[first], second, ROOTS[second], proof)
    wrong = [
        (first, leaf_hash(b"other"), second, ROOTS[second], proof),
        (first, ROOTS[first], second, leaf_hash(b"other"), proof),
        (first, ROOTS[first], second, ROOTS[second], [*proof, ROOTS[1]]),
        (0, ROOTS[0], second, ROOTS[second], proof),
        (second + 1, ROOTS[first], second, ROOTS[second], proof),
    ]
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        wrong += [
            (first, ROOTS[first], second, ROOTS[second], proof[:-1]),
            (first, ROOTS[first], second, ROOTS[second], []),
            (first, ROOTS[first], second, ROOTS[second], [*proof[:at], leaf_hash(b"other"), *proof[at + 1 :]]),
        ]
    for each in wrong:
        with pytest.raises(BadProofError):
            verify_consistency(*each)


@settings(max_examples=30)
@given(st.data())
def test_a_log_of_a_million_leaves_reads_three_hashes_of_each_level_at_most(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 1_000_000))
    first = data.draw(st.integers(1, size))
    read: Counter[int] = Counter()

    def node(level: int, number: int) -> bytes:
        assert (number + 1) << level <= size, "the log does not have this hash"
        read[level] += 1
        return b""

    for use in (
        lambda: root(size, node),
        lambda: appended(size, [b""], node),
        lambda: inclusion_proof(first - 1, size, node),
        lambda: consistency_proof(first, size, node),
    ):
        read.clear()
        use()
        assert max(read.values(), default=0) <= 3
        assert max(read, default=0) < 20


@given(SIZES)
def test_the_places_of_a_root_are_those_that_are_read(size: int) -> None:
    LOG.read.clear()
    LOG.root(size)
    assert LOG.read == root_places(size)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(index, size, LOG.node)


@pytest.mark.parametrize(("first", "second"), [(0, 3), (4, 3)])
def test_there_is_no_proof_of_a_state_that_was_not(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="no earlier state"):
        consistency_proof(first, second, LOG.node)
