"""Row 69 of the fault catalogue: the database is restored to a point before a published checkpoint, and no published log is forked."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError
from typer.testing import Result

from cli.terminal.failures import ExitCode
from consumers.notary import appending, published
from consumers.notary import notary as notary_loop
from consumers.notary.notary import Notary
from consumers.notary.published import compare_topic, every_published_checkpoint
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.receipts.checkpoint import Checkpoint, sign
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.merkle import root
from orchestrator.storage.receipt_appending import append_rows, position, take_turn
from orchestrator.storage.receipt_checkpoints import (
    LogAgreesError,
    PublishedState,
    add_key,
    begin_again,
    note_reading,
    read_receipt_figures,
    read_up_to,
    unsettled_checkpoints,
)
from orchestrator.storage.receipt_reading import StoredHashes
from orchestrator.verification.receipts import Tampering, audit_logs, unknown_signers
from producers.producer import EventProducer
from schemas.envelope import OutgoingEvent, Topic
from schemas.event_builders import checkpoint_signed
from tests.support import command_line
from tests.support.log_lines import logged
from tests.support.pipeline import ORGANIZATION, Pipeline, mentors
from tests.support.receipts import (
    KEY,
    ORIGIN,
    all_hashes,
    as_owner,
    checkpoints,
    in_thread,
    leaves,
    notary,
    plain_root,
    restored,
    signing,
    turn_is,
)
from tests.support.shown import shown
from tests.support.waiting import PATIENCE_S, eventually


class Restoring:
    """A deployment whose database loses what happened after `lost`, while the topics keep it."""

    def __init__(self, pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer) -> None:
        self.pipeline, self.settings, self.engine, self.publisher = pipeline, settings, engine, publisher
        self.notary = notary(settings, engine)

    def register(self, first: int) -> None:
        self.pipeline.submit(mentors(2, first=first))
        self.pipeline.drain()

    def sign(self) -> None:
        self.notary.turn()
        self.pipeline.relay()
        delivery = self.publisher.send([event for event in self.pipeline.take(Topic.LIFECYCLE) if event.key == ORGANIZATION])
        while delivery.outstanding:
            self.publisher.poll(0.1)

    def restore_before(self, first: int) -> None:
        """Registers and signs, then takes the logs back."""

        def lost() -> None:
            self.register(first)
            self.sign()

        restored(self.settings, lost)
        self.pipeline.forget_what_was_published()
        self.notary = notary(self.settings, self.engine)


@pytest.fixture
def restoring(pipeline: Pipeline, settings: Settings, engine: Engine, publisher: EventProducer) -> Restoring:
    restoring = Restoring(pipeline, settings, engine, publisher)
    restoring.register(1)
    restoring.sign()
    return restoring


def test_row_69_a_restored_log_grows_to_its_published_checkpoint_and_is_signed_again(restoring: Restoring) -> None:
    engine = restoring.engine
    # Three records are published. Two come back first.
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(
            text(
                "CREATE TABLE public.missing AS SELECT * FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"
            )
        )
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id IN (SELECT audit_id FROM public.missing)"))
    restoring.notary.turn()
    assert len(leaves(engine)) == 3
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2]
    assert restoring.notary.health.failing is not None
    with as_owner(restoring.settings) as connection:
        connection.execute(text("INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT * FROM public.missing"))
    restoring.notary.turn()
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2, 4]
    assert restoring.notary.health.failing is None
    with engine.begin() as connection, pytest.raises(LogAgreesError):
        begin_again(connection, ORGANIZATION, name=ORIGIN, reason="no reason")


def test_row_69_a_log_that_differs_from_its_published_checkpoint_is_never_signed(
    restoring: Restoring, caplog: pytest.LogCaptureFixture
) -> None:
    engine = restoring.engine
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(
            text(
                "UPDATE registration.audit SET at = at + interval '1 s' WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"
            )
        )
    for _ in range(2):
        restoring.notary.turn()
        restoring.register(len(leaves(engine)) + 1)
    assert [each.checkpoint.size for each in checkpoints(engine)] == [2]
    [halted] = logged(caplog, Action.RECEIPT_LOG_HALTED)
    told = (halted["role"], halted["organization"], halted["log"], halted["size"], halted["state"])
    assert told == ("notary", ORGANIZATION, 1, 4, "forked")
    with engine.begin() as connection:
        [(head, state)] = unsettled_checkpoints(connection)
        assert (head.size, state) == (4, PublishedState.FORKED)
        assert read_receipt_figures(connection).halted == 1
        begin_again(connection, ORGANIZATION, name=ORIGIN, reason="restored")
        assert read_receipt_figures(connection).halted == 0
    restoring.notary.turn()
    assert restoring.notary.health.failing is None
    newest = checkpoints(engine)[-1].checkpoint
    assert (newest.origin, newest.size) == (f"{ORIGIN}/{ORGANIZATION}#2", len(leaves(engine, log=2)))
    assert newest.root == plain_root(all_hashes(engine, log=2))
    assert [leaf.get("before_log") for leaf in leaves(engine, log=2)] == [True] * 6 + [None] * 2
    with engine.begin() as connection:
        for log in (1, 2):
            hashes = all_hashes(engine, log=log)
            assert root(len(hashes), StoredHashes(connection, ORGANIZATION, log)) == plain_root(hashes)


def forged(key: SigningKey, *, origin: str = f"{ORIGIN}/{ORGANIZATION}", size: int = 2, altered: bool = False) -> OutgoingEvent:
    """An event that says that the organization's log has another root, or many more leaves, than it has."""
    note = sign(Checkpoint(origin, size, b"x" * 32), key)
    return checkpoint_signed(
        organization_id=ORGANIZATION,
        log=1,
        origin=origin,
        size=size,
        root=b"x" * 32,
        checkpoint=note.replace(f"\n{size}\n", f"\n{size + 7}\n", 1) if altered else note,
        time=datetime.now(UTC),
        trace_id="0" * 31 + "1",
    )


