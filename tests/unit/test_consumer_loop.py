"""A consumer's loop, turn by turn: what is committed, retried and paused, and when."""

import logging

import pytest
from confluent_kafka import KafkaError, KafkaException

from consumers.loop import failure_reports
from consumers.loop import runtime as module
from consumers.loop.deliveries import Pending
from consumers.loop.lanes import LanePolicy
from consumers.loop.processing import Processed
from orchestrator.process.actions import Action
from orchestrator.storage.blame import TransientError
from orchestrator.storage.progress import Position
from schemas.envelope import Topic
from tests.support.log_lines import logged
from tests.support.turned_loop import Loop, end, loop_of_two_partitions, record


@pytest.fixture
def loop() -> Loop:
    return loop_of_two_partitions()


# --- Offsets ---------------------------------------------------------------------------------------------------------------------


def test_finished_work_is_stored_and_committed_with_the_topics_id(loop: Loop) -> None:
    loop.turn(record(0, 5), record(1, 7), record(0, 6))
    assert loop.work.done == [[(0, 5), (1, 7), (0, 6)]]
    assert loop.work.progress == [{0: 7, 1: 8}]
    assert loop.client.commits == [{0: (7, "now"), 1: (8, "now")}]
    loop.turns(3)
    assert len(loop.client.commits) == 1, "nothing may be committed if nothing has moved"
    loop.turn(record(1, 8))
    assert loop.commits[1:] == [{1: 9}]
    assert loop.work.progress[1:] == [{1: 9}]


def test_a_record_of_another_members_partition_is_left_to_it(loop: Loop) -> None:
    loop.turn(record(2, 5), record(0, 5))
    assert (loop.work.done, loop.commits) == ([[(0, 5)]], [{0: 6}])


def test_offsets_behind_the_last_record_count_when_the_end_is_reported(loop: Loop) -> None:
    loop.turn(record(0, 5), end(0, 9), end(1, 4))
    assert loop.work.progress == [{0: 9, 1: 4}]
    assert loop.commits == [{0: 9, 1: 4}]
    loop.turn(end(0, 12))
    assert loop.work.progress[1:] == [{0: 12}], "progress must be stored even without records"
    assert loop.commits[1:] == [{0: 12}]


def test_the_next_commit_makes_up_for_a_failed_one(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.client.answers = [KafkaException(KafkaError(KafkaError._TRANSPORT)), KafkaError(KafkaError.REBALANCE_IN_PROGRESS)]
    loop.turn(record(0, 5))
    loop.turn()
    assert loop.commits == []
    loop.turn()
    assert loop.commits == [{0: 6}]
    assert "REBALANCE_IN_PROGRESS" in "".join(str(line["error"]) for line in logged(caplog, Action.COMMIT_FAILED))


def test_under_load_offsets_are_committed_at_intervals_and_an_idle_loop_wakes_for_them() -> None:
    loop = loop_of_two_partitions(commit_every_s=0.25)
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}], "the first commit after a pause must not wait"
    loop.turn(record(0, 6))
    loop.now = 0.2
    loop.turn(record(0, 7))
    assert loop.commits == [{0: 6}]
    loop.client.waits.clear()
    loop.turn()
    assert loop.client.waits == [pytest.approx(0.05)]
    loop.now = 0.25
    loop.turn()
    assert loop.commits == [{0: 6}, {0: 8}]
    loop.client.waits.clear()
    loop.turn()
    assert loop.client.waits == [0.5], "a loop without anything to commit must wait as long as any idle loop"


def test_a_loop_that_stops_commits_what_waits_for_its_interval() -> None:
    loop = loop_of_two_partitions(commit_every_s=0.25)
    loop.turn(record(0, 5))
    loop.turn(record(0, 6))
    loop.stop()
    assert loop.commits == [{0: 6}, {0: 7}]


def test_a_loop_that_stops_waits_for_the_micro_batch_that_is_under_way(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def finish(_: object, timeout_s: float) -> None:
        waits.append(timeout_s)
        loop.worker.future.set_result(loop.worker.task())

    loop.worker.is_held = True
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "wait", finish)
    loop.stop()
    assert (loop.commits, len(waits)) == ([{0: 6}], 1)
    assert module.DRAIN_S / 2 < waits[0] <= module.DRAIN_S


def test_a_loop_that_stops_leaves_a_micro_batch_that_takes_too_long_to_the_next_member(
    loop: Loop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "DRAIN_S", 0.0)
    loop.stop()
    assert loop.commits == []
    assert len(logged(caplog, Action.DRAIN_ABANDONED)) == 1


