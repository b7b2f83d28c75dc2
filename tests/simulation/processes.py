"""The product's processes: the real loop and the real relay, turned by hand, and killed when the simulation decides so."""

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn, cast

from sqlalchemy import Connection, Engine, text

from consumers.loop.client_errors import ExpelledError
from consumers.loop.commit_pace import COMMIT_EVERY_S, CommitPace
from consumers.loop.handler import Handler
from consumers.notary.appending import Appender
from consumers.notary.signing import Signer
from orchestrator.process.failpoints import Failpoint
from orchestrator.process.settings import Settings
from orchestrator.receipts.keys import SigningKey
from orchestrator.storage.blame import is_environments
from orchestrator.storage.slots import announce
from producers.relay import OutboxRelay
from tests.simulation.broker import PARTITIONS, Broker, Fetch, Outage, Place, SimulatedConsumer, SimulatedPublisher
from tests.simulation.interleaving import Crash, point, without_points
from tests.support.turned_loop import TurnedLoop

_END_SESSION = text("SELECT pg_terminate_backend(:pid)")
_HAS_SESSION = text("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = :pid)")


def places_of(handler: Handler) -> list[Place]:
    """The partitions that a role's members share."""
    return [(topic, partition) for topic in handler.topics for partition in range(PARTITIONS[topic])]


def _passed(failpoint: Failpoint) -> None:
    point(failpoint.value)


class _ImmediateWorker:
    """The loop's second thread, without the thread: a task is done when it is submitted."""

    def submit(self, task: Callable[[], Any]) -> Future[Any]:
        """Its result, or the error that it raised, is there at once."""
        future: Future[Any] = Future()
        try:
            future.set_result(task())
        except BaseException as error:  # This includes a crash, which the loop meets where it asks for the result.
            future.set_exception(error)
        return future


_times = itertools.count()


def _passing_time() -> float:
    """A clock that moves on by ten seconds at each look, so that a relay's decisions depend on no machine's speed and no jitter."""
    return 10.0 * next(_times)


def _pace() -> CommitPace:
    """Offsets are committed at every few looks. With the machine's clock, a slow machine would commit more often, and a seed would not repeat
    its run."""
    looks = itertools.count()
    return CommitPace(clock=lambda: COMMIT_EVERY_S / 5 * next(looks))


def _never_asked(group: str) -> NoReturn:
    raise AssertionError(f"the coordinator of {group} was asked, although no time passes")


class _NoTime(threading.Event):
    """What stops a notary. No time passes, so a notary does not wait for running transactions: it looks again in its next turn."""

    def wait(self, _timeout: float | None = None) -> bool:
        return True


def notary_turn(engine: Engine, key: SigningKey) -> None:
    """What a notary does between two waits, except for reading the topic."""
    Appender(engine, name=key.name, stopping=_NoTime(), passed=_passed).append()
    Signer(engine, key, passed=_passed).sign_due()


class ConsumerProcess:
    """One member of a role's group. It is replaced when it dies."""

    def __init__(self, settings: Settings, handler: Handler, engine: Engine, broker: Broker, number: int) -> None:
        self.name = f"{handler.name}-{number}"
        self.handler = handler
        self._settings = settings
        self._engine = engine
        self._broker = broker
        self._start()

    def _start(self) -> None:
        self.consumer = SimulatedConsumer(self._broker, self.handler.name)
        # The clock stands: the simulation decides what a partition returns first, however slow the machine is.
        self.loop = TurnedLoop(
            self._settings,
            self.handler,
            self._engine,
            SimulatedPublisher(self._broker),
            client=self.consumer,
            worker=_ImmediateWorker(),
            topic_ids=self._broker.topic_ids,
            question=_never_asked,
            clock=lambda: 0.0,
            pace=_pace(),
            passed=_passed,
        )
        self.consumer.subscribe(self.loop.on_assign, self.loop.on_revoke, self.loop.on_commit)

    def turn(self, fetch: Fetch, *, commit_refused: bool = False) -> None:
        """One turn of the loop. If it ends the process, the next one starts, with nothing but what is stored."""
        self.consumer.fetch = fetch
        self.consumer.refuses_commits = commit_refused
        try:
            self.loop.turn()
        except (Crash, ExpelledError):
            self.restart()
        finally:
            self.consumer.refuses_commits = False

    def restart(self) -> None:
        """Dies and starts again. The group gives it the partitions that it had."""
        places = [place for (group, place), owner in self._broker.owners.items() if owner is self.consumer]
        self._broker.leave(self.consumer)
        self._start()
        for place in places:
            self._broker.give(place, self.consumer, announced=False)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be fetched, waits or is under way."""
        return not self.consumer.is_behind and self.loop.is_idle


class RelayProcess:
    """One relay with its session."""

    def __init__(self, settings: Settings, engine: Engine, broker: Broker, number: int) -> None:
        self.name = f"relay-{number}"
        self._settings = settings
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._publisher = SimulatedPublisher(broker)
        self._connection: Connection | None = None

    def turn(self, outage: Outage | None = None) -> None:
        """What `run` does between two waits: it takes slots, and publishes a round. If its session ends, it loses its slots."""
        try:
            connection = self._session()
            if outage is None:
                self._publisher.come_back()
            self._relay._balance(connection)
            self._publisher.outage = outage
            self._relay._round(connection)
        except Crash:
            self.stop()
        except Exception as error:
            if not is_environments(error):
                raise
            self.stop()
        finally:
            self._publisher.outage = None

    def cut(self) -> None:
        """The server ends the session, and with it the relay's slots. The relay has not noticed."""
        if self._connection is not None:
            with without_points(), self._engine.connect() as other:
                other.execute(_END_SESSION, {"pid": self._pid})
                # The server's process takes a moment to end. Whether it has ended must not be left to chance.
                while other.execute(_HAS_SESSION, {"pid": self._pid}).scalar_one():
                    pass

    def stop(self) -> None:
        """Dies, and its session with it."""
        if self._connection is not None:
            self.cut()
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
            self._publisher.abandon()

    def _session(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
            # The driver is asked, because a statement would be a point, and a run that dies there would leave a session that nothing can
            # end.
            self._pid = cast("Any", self._connection.connection.dbapi_connection).info.backend_pid
            self._relay = OutboxRelay(self._settings, self._publisher, _passing_time)
            self._relay._passed = _passed
            announce(self._connection)
        return self._connection


def share_out(broker: Broker, members: Sequence[ConsumerProcess]) -> None:
    """Gives each partition of a role to one of its members, in turn."""
    for index, place in enumerate(places_of(members[0].handler)):
        broker.give(place, members[index % len(members)].consumer, announced=False)