def test_row_69_a_checkpoint_that_no_known_key_has_signed_stops_nobody(
    restoring: Restoring, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = SigningKey(ORIGIN, b"\x08" * 32)
    forgeries = [
        forged(stranger),
        forged(stranger, size=1_000),
        forged(KEY, altered=True),
        # A signed checkpoint of somebody else's log, and of another log of ours.
        forged(KEY, origin=f"{ORIGIN}/another"),
        forged(KEY, origin=f"{ORIGIN}/{ORGANIZATION}#2"),
    ]
    restoring.publisher.publish(forgeries)
    restoring.register(3)
    before = shown(metrics.RECEIPT_CHECKPOINTS_IGNORED)
    fresh = notary(restoring.settings, restoring.engine)
    fresh.turn()
    assert fresh.health.failing is None
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2, 4]
    assert shown(metrics.RECEIPT_CHECKPOINTS_IGNORED) - before == len(forgeries)
    assert len(logged(caplog, Action.CHECKPOINT_IGNORED)) == len(forgeries)
    # The audit does not compare them either, and names them. What a known key has signed counts, also a false one.
    signed, ignored = every_published_checkpoint(restoring.settings, [KEY.verifier])
    assert ([each.size for each in signed], len(ignored)) == ([2], len(forgeries))
    assert audit_logs(restoring.engine, signed)[1] == []
    assert {each.kind for each in unknown_signers(ignored)} == {Tampering.UNKNOWN_SIGNER}
    assert unknown_signers(ignored, "another") == []
    restoring.publisher.publish([forged(KEY)])
    notary(restoring.settings, restoring.engine).turn()
    with restoring.engine.begin() as connection:
        assert [each.state for each in unsettled_checkpoints(connection)] == [PublishedState.FORKED]


