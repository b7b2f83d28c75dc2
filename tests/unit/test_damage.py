"""Where a reader goes on after a batch that the client can't read."""

from consumers.loop.damage import DamagedBatch


def test_a_batch_is_tried_again_in_its_place_and_then_passed_over_record_by_record() -> None:
    batch = DamagedBatch(7)
    seen = []
    for _ in range(8):
        batch.reported()
        seen.append((batch.next_offset, batch.is_given_up))
    assert seen == [(7, False)] * 5 + [(8, True), (9, True), (10, True)]
    assert batch.first == 7, "that is what the letter and the log name"
