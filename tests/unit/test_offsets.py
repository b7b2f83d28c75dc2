from hypothesis import given
from hypothesis import strategies as st

from consumers.loop.offsets import PartitionOffsets
from schemas.envelope import Topic


def offsets_of(polled: list[int]) -> PartitionOffsets:
    partition = PartitionOffsets(Topic.COMMANDS, "prefix.commands.v1", 0)
    for offset in polled:
        partition.polled(offset)
    return partition


def test_nothing_is_committed_before_anything_is_done() -> None:
    assert offsets_of([5, 6]).next_offset is None


def test_a_gap_holds_back_the_offsets_behind_it() -> None:
    partition = offsets_of([5, 6, 9])
    partition.handled({6, 9})
    assert partition.next_handled_after({5}) == 10
    partition.done({6, 9})
    assert partition.next_offset is None
    partition.done({5})
    assert partition.next_offset == 10


@given(
    st.sets(st.integers(0, 40), min_size=1).flatmap(
        lambda offsets: st.tuples(st.just(sorted(offsets)), st.permutations(list(offsets)))
    )
)
def test_commits_never_pass_an_unfinished_offset_and_end_behind_the_last(given_: tuple[list[int], list[int]]) -> None:
    polled, order = given_
    partition = offsets_of(polled)
    last = None
    for step, offset in enumerate(order, start=1):
        foretold = partition.next_handled_after({offset})
        partition.handled({offset})
        assert partition.next_offset is None or partition.next_offset == last
        partition.done({offset})
        assert partition.next_offset == foretold
        last = foretold
        open_offsets = set(order[step:])
        committed = [known for known in polled if partition.next_offset is not None and known < partition.next_offset]
        assert not open_offsets.intersection(committed)
        assert open_offsets or partition.next_offset == polled[-1] + 1


def test_the_end_of_a_partition_counts_after_all_before_it_is_done() -> None:
    """Offsets 7 and 8 are a transaction's markers."""
    partition = offsets_of([5, 6])
    partition.ends_at(9)
    assert partition.next_offset is None
    partition.handled({6})
    assert partition.next_handled_after({5}) == 9
    partition.done({5, 6})
    assert partition.next_offset == 9


def test_the_end_of_a_partition_counts_without_records_and_never_goes_back() -> None:
    partition = offsets_of([])
    partition.ends_at(0)
    assert partition.next_offset is None
    partition.ends_at(4)
    partition.ends_at(4)
    partition.ends_at(2)
    assert partition.next_offset == 4
    partition.polled(4)
    partition.ends_at(5)
    assert partition.next_offset == 4
    assert partition.next_handled_after({4}) == 5


def test_redelivered_records_do_not_move_the_position_back() -> None:
    """The client has gone back to the beginning. Everything behind it but the last record is done."""
    partition = offsets_of([5, 6, 9])
    partition.handled({5, 6})
    partition.done({5, 6})
    for offset in (2, 5, 6, 9):
        partition.polled(offset)
    assert (partition.polled_up_to, partition.undone) == (10, 1)
    partition.handled({2, 5, 6})
    partition.done({2, 5, 6})
    assert (partition.next_offset, partition.next_handled_after({9})) == (7, 10)
    partition.done({9})
    assert partition.next_offset == 10


def test_a_redelivered_record_is_waited_for_once() -> None:
    """The client has gone back, and two of the three records are in one micro-batch."""
    partition = offsets_of([5, 6, 5])
    partition.done({5, 6})
    assert partition.next_offset == 7
    partition.done({5})
    assert (partition.next_offset, partition.undone) == (7, 0)
    partition.polled(7)
    partition.done({7})
    assert partition.next_offset == 8


def test_a_polled_record_counts_until_it_is_done() -> None:
    partition = offsets_of([])
    assert (partition.polled_up_to, partition.undone) == (0, 0)
    for offset in (5, 6, 9):
        partition.polled(offset)
    assert (partition.polled_up_to, partition.undone) == (10, 3)
    partition.handled({5, 6, 9})
    assert (partition.polled_up_to, partition.undone, partition.next_offset) == (10, 3, None), "a handled record is not done yet"
    partition.done({6})
    assert partition.undone == 3
    partition.done({5})
    assert (partition.undone, partition.next_offset) == (1, 7)


def test_done_differs_from_handled() -> None:
    partition = offsets_of([5, 6])
    partition.handled({5})
    assert partition.next_handled_after({6}) == 7
    assert partition.next_handled_after(()) == 6
    assert partition.next_offset is None