def test_row_69_checkpoints_of_a_key_that_was_replaced_count(restoring: Restoring) -> None:
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"))
    replacing = SigningKey(ORIGIN, b"\x09" * 32)
    rotated = Notary(signing(restoring.settings, receipts_signing_key=replacing.secret_text()), restoring.engine)
    rotated.turn()
    with restoring.engine.begin() as connection:
        [(head, state)] = unsettled_checkpoints(connection)
    assert (head.size, state) == (4, PublishedState.AHEAD)
    assert rotated.health.failing is not None


REPLACING = SigningKey(ORIGIN, b"\x09" * 32)


def restored_before_the_rotation(restoring: Restoring) -> None:
    """The present key signs four records; the copy is of before it was known. A notary that has the old key reads the topic."""
    restoring.notary = rotated(restoring)
    restoring.restore_before(3)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM orchestrator.receipt_key WHERE verifier = :key"), {"key": str(REPLACING.verifier)})
        connection.execute(
            text(
                "UPDATE registration.audit SET at = at + interval '1 s' WHERE audit_id > 1 + (SELECT min(audit_id) FROM registration.audit)"
            )
        )
    with restoring.engine.begin() as connection:
        add_key(connection, str(KEY.verifier))
    assert compare_topic(restoring.settings, restoring.engine) == 1, "only that of the old key"


def rotated(restoring: Restoring) -> Notary:
    return Notary(signing(restoring.settings, receipts_signing_key=REPLACING.secret_text()), restoring.engine)


def contradicted(restoring: Restoring) -> list[tuple[int, PublishedState]]:
    with restoring.engine.begin() as connection:
        return [(each.published.size, each.state) for each in unsettled_checkpoints(connection)]


def test_row_69_checkpoints_that_were_read_before_their_key_was_known_count(restoring: Restoring) -> None:
    restored_before_the_rotation(restoring)
    rotated(restoring).turn()
    assert contradicted(restoring) == [(4, PublishedState.FORKED)]
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2]


