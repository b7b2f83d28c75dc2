"""A consumer's loop, turn by turn: its client's membership of the group, its partitions, and what it can't read."""

import logging
import threading
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, Message

from consumers.loop import committing, runtime
from consumers.loop.client_errors import ExpelledError
from consumers.loop.coordinator import ASK_EVERY_S, REFUSED_AFTER_S
from consumers.loop.lanes import LanePolicy
from consumers.loop.membership import LOST_AFTER_S
from consumers.loop.silence import SILENT_AFTER_S
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.storage.blame import TransientError
from schemas.envelope import Topic
from tests.support.log_lines import logged
from tests.support.shown import shown
from tests.support.turned_loop import Loop, damage, end, error, loop_of_two_partitions, record
from tests.support.waiting import eventually


@pytest.fixture
def loop() -> Loop:
    return loop_of_two_partitions()


# --- Membership --------------------------------------------------------------------------------------------------------------------------


EXPELLED = [
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._FENCED,
    KafkaError.FENCED_INSTANCE_ID,
]


@pytest.mark.parametrize("code", EXPELLED)
@pytest.mark.parametrize("by", ["message", "exception", "answer"])
def test_a_member_that_the_group_has_expelled_ends(loop: Loop, code: int, by: str) -> None:
    if by == "exception":
        loop.client.answers = [KafkaException(KafkaError(code))]
    elif by == "answer":
        loop.client.answers = [KafkaError(code)]
    with pytest.raises(ExpelledError):
        loop.turn(*([error(code)] if by == "message" else [record(0, 5)]))


@pytest.mark.parametrize("code", [KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_MEMBER_EPOCH])
def test_row_73_a_member_that_was_cut_off_for_too_long_stays_because_its_client_joins_again(loop: Loop, code: int) -> None:
    loop.client.answers = [KafkaError(code)]
    loop.turn(record(0, 5))
    loop.revoke(0, 1)  # the client reports its partitions as lost
    loop.assign(0, 1)
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}]


def test_row_72_records_are_handled_while_the_coordinator_does_not_reply(loop: Loop) -> None:
    """It may be the one broker that is unreachable, and the others' partitions go on."""
    loop.client.replies_to_commits = False
    for offset in (5, 6, 7):
        loop.turn(record(0, offset))
    assert loop.work.done == [[(0, 5)], [(0, 6)], [(0, 7)]]
    assert loop.commits == [{0: 6}], "one request at a time"
    loop.client.replies_to_commits = True
    loop.client.on_commit(None, [])
    loop.turn()
    assert loop.commits == [{0: 6}, {0: 8}]


def test_a_reply_about_partitions_that_were_given_up_meanwhile_counts_for_nothing(loop: Loop) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5))
    loop.revoke(0, 1)
    loop.client.on_commit(None, [])
    loop.assign(0, 1)
    loop.client.replies_to_commits = True
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}, {0: 6}]


def test_a_new_client_commits_although_the_one_before_it_got_no_reply(loop: Loop) -> None:
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5), end(1, 0))
    assert loop.commits
    loop.generation = 2
    loop.now = ASK_EVERY_S
    loop.turns(2)
    with loop.renewing():
        loop.turn()
    loop.assign(0, 1)
    loop.turn(record(0, 5))
    assert loop.commits == [{0: 6}]