def test_a_loop_that_stops_leaves_a_micro_batch_that_fails_to_the_next_member(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    loop.worker.future.set_exception(TransientError())
    loop.stop()
    assert loop.commits == []
    assert len(logged(caplog, Action.DRAIN_FAILED)) == 1


def test_a_loop_that_stops_waits_for_the_reply_to_its_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_of_two_partitions(commit_every_s=0.25)
    polls = 0

    def poll(_: float) -> None:
        nonlocal polls
        polls += 1
        if polls == 2:
            loop.client.on_commit(None, [])

    loop.turn(record(0, 5))
    loop.turn(record(0, 6))
    loop.client.replies_to_commits = False
    monkeypatch.setattr(loop.client, "poll", poll)
    loop.stop()
    assert (loop.commits, polls) == ([{0: 6}, {0: 7}], 2)


def test_a_loop_that_stops_also_commits_what_has_moved_since_a_request_that_has_no_reply_yet(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5))
    loop.turn(record(0, 6))
    assert loop.commits == [{0: 6}]
    monkeypatch.setattr(loop.client, "poll", lambda _: loop.client.on_commit(None, []))
    loop.stop()
    assert loop.commits == [{0: 6}, {0: 7}]


def test_a_loop_that_stops_waits_for_no_coordinator_that_is_silent_for_too_long(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5))
    monkeypatch.setattr(module, "DRAIN_S", 0.0)
    loop.client.waits.clear()
    loop.stop()
    assert (loop.commits, loop.client.waits) == ([{0: 6}], [])


def test_positions_are_stored_with_the_topics_id(loop: Loop) -> None:
    loop.turn(record(0, 5))
    assert loop.work.positions == [{(Topic.COMMANDS, 0): Position(6, "now")}]


# --- Acknowledgements --------------------------------------------------------------------------------------------------------------


def test_offsets_wait_for_the_events_of_their_own_micro_batch(loop: Loop) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6))
    loop.turn(record(1, 6))
    assert loop.work.done == [[(0, 5), (1, 5)], [(0, 6)], [(1, 6)]]
    assert loop.work.progress[-1] == {1: 7}, "the progress of handled records must be stored at once"
    assert loop.commits == []
    loop.work.acknowledge(1)
    loop.turns(2)
    assert loop.commits == []
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.commits == [{0: 7, 1: 6}]
    loop.work.acknowledge(2)
    loop.turns(2)
    assert loop.commits[1:] == [{1: 7}]


def test_a_loop_that_stops_looks_for_acknowledgements_until_they_have_come(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    more = 3

    def look() -> Processed:
        nonlocal more
        more -= 1
        if not more:
            loop.work.acknowledge(0)
        return Processed((), Pending(0, []))

    monkeypatch.setattr(loop.work, "look_for_acknowledgements", look)
    loop.stop()
    assert (loop.commits, more) == ([{0: 6}], 0)


def test_nothing_more_is_begun_while_too_much_is_outstanding(loop: Loop) -> None:
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    loop.work.has_room = False
    looks = loop.work.looks
    loop.turn(record(0, 6))
    assert loop.work.done == [[(0, 5)]]
    assert loop.work.looks > looks
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.work.done == [[(0, 5)], [(0, 6)]], "there must be room when nothing is outstanding"


@pytest.mark.parametrize(("most", "is_begun"), [(3, False), (4, True)])
def test_the_number_of_records_that_wait_for_their_offsets_is_limited(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, most: int, is_begun: bool
) -> None:
    monkeypatch.setattr(module, "MAX_UNDONE_RECORDS", most)
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6))
    assert (len(loop.work.done) == 2) is is_begun


@pytest.mark.parametrize(("age_s", "is_late"), [(60.0, False), (60.5, True)])
def test_a_long_missing_acknowledgement_is_reported(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, age_s: float, is_late: bool
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    loop.work.is_acknowledged = False
    loop.turn(record(0, 5))
    now[0] += 30
    loop.turn(record(0, 6))
    now[0] += age_s - 30
    loop.turns(2)
    assert bool(loop.loop.health.failing) is is_late
    loop.work.acknowledge(0)
    loop.turns(2)
    assert loop.loop.health.failing is None, "the other micro-batch is not that old"


# --- Records that fail -----------------------------------------------------------------------------------------------------------------


def test_a_failed_record_holds_back_only_its_own_partition(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if (entry.partition.partition, entry.offset) == (0, 5) else None
    loop.turn(record(0, 5), record(0, 6), record(1, 5))
    loop.turn(record(1, 6))
    loop.turns(2)
    assert loop.commits[-1] == {1: 7}
    assert {partition for commit in loop.commits for partition in commit} == {1}
    loop.work.fails = lambda _: None
    loop.work.done.clear()
    loop.turn_until(lambda: loop.work.done)
    assert loop.commits[-1] == {0: 7}
    assert loop.work.progress[-1] == {0: 7}, "its progress must not be stored before it succeeds"


def test_the_last_chance_is_described_by_the_failure() -> None:
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5), set_aside_after_ms=0)
    loop.assign(0)
    loop.work.fails = lambda _: TransientError("by a test")
    loop.turn(record(0, 5))
    loop.turns(2)
    assert loop.work.chances[:2] == [None, "TransientError"]