def test_row_69_checkpoints_count_although_their_key_becomes_known_while_they_are_read(
    restoring: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored_before_the_rotation(restoring)
    run_again = published.published_checkpoints

    def announced(*given: Any) -> published.FoundCheckpoints:
        with restoring.engine.begin() as connection:
            add_key(connection, str(REPLACING.verifier))
        return run_again(*given)

    with restoring.engine.begin() as connection:
        note_reading(connection, dict.fromkeys(read_up_to(connection), 0))
    monkeypatch.setattr(published, "published_checkpoints", announced)
    assert compare_topic(restoring.settings, restoring.engine) == 1
    monkeypatch.undo()
    compare_topic(restoring.settings, restoring.engine)
    assert contradicted(restoring) == [(4, PublishedState.AHEAD)]


def test_row_69_checkpoints_count_although_their_key_becomes_known_at_the_end(restoring: Restoring) -> None:
    """A comparison waits for who adds a key, before it notes how far it came."""
    restored_before_the_rotation(restoring)
    engine = restoring.engine
    with engine.begin() as connection:
        # What is left to read is signed with the key that is not known yet.
        note_reading(connection, {partition: max(0, end - 1) for partition, end in read_up_to(connection).items()})
    with ThreadPoolExecutor() as threads, engine.begin() as connection:
        add_key(connection, str(REPLACING.verifier))
        comparing = threads.submit(compare_topic, restoring.settings, engine)
        eventually(lambda: comparing.done() or turn_is(engine, granted=False))
        connection.commit()
        assert comparing.result(PATIENCE_S) == 0
    compare_topic(restoring.settings, engine)
    assert contradicted(restoring) == [(4, PublishedState.AHEAD)]


def append_what_there_is(connection: Connection) -> None:
    """What a notary does in its turn, which it keeps until the commit."""
    take_turn(connection)
    at = position(connection)
    append_rows(connection, at, at.newest, name=ORIGIN, max_rows=10)


def test_row_69_a_checkpoint_is_compared_with_what_was_appended_until_then(restoring: Restoring) -> None:
    """A restored log grows to the published checkpoint in another notary's turn, for which the comparison waits."""
    engine = restoring.engine
    restoring.restore_before(3)
    with ThreadPoolExecutor() as threads, engine.begin() as connection:
        append_what_there_is(connection)
        comparing = threads.submit(compare_topic, restoring.settings, engine)
        eventually(lambda: comparing.done() or turn_is(engine, granted=False))
        connection.commit()
        assert comparing.result(PATIENCE_S) > 0
    with engine.begin() as connection:
        compared = connection.execute(text("SELECT size, state FROM orchestrator.receipt_published")).one()
    assert tuple(compared) == (4, PublishedState.AGREES)


def test_row_69_a_log_begins_again_with_what_was_appended_until_then(restoring: Restoring) -> None:
    engine = restoring.engine
    restoring.publisher.publish([forged(KEY)])
    notary(restoring.settings, engine).turn()
    restoring.register(3)

    def begin() -> int:
        with engine.begin() as connection:
            return begin_again(connection, ORGANIZATION, name=ORIGIN, reason="forked").size

    with ThreadPoolExecutor() as threads, engine.begin() as connection:
        append_what_there_is(connection)
        beginning = threads.submit(begin)
        eventually(lambda: beginning.done() or turn_is(engine, granted=False))
        connection.commit()
        assert beginning.result(PATIENCE_S) == 4


def test_row_69_a_key_that_is_added_by_hand_makes_its_checkpoints_count(restoring: Restoring) -> None:
    restored_before_the_rotation(restoring)
    added = bulkreg(restoring.settings, "keys", "add", str(REPLACING.verifier))
    assert (added.exit_code, json.loads(added.stdout)["is_new"]) == (0, True)
    assert not json.loads(bulkreg(restoring.settings, "keys", "add", str(REPLACING.verifier)).stdout)["is_new"]
    assert bulkreg(restoring.settings, "keys", "add", "no key").exit_code == ExitCode.BAD_INPUT
    restoring.notary.turn()
    assert contradicted(restoring) == [(4, PublishedState.FORKED)]


def test_an_audit_of_a_log_that_was_signed_again_under_another_key_names_the_true_checkpoints(restoring: Restoring) -> None:
    """Somebody with the owner's rights changes a record, removes the key and every checkpoint, and signs everything with a key of their own."""
    stranger = Notary(signing(restoring.settings, receipts_signing_key=REPLACING.secret_text()), restoring.engine)
    with as_owner(restoring.settings) as connection:
        connection.execute(text("UPDATE registration.audit SET at = at + interval '1 s'"))
        connection.execute(text("UPDATE registration.activity SET created_at = created_at + interval '1 s'"))
        for table in ("log", "run", "batch", "node", "checkpoint", "published", "key", "reading"):
            connection.execute(text(f"DELETE FROM orchestrator.receipt_{table}"))
        connection.execute(text("UPDATE orchestrator.receipt_cursor SET appended_through = 0"))
    stranger.turn()
    assert len(leaves(restoring.engine)) == 2
    audited = bulkreg(restoring.settings, "receipts", "audit")
    [finding] = json.loads(audited.stdout)["findings"]
    assert (audited.exit_code, finding["kind"]) == (ExitCode.SOME_FAILED, Tampering.UNKNOWN_SIGNER)
    for part in ("partition ", "offset ", f"{ORIGIN}/{ORGANIZATION}", f"{ORIGIN}+{KEY.verifier.key_id.hex()}"):
        assert part in finding["detail"]
    # With the true key, from the settings or as an option, it is compared.
    for known in (
        bulkreg(restoring.settings, "receipts", "audit", "--key", str(KEY.verifier)),
        bulkreg(restoring.settings, "receipts", "audit", signing_key=KEY),
    ):
        assert [each["kind"] for each in json.loads(known.stdout)["findings"]] == [Tampering.TWO_HEADS]


def bulkreg(settings: Settings, *arguments: str, signing_key: SigningKey | None = None) -> Result:
    key = None if signing_key is None else signing_key.secret_text()
    others = {"BULKREG_RECEIPTS_SIGNING_KEY": key, "BULKREG_RECEIPTS_ORIGIN": ORIGIN}
    return command_line.bulkreg(settings, *arguments, "--json", **others)


def test_row_69_the_topic_is_asked_again_when_the_database_was_replaced(restoring: Restoring) -> None:
    keeping = restoring.notary
    restoring.restore_before(3)
    keeping._server_started = None  # it has another start than before
    with as_owner(restoring.settings) as connection:
        connection.execute(text("DELETE FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"))
    keeping.turn()
    assert [each.checkpoint.size for each in checkpoints(restoring.engine)] == [2]
    assert keeping.health.failing is not None


def test_row_69_after_a_restart_of_the_server_the_topic_is_asked_again_once(restoring: Restoring) -> None:
    keeping = restoring.notary
    keeping._server_started = datetime(2000, 1, 1, tzinfo=UTC)
    keeping.turn()
    restoring.publisher.publish([forged(KEY)])
    keeping.turn()
    assert keeping.health.failing is None


def test_row_69_a_log_that_is_halted_again_is_named_again(restoring: Restoring, caplog: pytest.LogCaptureFixture) -> None:
    keeping = restoring.notary
    newest = "FROM registration.audit WHERE audit_id = (SELECT max(audit_id) FROM registration.audit)"
    for first in (3, 5):
        restoring.restore_before(first)
        with as_owner(restoring.settings) as connection:
            connection.execute(text(f"CREATE TABLE public.not_yet AS SELECT * {newest}"))
            connection.execute(text(f"DELETE {newest}"))
        keeping._server_started = None  # it has another start than before
        keeping.turn()
        assert keeping.health.failing is not None
        with as_owner(restoring.settings) as connection:
            connection.execute(text("INSERT INTO registration.audit OVERRIDING SYSTEM VALUE SELECT * FROM public.not_yet"))
            connection.execute(text("DROP TABLE public.not_yet"))
        keeping.turn()
        assert keeping.health.failing is None
    assert len(logged(caplog, Action.RECEIPT_LOG_HALTED)) == 2


def test_row_69_the_topic_is_asked_again_every_ten_minutes(restoring: Restoring) -> None:
    now = 0.0
    keeping = Notary(signing(restoring.settings), restoring.engine, lambda: now)
    keeping.turn()
    restoring.publisher.publish([forged(KEY)])
    now = 599.0
    keeping.turn()
    assert keeping.health.failing is None
    now = 600.0
    keeping.turn()
    assert keeping.health.failing is not None


def test_row_69_the_topic_is_asked_again_after_an_error(restoring: Restoring, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may be another one than before."""
    monkeypatch.setattr(notary_loop, "_MAX_PAUSE_S", 0.01)
    fails = [OperationalError("SELECT", None, ConnectionError("a test's"))]
    append = appending.Appender.append

    def fail_once(appender: appending.Appender) -> int:
        if fails:
            raise fails.pop()
        return append(appender)

    restoring.notary.turn()
    restoring.publisher.publish([forged(KEY)])
    monkeypatch.setattr(appending.Appender, "append", fail_once)
    with in_thread(restoring.notary):
        eventually(lambda: restoring.notary.health.failing)


def test_row_69_a_topic_that_was_made_again_is_read_from_its_beginning(restoring: Restoring) -> None:
    """The offsets in the database are behind its end."""
    with restoring.engine.begin() as connection:
        note_reading(connection, dict.fromkeys(read_up_to(connection), 1_000_000))
    assert compare_topic(restoring.settings, restoring.engine) == 1
    assert compare_topic(restoring.settings, restoring.engine) == 0
