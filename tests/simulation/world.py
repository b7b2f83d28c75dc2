"""The product in one process: its roles, its database, a broker in memory, and a model of what is allowed."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection, text

from consumers.loop.raw_record import RawRecord
from consumers.notary.published import published_checkpoints
from consumers.upkeep.purger import PurgePolicy, Purger
from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.batches.errors import OperationError
from orchestrator.batches.model import Actor
from orchestrator.batches.periods import PeriodRequest, PeriodSaved
from orchestrator.batches.repository import ActivityRepository
from orchestrator.replay.promote import promote
from orchestrator.replay.rebuild import TOPICS, ReadRecord, Replay
from orchestrator.replay.shadow_tables import Difference
from orchestrator.verification.receipts import audit_logs
from orchestrator.verification.verify import verify
from schemas.envelope import OutgoingEvent, Topic
from tests.simulation.broker import WRITTEN_AT_MS, Broker, Fetch, Outage
from tests.simulation.checks import check_step
from tests.simulation.database import KEY, Database
from tests.simulation.interleaving import Crash, Run, point
from tests.simulation.ledger import Ledger
from tests.simulation.model import COORDINATOR, LEAVER, NEWCOMER, NORTH, SOUTH, Model
from tests.simulation.processes import ConsumerProcess, RelayProcess, notary_turn, share_out
from tests.simulation.snapshot import EMPTY, Snapshot, take_snapshot
from tests.support.closing import close
from tests.support.sweeping import purge, sweep

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")
Port = TypeVar("Port")

MEMBERS = 2
RELAYS = 2

# Patience is set by parameters instead of waiting: no quiet item is that old for a day's patience, and every one is for none.
_DAY = timedelta(days=1)
_AUDITED = text(
    "SELECT (SELECT count(*) FROM registration.audit), (SELECT count(*) FROM orchestrator.receipt_log WHERE signed_size < size)"
)

_DIRECTORY_CHANGES = {
    ("south_in_scope", True): f"INSERT INTO registration.coordinator_scope VALUES (:org, '{COORDINATOR}', '{SOUTH}')",
    ("south_in_scope", False): f"DELETE FROM registration.coordinator_scope WHERE organization_id = :org AND chapter_id = '{SOUTH}'",
    ("newcomer_known", True): f"INSERT INTO registration.mentor VALUES (:org, '{NEWCOMER}', 'Mentor', '{NORTH}')",
    ("newcomer_known", False): f"DELETE FROM registration.mentor WHERE organization_id = :org AND mentor_id = '{NEWCOMER}'",
    ("leaver_left", True): f"UPDATE registration.mentor SET active_until = '2026-03-24' WHERE organization_id = :org AND mentor_id = '{LEAVER}'",
    ("leaver_left", False): f"UPDATE registration.mentor SET active_until = NULL WHERE organization_id = :org AND mentor_id = '{LEAVER}'",
    ("talks_known", True): "INSERT INTO registration.activity_type VALUES (:org, 'talk', 'Talk')",
    ("talks_known", False): "DELETE FROM registration.activity_type WHERE organization_id = :org AND activity_type = 'talk'",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to a run: at the point with this number or label it dies, or waits while others run."""

    stop_at: int | str
    crash: bool


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The server has died, and the client doesn't know whether the request was carried out."""


@dataclass(slots=True)
class Action:
    """Something that an actor does, one thing at a time. `done` is called with None, or with the error that ended it."""

    actor: object
    name: str
    work: Callable[[], object]
    done: Callable[[BaseException | None], None]