def test_a_record_has_its_last_chance_when_more_others_have_succeeded_than_wait() -> None:
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5), set_aside_after_ms=0)
    loop.assign(0, 1, 2)
    loop.work.fails = lambda entry: None if entry.partition.partition == 2 else TransientError("by a test")
    loop.turn(record(0, 5), record(1, 5))
    loop.turn_until(lambda: {(0, 5), (1, 5)} <= {place for batch in loop.work.done if len(batch) == 1 for place in batch})
    assert set(loop.work.chances) == {None}, "it may not be the record's fault while nothing succeeds"
    loop.turn(*(record(2, offset) for offset in range(5)))
    loop.turn_until(lambda: "TransientError" in loop.work.chances)


def test_each_failure_is_logged_while_others_get_through(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    for offset in (5, 6):
        loop.turn(record(0, offset), record(1, offset))
    loop.turn_until(lambda: any((1, 6) in batch for batch in loop.work.done))
    loop.turns(2)
    lines = {(line["offset"], line["outage"]) for line in logged(caplog, Action.RECORDS_POSTPONED)}
    assert (lines, loop.loop.health.retrying) == ({(5, False), (6, False)}, None)


def test_a_failure_is_logged_with_its_records_and_with_all_that_wait(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    for offset in (5, 6):
        loop.turn(record(0, offset), record(1, offset))
    loop.turn_until(lambda: any((1, 6) in batch for batch in loop.work.done))
    loop.turns(2)
    lines = [(line["offset"], line["records"], line["waiting"]) for line in logged(caplog, Action.RECORDS_POSTPONED)]
    assert (6, 1, 2) in lines


def test_in_an_outage_nothing_new_is_begun_when_too_much_waits_and_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop(LanePolicy(max_batch_records=2, bulk_share=0.5), max_batch_records=1)
    loop.assign(0)
    loop.loop.health.retrying = None
    loop.work.fails = lambda _: TransientError("somebody's notes")
    with caplog.at_level(logging.ERROR):
        for offset in range(6):
            loop.turn(record(0, offset))
    assert {place for batch in loop.work.done for place in batch} == {(0, 0), (0, 1)}
    assert loop.loop.health.retrying == "TransientError"
    assert "somebody" not in caplog.text
    [line] = logged(caplog, Action.RECORDS_POSTPONED)  # The line is logged only now and then.
    assert (line["outage"], line["topic"], line["partition"]) == (True, "commands", 0)


def test_the_health_has_the_error_of_an_outage_that_is_too_young_to_be_logged_again(
    loop: Loop, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_reports, "TELL_OF_OUTAGE_EVERY_S", 3_600.0)
    for offset in (5, 6):
        loop.work.fails = lambda _: TransientError("by a test")
        loop.turn(record(0, offset))
        loop.turn_until(lambda: loop.loop.health.retrying)
        assert loop.loop.health.retrying == "TransientError"
        loop.work.fails = lambda _: None
        loop.turn_until(lambda: loop.loop.is_idle and loop.loop.health.retrying is None)
    assert len(logged(caplog, Action.RECORDS_POSTPONED)) == 1


def test_the_health_has_the_newest_error_of_an_outage(loop: Loop) -> None:
    loop.work.fails = lambda _: TransientError("by a test")
    loop.turn(record(0, 5))
    loop.turn_until(lambda: loop.loop.health.retrying == "TransientError")
    loop.work.fails = lambda _: KeyError("by a test")
    loop.turn_until(lambda: loop.loop.health.retrying == "KeyError")


# --- Lanes that are full -----------------------------------------------------------------------------------------------------------------


def test_partitions_that_feed_a_full_lane_are_paused_until_half_of_it_is_done() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5, max_lane_records=4))
    loop.assign(0, 1, 2)
    loop.worker.is_held = True
    loop.turn(*(record(0, offset, bulk=True) for offset in range(5)), record(1, 0, bulk=True), record(2, 0))
    assert loop.client.paused == [[0, 1]]
    loop.turn(record(0, 6, bulk=True))
    assert loop.client.paused == [[0, 1]], "a paused partition must not be paused again"
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn_until(lambda: loop.client.resumed)
    assert loop.client.resumed == [[0, 1]]
    waiting = 8 - sum(map(len, loop.work.done))
    assert waiting <= 3, "half of the lane must be done before partitions are resumed"


def test_a_partition_that_is_revoked_while_paused_is_resumed() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5, max_lane_records=2))
    loop.assign(0, 1)
    loop.worker.is_held = True
    loop.turn(*(record(partition, offset) for offset in range(2) for partition in (0, 1)))
    loop.revoke(0)
    assert (loop.client.paused, loop.client.resumed) == ([[0, 1]], [[0]])


# --- Waiting, and health -----------------------------------------------------------------------------------------------------------------


def test_an_idle_loop_waits_and_a_busy_one_does_not(loop: Loop) -> None:
    loop.turn()
    assert len(loop.client.waits) == 1
    loop.worker.is_held = True
    loop.turn(record(0, 5))
    waits = len(loop.client.waits)
    loop.turn()
    assert len(loop.client.waits) == waits, "a busy loop must not wait"


def test_an_idle_loop_wakes_for_a_retry(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test")
    loop.turn(record(0, 5))
    loop.turns(2)
    loop.client.waits.clear()
    loop.turn()
    assert all(0 <= wait <= 0.5 for wait in loop.client.waits)