def test_a_fatal_error_ends_the_loop_and_another_does_not(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(error(KafkaError._ALL_BROKERS_DOWN), error(KafkaError.UNKNOWN_TOPIC_OR_PART, 0), record(0, 5))
    assert loop.work.done == [[(0, 5)]]
    assert len(logged(caplog, Action.POLL_ERROR)) == 2
    with pytest.raises(KafkaException):
        loop.turn(error(KafkaError.INVALID_PRODUCER_EPOCH, fatal=True))
    with pytest.raises(KafkaException):
        loop.turn(error(KafkaError._FATAL))  # as it comes when the coordinator does not know the group any more
    loop.client.answers = [KafkaException(KafkaError(KafkaError._TRANSPORT, "by a test", fatal=True))]
    with pytest.raises(ExpelledError):
        loop.turn(record(0, 6))


def test_row_77_client_whose_commits_get_no_reply_ends_the_loop(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "REPLY_AFTER_S", 0.0)
    loop.client.replies_to_commits = False
    loop.turn(record(0, 5), end(1, 0))
    # An unreachable coordinator is no reason to end: the loop reads on.
    loop.refused = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    loop.now = ASK_EVERY_S
    loop.turns(3)
    assert not loop.loop.is_served
    loop.refused = None
    loop.now = 2 * ASK_EVERY_S
    with pytest.raises(ExpelledError, match="no reply to a commit"):
        loop.turns(3)


def test_row_79_member_that_does_not_read_a_standing_partition_is_not_ready(loop: Loop) -> None:
    def complaint() -> str | None:
        loop.now += ASK_EVERY_S
        loop.turns(4)
        return loop.loop.health.failing

    loop.turn(record(0, 5), end(1, 0))
    assert complaint() is None
    loop.standing = [(Topic.COMMANDS, 0), (Topic.COMMANDS, 2)]  # the loop's own partitions are 0 and 1
    assert eventually(complaint) == (
        "records wait on commands/2, which this process does not read, and nobody has handled any of them for 300 s;"
        " run: bulkreg groups list"
    )
    loop.standing = [(Topic.COMMANDS, 0)]
    eventually(lambda: complaint() is None)
    loop.standing = [(Topic.COMMANDS, 2)]
    eventually(complaint)
    # A worker that is busy does not look again. What it read is old by the question after the next.
    loop.worker.is_held = True
    loop.turn(record(0, 6))
    for _ in range(2):
        loop.now += ASK_EVERY_S
        loop.turns(4)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn()
    assert loop.work.done[-1] == [(0, 6)]
    assert loop.loop.health.failing is None


def test_row_78_client_that_finds_its_coordinator_no_more_ends_the_loop(loop: Loop) -> None:
    def pass_by(state: str) -> None:
        loop.now += ASK_EVERY_S
        loop.turns(3)
        loop.report(group=state)
        loop.turn()

    loop.turn(record(0, 5), end(1, 0))
    # A coordinator that serves nobody is no reason to end.
    loop.refused = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    for _ in range(5):
        pass_by("query-coord")
    loop.refused = None
    pass_by("query-coord")
    # It is found in time.
    pass_by("up")
    pass_by("query-coord")
    loop.now += LOST_AFTER_S - 1
    loop.report(group="query-coord")  # The time counts from the first such report.
    loop.turn()
    loop.now += 1
    with pytest.raises(ExpelledError, match="no coordinator for 60 s"):
        loop.turn()


def test_a_new_client_has_its_own_minute_to_find_the_coordinator(loop: Loop) -> None:
    loop.turn(record(0, 5), end(1, 0))
    loop.now = ASK_EVERY_S
    loop.turns(3)
    loop.report(group="query-coord")
    loop.generation = 2
    loop.now = 2 * ASK_EVERY_S
    loop.turns(2)
    with loop.renewing():
        loop.turn()
    loop.now += LOST_AFTER_S
    loop.turn()


# --- Partitions that come and go ---------------------------------------------------------------------------------------------------------


def test_nothing_of_a_revoked_partition_is_begun_or_committed(loop: Loop) -> None:
    loop.worker.is_held = True
    loop.turn(record(0, 5), record(1, 5))
    loop.turn(record(0, 6), record(1, 6))
    loop.revoke(0)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turns(3)
    assert loop.work.done == [[(0, 5), (1, 5)], [(1, 6)]]
    assert {partition for commit in loop.commits for partition in commit} == {1}
    assert loop.commits[-1] == {1: 7}


def test_records_of_a_partition_that_was_revoked_during_their_try_are_not_retried(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    loop.worker.is_held = True
    loop.turn(record(0, 5), record(1, 5))
    loop.revoke(0)
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn()
    assert shown(metrics.POSTPONED_RECORDS.labels("toy")) == 0, "records of another member must not be counted"
    loop.turns(3)
    assert loop.work.done == [[(0, 5), (1, 5)]]


def test_postponed_records_of_a_revoked_partition_are_not_retried(loop: Loop) -> None:
    loop.work.fails = lambda entry: TransientError("by a test") if entry.partition.partition == 0 else None
    loop.turn(record(0, 5))
    loop.turns(3)
    loop.work.done.clear()
    loop.revoke(0)
    loop.turn(record(1, 5))  # This record succeeds, which ends the outage, so everything that waits is due.
    loop.turns(3)
    assert loop.work.done == [[(1, 5)]]


def test_a_partition_that_comes_back_is_read_and_stored_again(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop.turn(record(0, 5))
    loop.revoke(0)
    loop.assign(0)
    for action in (Action.PARTITIONS_REVOKED, Action.PARTITIONS_ASSIGNED):
        assert [(line["role"], line["partitions"]) for line in logged(caplog, action)] == [("toy", ["commands/0"])]
    loop.turn(record(0, 5))
    assert loop.work.progress == [{0: 6}, {0: 6}]
    assert loop.commits == [{0: 6}, {0: 6}]


def test_a_record_that_was_polled_before_its_partition_came_back_is_left_until_it_comes_again(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the offsets of the records before it would be committed with its own, although these records fail."""

    def rebalance(_count: int, timeout: float) -> list[Message]:
        monkeypatch.undo()
        loop.revoke(0)
        loop.assign(0)
        return [record(0, 5)]

    loop.work.fails = lambda entry: TransientError() if entry.offset == 5 else None
    monkeypatch.setattr(loop.client, "consume", rebalance)
    loop.turn(record(0, 6))
    loop.turn(record(0, 6))
    assert {place for done in loop.work.done for place in done} == {(0, 5), (0, 6)}
    assert loop.commits == []


@pytest.mark.parametrize(
    ("ids", "outdated"),
    [
        ({Topic.COMMANDS: "now"}, True),
        ({Topic.COMMANDS: "then"}, False),
        ({}, False),
        (KafkaException(KafkaError(KafkaError._TRANSPORT)), False),
    ],
    ids=["made anew", "the same", "without ids", "nobody answers"],
)
def test_a_recreated_topic_is_read_from_its_beginning(ids: Any, outdated: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop = Loop(LanePolicy(max_batch_records=10, bulk_share=0.5))
    loop.ids = ids
    loop.client.metadata = {0: "then", 1: "now", 2: ""}
    loop.assign(*([0, 2, 3] if outdated else [0, 2]))
    assert loop.client.assigned == ([{0: OFFSET_BEGINNING, 2: -1001, 3: -1001}] if outdated else [])
    assert [line["partitions"] for line in logged(caplog, Action.TOPIC_REPLACED)] == ([["commands/0"]] if outdated else [])
    assert len(logged(caplog, Action.TOPIC_IDS_UNKNOWN)) == isinstance(ids, Exception)
    loop.turn(record(0, 1))
    expected = ids[Topic.COMMANDS] if isinstance(ids, dict) and ids else ""
    assert loop.client.commits == [{0: (2, expected)}]


# --- Clients that can't read their partitions --------------------------------------------------------------------------------------------


def test_a_client_that_knows_an_earlier_topic_of_that_name_is_replaced(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """It may never read the new topic, and nothing that it reads counts."""
    loop.revoke(0, 1)
    loop.ids = {Topic.COMMANDS: "next"}
    loop.assign(0, 1)
    with loop.renewing():
        loop.turn(record(0, 0))
    assert loop.work.done == []
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("topic_replaced", ["commands/0", "commands/1"])
    loop.assign(0, 1)
    loop.turn(record(0, 0))
    assert loop.work.done == [[(0, 0)]]
    assert loop.client.commits == [{0: (1, "next")}]


@pytest.mark.parametrize(
    "ids", [{Topic.COMMANDS: "now"}, {}, {Topic.COMMANDS: ""}, KafkaException(KafkaError(KafkaError._TRANSPORT))]
)
def test_a_client_is_kept_while_no_topic_is_known_to_be_replaced(loop: Loop, ids: Any) -> None:
    loop.revoke(0)
    loop.ids = ids
    loop.assign(0)
    loop.turn(record(0, 0))
    assert loop.work.done == [[(0, 0)]]
    assert not loop.client.is_closed


def test_a_client_that_returns_nothing_of_a_partition_is_replaced(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(end(0, 0), error(KafkaError.UNKNOWN_LEADER_EPOCH, 1))
    loop.now = SILENT_AFTER_S - 0.1
    loop.turn()
    assert not loop.client.is_closed
    loop.now = SILENT_AFTER_S
    with loop.renewing():
        loop.turn()
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("silent", ["commands/1"])
    loop.assign(0, 1)
    loop.turn(end(0, 0))
    assert "commands/1" in str(loop.loop.health.failing)
    loop.turn(record(1, 0))
    assert loop.loop.health.failing is None
    loop.now = 100 * SILENT_AFTER_S
    loop.turn()
    assert not loop.client.is_closed


def test_a_client_that_does_not_close_is_replaced_by_a_new_process(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "REPLACED_CLOSE_S", 0.01)
    monkeypatch.setattr(loop.client, "close", threading.Event().wait)
    loop.turn(end(0, 5))
    loop.now = SILENT_AFTER_S
    with pytest.raises(ExpelledError, match="did not close"):
        loop.turn()


@pytest.mark.parametrize("message", [record(1, 0), end(1, 0), damage(1, 0)], ids=["a record", "the end", "damage"])
def test_anything_that_is_read_of_a_partition_ends_its_silence(loop: Loop, message: Message) -> None:
    loop.turn(end(0, 0), message)
    loop.now = 100 * SILENT_AFTER_S
    loop.turn()
    assert not loop.client.is_closed


def test_a_renewed_group_is_joined_with_a_new_client(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop.turn(end(0, 0), end(1, 0))
    loop.generation = 2
    loop.now = ASK_EVERY_S
    loop.turns(2)
    assert not loop.client.is_closed
    with loop.renewing():
        loop.turn()
    [line] = logged(caplog, Action.CLIENT_RENEWED)
    assert (line["reason"], line["partitions"]) == ("group_renewed", ["commands/0", "commands/1"])
    loop.now = 2 * ASK_EVERY_S
    loop.turns(2)
    assert loop.asked_about == "test.toy.2"


def test_partitions_that_stood_before_a_new_client_joined_are_no_complaint_of_it(loop: Loop) -> None:
    loop.turn(record(0, 5), end(1, 0))
    loop.standing = [(Topic.COMMANDS, 2)]
    loop.now = ASK_EVERY_S
    loop.turns(4)
    assert "commands/2" in str(loop.loop.health.failing)
    loop.generation = 2
    loop.now = 2 * ASK_EVERY_S
    loop.turns(2)
    with loop.renewing():
        loop.turn()
    loop.turn()
    assert loop.loop.health.failing is None


def test_the_group_is_kept_while_the_database_does_not_say_whether_it_was_renewed(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    loop.lose_database()
    loop.turn(end(0, 0), end(1, 0))
    loop.now = ASK_EVERY_S
    loop.turns(3)
    assert {line["role"] for line in logged(caplog, Action.GROUP_UNKNOWN)} == {"toy"}
    assert not loop.client.is_closed


def test_a_group_that_is_refused_is_told_once_and_makes_the_role_unready(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(end(0, 0), end(1, 0))
    loop.loop.health.broker_contact = True
    loop.refused = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
    for _ in range(3):
        loop.now += REFUSED_AFTER_S
        loop.turns(2)
    assert len(logged(caplog, Action.GROUP_REFUSED)) == 1
    assert "does not serve" in str(loop.loop.health.failing)
    loop.refused = None
    loop.now += REFUSED_AFTER_S
    loop.turns(2)
    assert loop.loop.health.failing is None
    loop.refused = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
    for _ in range(3):
        loop.now += REFUSED_AFTER_S
        loop.turns(2)
    assert len(logged(caplog, Action.GROUP_REFUSED)) == 2


def test_without_a_broker_a_silent_client_is_kept(loop: Loop) -> None:
    loop.now = 100 * SILENT_AFTER_S
    loop.loop.health.broker_contact = False
    loop.turn()
    assert not loop.client.is_closed
    loop.loop.health.broker_contact = True
    loop.now += SILENT_AFTER_S - 0.1
    loop.turn()
    assert not loop.client.is_closed


# --- Batches that can't be read ----------------------------------------------------------------------------------------------------------


def test_a_damaged_batch_is_tried_again_and_then_skipped(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(record(0, 5))
    loop.next_batch = {6: 9, 10: 11}
    for offset in range(8):
        # The client loses its place, and what it returns of the partition after the report is not the next record.
        loop.turn(record(1, offset), damage(0, 6), record(0, 3), damage(0, 6), end(0, 12))
    assert loop.client.sought == [(0, 6)] * 5 + [(0, 9)] * 3
    of_it = [place for batch in loop.work.done for place in batch if place[0] == 0]
    assert of_it == [(0, 5), (0, 6)], "the batch must have one dead letter"
    [line] = logged(caplog, Action.RECORDS_LOST)
    assert (line["topic"], line["partition"], line["offset"], line["next_offset"]) == ("commands", 0, 6, 9)
    # The client begins again at the beginning, and reports the same batch again.
    loop.turn(record(0, 9))
    loop.turn(record(0, 0), damage(0, 6))
    assert loop.client.sought[-1] == (0, 10)
    assert loop.commits[-1] == {0: 10}
    loop.turn(damage(0, 10))
    assert loop.client.sought[-1] == (0, 10), "another batch must have its own tries"


def test_the_dead_letter_of_a_damaged_batch_does_not_wait_for_large_batches() -> None:
    loop = Loop(LanePolicy(max_batch_records=1, bulk_share=0.5))
    loop.assign(0, 1)
    loop.next_batch = {6: 9}
    loop.worker.is_held = True
    loop.turn(*(record(1, offset, bulk=True) for offset in range(10)))
    for _ in range(6):
        loop.turn(damage(0, 6))
    loop.worker.is_held = False
    loop.worker.future.set_result(loop.worker.task())
    loop.turn_until(lambda: [(0, 6)] in loop.work.done)
    assert len(loop.work.done) <= 4


def test_a_batch_that_can_be_read_after_all_is_not_lost(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.turn(damage(0, 6))
    loop.turn(record(0, 6), record(0, 7))
    assert loop.work.done == [[(0, 6), (0, 7)]]
    assert logged(caplog, Action.RECORDS_LOST) == []


def test_a_damaged_batch_is_read_from_where_the_loop_is(loop: Loop) -> None:
    """Kafka returns the whole batch for each of its offsets."""
    loop.turn(record(0, 5), record(0, 6))
    loop.turn(damage(0, 5))
    assert loop.client.sought == [(0, 7)]


def test_the_log_says_which_records_of_a_damaged_batch_are_lost(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    """Those that were read before are not lost."""
    loop.turn(record(0, 5), record(0, 6))
    loop.next_batch = {5: 9}
    for _ in range(6):
        loop.turn(damage(0, 5))
    [line] = logged(caplog, Action.RECORDS_LOST)
    assert (line["offset"], line["next_offset"]) == (7, 9)


# --- Contact -----------------------------------------------------------------------------------------------------------------------------


def test_the_clients_reports_say_whether_brokers_respond(loop: Loop) -> None:
    def report(state: str) -> None:
        broker = {"nodeid": 1, "state": state, "rxidle": 0, "waitresp_cnt": 0, "toppars": {}}
        loop.report(brokers={"a": broker})

    report("UP")
    assert loop.loop.health.broker_contact
    report("CONNECT")
    assert not loop.loop.health.broker_contact


def test_assigned_partitions_show_that_a_broker_is_in_contact(loop: Loop) -> None:
    assert loop.loop.health.broker_contact