class World:
    """One example. Everything begins empty."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.model = Model()
        self._last_differences: Sequence[Difference] = ()
        self.ledger = Ledger()
        self.broker = Broker(database.settings.topic_prefix, self.ledger.stored)
        self.snapshot: Snapshot = EMPTY
        self.deaths: Counter[str] = Counter()
        """How often a run died, by the point."""
        self._suspended: tuple[Action, Run] | None = None
        database.clean()
        self.roles: dict[str, list[ConsumerProcess]] = {}
        for handler in database.pipeline.handlers:
            members = [
                ConsumerProcess(database.settings, handler, database.workers, self.broker, number) for number in range(MEMBERS)
            ]
            share_out(self.broker, members)
            self.roles[handler.name] = members
        self.relays = [RelayProcess(database.settings, database.workers, self.broker, number) for number in range(RELAYS)]

    # --- Doing --------------------------------------------------------------------------------------------------------------

    def perform(self, action: Action, fate: Fate | None = None) -> str:
        """Runs the action, completely or as its fate says. Returns a description of what happened."""
        if self._suspended is not None and self._suspended[0].actor is action.actor:
            self.resume()
        if self._suspended is not None:
            return self._beside(action, fate)
        if fate is None or fate.crash:
            run = Run(action.name, action.work, stop_at=fate.stop_at if fate else None, crash=True)
            run.inline()
            self._settle(action, run)
            return f", dies before {run.stopped_at!r}" if run.stopped_at else ""
        run = Run(action.name, action.work, stop_at=fate.stop_at)
        if run.begin():
            self._suspended = (action, run)
            return f", waits before {run.stopped_at!r}"
        self._settle(action, run)
        return ""

    def _beside(self, action: Action, fate: Fate | None) -> str:
        assert self._suspended is not None
        waiting, other = self._suspended
        run = Run(action.name, action.work, stop_at=fate.stop_at if fate and fate.crash else None, crash=True)
        woken = run.beside(other, self.database.looker)
        if woken:
            self._suspended = None
            self._settle(waiting, other)
        self._settle(action, run)
        return (f", dies before {run.stopped_at!r}" if run.stopped_at else "") + (
            f", for which {waiting.name} had to go on" if woken else ""
        )

    @property
    def somebody_waits(self) -> bool:
        """Whether a run has stopped and not died."""
        return self._suspended is not None

    def busy(self, role: str) -> list[ConsumerProcess]:
        """The members of a role that have something to do."""
        return [member for member in self.roles[role] if not member.is_idle]

    def resume(self, *, crash: bool = False) -> str:
        """Lets the waiting run continue, or die."""
        if self._suspended is None:
            return "nobody waits"
        action, run = self._suspended
        self._suspended = None
        run.resume(crash=crash)
        self._settle(action, run)
        return f"{action.name} {'dies' if crash else 'goes on'} before {run.stopped_at!r}"

    def _settle(self, action: Action, run: Run) -> None:
        if run.died_at is not None:
            self.deaths[run.died_at] += 1
        if run.error is not None and not isinstance(run.error, Crash | OperationError):
            raise run.error
        action.done(run.error)

    def die(self, actor: object) -> None:
        """A waiting run dies before its process is killed."""
        if self._suspended is not None and self._suspended[0].actor is actor:
            self.resume(crash=True)

    def check(self) -> None:
        """Compares the new state with the old one, and with what is allowed."""
        before, self.snapshot = self.snapshot, take_snapshot(self.database.looker)
        check_step(before, self.snapshot, self.model, self.ledger, self.broker)
        assert not self.database.deadlocks.count, "there was a deadlock"
        if self._suspended is None:
            self.model.forget_old_directories()

    # --- Who acts -----------------------------------------------------------------------------------------------------------

    def call(
        self,
        name: str,
        operation: Callable[Concatenate[ActivityRepository, Actor, Arguments], Returned],
        actor: Actor,
        done: Callable[[Returned | OperationError | Unanswered], None],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Action:
        """A client's call. `done` is called with the result, with the refusal, or with `Unanswered`."""
        return self._called(name, lambda: self.database.pipeline.call(operation, actor, *arguments, **named), done)

    def call_with(
        self,
        name: str,
        port: Callable[[Connection], Port],
        operation: Callable[Concatenate[ActivityRepository, Port, Actor, Arguments], Returned],
        actor: Actor,
        done: Callable[[Returned | OperationError | Unanswered], None],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Action:
        """The same for an operation that needs another port."""
        return self._called(name, lambda: self.database.pipeline.call_with(port, operation, actor, *arguments, **named), done)

    @staticmethod
    def _called(name: str, ask: Callable[[], Returned], done: Callable[[Returned | OperationError | Unanswered], None]) -> Action:
        answers: list[Returned] = []

        def work() -> None:
            answer = ask()
            point("answer")
            answers.append(answer)

        def ended(error: BaseException | None) -> None:
            done(error if isinstance(error, OperationError) else answers[0] if answers else Unanswered())

        return Action(object(), name, work, ended)

    def close_period(
        self, actor: Actor, request: PeriodRequest, done: Callable[[PeriodSaved | OperationError | Unanswered], None]
    ) -> Action:
        """An administrator closes or reopens the period."""
        return self._called(
            "the closing", lambda: close(self.database.pipeline, request.closed_through, actor=actor, reason=request.reason), done
        )

    def consume(self, member: ConsumerProcess, fetch: Fetch, *, commit_refused: bool = False) -> Action:
        """A turn of a consumer."""
        return Action(member, member.name, lambda: member.turn(fetch, commit_refused=commit_refused), _whatever)

    def relay(self, relay: RelayProcess, outage: Outage | None = None) -> Action:
        """A round of a relay."""
        return Action(relay, relay.name, lambda: relay.turn(outage), _whatever)

    def everybody(self, fetch: Fetch) -> list[Action]:
        """A turn of each process that has something to do, in the order of the flow."""
        return [
            *(self.relay(relay) for relay in self.relays),
            *(self.consume(member, fetch) for role in self.roles for member in self.busy(role)),
        ]

    def sweep(self, *, patience: bool, parts_patience: bool, max_resends: int = 3) -> Action:
        """A sweep. Without patience, it acts as if nothing had moved for long."""
        policy = SweepPolicy(
            quiet=_DAY if patience else timedelta(0),
            resend_pause=timedelta(0),
            max_resends=max_resends,
            parts_patience=_DAY if parts_patience else timedelta(0),
            bulk_threshold_items=self.database.settings.bulk_threshold_items,
        )
        sweeper = Sweeper(policy, self.broker.end_offsets)
        return Action(object(), "the sweeper", lambda: sweep(sweeper, self.database.workers), _whatever)

    def notary(self) -> Action:
        """A turn of a notary, of which any number may run."""
        return Action(object(), "the notary", lambda: notary_turn(self.database.workers, KEY), _whatever)

    def purge(self) -> Action:
        """A purge that treats every deletion as old, with so small a limit that a batch takes several transactions."""
        purger = Purger(PurgePolicy(timedelta(0), _DAY, max_items=2, max_batches=1))
        return Action(object(), "the purge", lambda: purge(purger, self.database.workers), _whatever)

    def replay(self, differences: list[UUID]) -> Action:
        """An operator's replay, which promotes every difference. `differences` gets the batches that differed."""

        def work() -> None:
            with self.database.workers.connect() as connection:
                try:
                    differences.extend(self._replay_and_promote(connection))
                finally:
                    # The shadow tables belong to the session and end with it.
                    connection.invalidate()

        return Action(object(), "the replay", work, _whatever)

    def _replay_and_promote(self, connection: Connection) -> Sequence[UUID]:
        replay = Replay(connection)
        for topic in TOPICS:
            records = [record for record in self.broker.stored(topic) if record.place not in self.broker.lost]
            if topic is Topic.RESULTS:
                replay.add_results([(r.partition, r.offset, WRITTEN_AT_MS, r.event.value) for r in records])
            else:
                replay.add(
                    ReadRecord(topic, r.partition, r.offset, WRITTEN_AT_MS, r.event.headers, r.event.value) for r in records
                )
        replay.fold()
        found = replay.compare(examples=10)
        for batch_id in found.different_batches:
            promote(connection, batch_id)
        self._last_differences = found.differences
        return found.different_batches

    def forge(self, event: OutgoingEvent) -> None:
        """Another writer writes this to the topic in the product's name."""
        self.model.forged.add(event.key)
        self.ledger.forged.add(dict(event.headers)["ce_id"].decode())
        self.broker.append(event)

    def change_directory(self, organization_id: str, change: str) -> None:
        """Changes a fact of the directory into its opposite."""
        directory = self.model.change_directory(organization_id, change)
        with self.database.looking.begin() as connection:
            connection.execute(text(_DIRECTORY_CHANGES[change, getattr(directory, change)]), {"org": organization_id})

    # --- The end ------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Relays and consumers work until nothing is left to do. Raises AssertionError if that never happens."""
        if self._suspended is not None:
            self.resume()
            self.check()
        for _ in range(200):
            self._everybody()
            self.check()
            if self.is_idle:
                return
        raise AssertionError("relays and consumers do not finish")

    def _everybody(self) -> None:
        """Relays and consumers take what there is."""
        for relay in self.relays:
            relay.turn()
        for members in self.roles.values():
            for member in members:
                while not member.is_idle:
                    member.turn(Fetch(100, 0))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in the outbox, and nothing is to be consumed."""
        return not self.snapshot.outbox and all(member.is_idle for members in self.roles.values() for member in members)

    def quiesce(self) -> None:
        """Ends the example. Everything accepted must end, at first without the sweeper."""
        self.drain()
        lost = {batch_id for batch_id, _ in self.model.lost}
        unfinished = [batch_id for batch_id in self._running() if batch_id not in lost]
        assert not unfinished, f"only the sweeper could finish {unfinished}"
        for _ in range(24):
            self.perform(self.sweep(patience=False, parts_patience=True))
            self.drain()
            if not self._running():
                break
        assert not self._running(), f"not even the sweeper has finished {self._running()}"
        self.perform(self.sweep(patience=False, parts_patience=False))
        self.drain()
        collecting = [batch_id for batch_id, batch in self.snapshot.batches.items() if batch.status == "pending"]
        assert not collecting, f"the parts of {collecting} will never come, but their batches are still collecting"
        self._judge_end()
        self._nothing_to_promote()
        self._once_more()
        self._audit_logs()
        report = verify(self.database.looking, self.database.settings)
        assert report.breaches == []

    def _running(self) -> list[str]:
        return [batch_id for batch_id, batch in self.snapshot.batches.items() if batch.status == "processing"]

    def _judge_end(self) -> None:
        """The completion of every batch was announced, with its final counts."""
        for asked in self.model.known():
            batch = self.snapshot.batches.get(asked.batch_id)
            if batch is None:
                continue
            items = self.snapshot.items_of(asked.batch_id)
            if not items:
                continue
            told = self.ledger.completions.get((asked.batch_id, batch.retry_number))
            assert told is not None, f"no completion was announced for {asked.batch_id}, retry {batch.retry_number}"
            final = (batch.status, batch.total, *batch.counts)
            said = tuple(told[name] for name in ("status", "total_items", "pending", "completed", "failed", "cancelled"))
            assert said == final, f"{asked.batch_id} ended {final}, but announced was {said}"

    def _nothing_to_promote(self) -> None:
        """The topics agree with the tables, except for batches with lost records and batches with forged events, which change nothing."""
        excused = {UUID(batch_id) for batch_id, _ in self.model.lost} | {UUID(batch_id) for batch_id in self.model.forged}
        different: list[UUID] = []
        self.perform(self.replay(different))
        assert set(different) <= excused, f"the topics and the tables differ in {different}: {self._last_differences}"
        self.check()

    def _once_more(self) -> None:
        """Every group begins at the beginning, and nothing changes (invariant 8)."""
        before = self.snapshot
        for role in self.roles:
            self.forget_offsets(role)
        self.drain()
        after = self.snapshot
        # An upstream batch that ended because parts were missing left no rows. Its parts are collected again, and parts that came a day
        # apart may be joined now.
        anew = after.batches.keys() - before.batches.keys()
        made = {batch_id for batch_id in anew if after.batches[batch_id].status != "pending"}
        assert made <= self.ledger.rejections, f"handling everything again has created {made - self.ledger.rejections}"
        after = after.without(anew)
        assert (after.items, after.outcomes, after.activities) == (before.items, before.outcomes, before.activities)
        assert after.batches == before.batches, "handling everything again has changed batches"

    def _audit_logs(self) -> None:
        """Each audit row is one leaf, and every log is what its checkpoints in the tables and on the topic say."""
        self.perform(self.notary())
        self.drain()
        records = [
            RawRecord(
                record.topic.value, record.partition, record.offset, WRITTEN_AT_MS, None, record.event.value, record.event.headers
            )
            for record in self.broker.stored(Topic.LIFECYCLE)
        ]
        published, ignored = published_checkpoints(records, [KEY.verifier])
        assert not ignored, f"{len(ignored)} checkpoints on the topic are not ours"
        leaves, differing = audit_logs(self.database.looking, published)
        assert not differing, f"the logs of receipts differ: {differing}"
        audits, unsigned = self.database.looker.execute(_AUDITED).one()
        assert leaves == audits, f"{leaves} leaves, {audits} audit rows"
        assert not unsigned, f"{unsigned} logs are not signed to their end"
        self.check()

    def forget_offsets(self, role: str) -> None:
        """The group's offsets have expired, so its members begin at the beginning."""
        for key in [key for key in self.broker.committed if key[0] == role]:
            del self.broker.committed[key]
        for member in self.roles[role]:
            member.restart()

    def close(self) -> None:
        """Ends everything that still runs."""
        if self._suspended is not None:
            with suppress(BaseException):
                self.resume(crash=True)
        for relay in self.relays:
            relay.stop()


def _whatever(_error: BaseException | None) -> None:
    """A process that dies is started again. No client waits for a result."""
