"""Where a reader continues after a batch that the client can't read."""

from consumers.loop.damage import PartitionDamage


class Probe:
    """Finds the ends of the batches 7 to 9 and 12 to 12."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.is_away = False

    def __call__(self, batch_offset: int) -> int | None:
        self.asked.append(batch_offset)
        return None if self.is_away else {7: 10, 12: 13}[batch_offset]


def test_a_batch_is_tried_again_in_its_place_and_then_skipped_as_a_whole() -> None:
    damage = PartitionDamage(probe := Probe())
    assert [damage.reported(7, 7) for _ in range(5)] == [(7, None)] * 5
    assert probe.asked == []
    next_offset, given_up = damage.reported(7, 7)
    assert given_up is not None
    assert (next_offset, given_up.first, given_up.next_batch) == (10, 7, 10)


def test_a_repeated_report_does_not_move_the_reader_and_the_batch_is_given_up_once() -> None:
    """The client has begun again at the beginning, after it was told to read behind the batch."""
    damage = PartitionDamage(probe := Probe())
    for _ in range(6):
        damage.reported(7, 7)
    assert [damage.reported(7, reached) for reached in (8, 10, 11)] == [(10, None), (10, None), (11, None)]
    assert damage.reported(12, 12) == (12, None), "another batch must have its own tries"
    assert damage.reported(7, 12) == (12, None)
    assert probe.asked == [7]


def test_a_batch_that_was_read_in_part_is_tried_and_given_up_from_there() -> None:
    """Kafka returns the whole batch for each of its offsets."""
    damage = PartitionDamage(Probe())
    assert [damage.reported(7, 9) for _ in range(5)] == [(9, None)] * 5
    _, given_up = damage.reported(7, 9)
    assert given_up is not None
    assert given_up.first == 9


def test_a_batch_is_not_given_up_while_its_end_is_unknown() -> None:
    damage = PartitionDamage(probe := Probe())
    probe.is_away = True
    assert [damage.reported(7, 7) for _ in range(8)] == [(7, None)] * 8
    probe.is_away = False
    assert damage.reported(7, 7)[0] == 10
