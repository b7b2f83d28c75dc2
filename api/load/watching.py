"""Wakes the followers of a batch when it changes. One LISTEN per process serves all followers."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, text

from api.load.database import Database
from api.load.recent import RecentlyShown
from orchestrator.batches.model import BatchView
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES
from orchestrator.process.actions import Action, log_action
from orchestrator.process.settings import Settings
from orchestrator.storage import timelines, watching
from orchestrator.storage.database import create_database_engine

Result = TypeVar("Result")

_RECONNECT_AFTER_S = 1.0


def is_settled(batch: BatchView) -> bool:
    """Whether the batch changes only when a person acts on it. (A cancelled batch can have unresolved items: docs/states.md.)"""
    return batch.status in TERMINAL_BATCH_STATUSES and batch.counts.pending == 0


@dataclass(eq=False, slots=True)
class Watch:
    """One follower. `version` is the last one it has seen; `changed` is set when there is a newer one, or when the process ends. `urgent` is
    set with it, unless the batch goes on."""

    organization_id: str
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    urgent: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, timeout_s: float) -> bool:
        """Whether something changed within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True

    async def gather(self, timeout_s: float) -> None:
        """Waits for an urgent change, at most for the time. Then it forgets all changes, so the caller must read the batch now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.urgent.wait()
        self.changed.clear()
        self.urgent.clear()


class Watchers:
    """All followers of this process. Only the event loop's thread uses it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._engine = create_database_engine(
            settings.api_url, settings, connections=1, application_name="bulkreg api listener"
        ).execution_options(isolation_level="AUTOCOMMIT")
        self._database = database
        # When a batch with a thousand followers changes, only a few of them read at a time. Otherwise they would fill the database queue,
        # which would then reject them and other requests.
        self._turn = asyncio.Semaphore(max(1, settings.api_database_connections // 4))
        self._poll_s = settings.api_watch_poll_ms / 1000
        # Keyed by the batch id as text, which is the payload of its notifications.
        self._watches: dict[str, set[Watch]] = {}
        self._may_have_news = asyncio.Event()
        """Set when the listening connection has something to read, and at each poll."""
        self.closing = False
        self.recent = RecentlyShown()

    @contextlib.contextmanager
    def watch(self, batch_id: UUID, organization_id: str) -> Iterator[Watch]:
        """Follows a batch while the block runs. Enter the block before reading the batch, so that no change is missed in between."""
        watch, name = Watch(organization_id), str(batch_id)
        self._watches.setdefault(name, set()).add(watch)
        try:
            yield watch
        finally:
            left = self._watches[name]
            left.discard(watch)
            if not left:
                del self._watches[name]

    async def read(self, work: Callable[[], Result]) -> Result:
        """Runs `work` in a worker thread when it is this follower's turn. Raises what `Database.run` does."""
        async with self._turn:
            return await self._database.run(work)

    async def run(self) -> None:
        """Wakes the followers until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen())
                tasks.create_task(self._look())
        finally:
            await asyncio.to_thread(self._engine.dispose)

    def close(self) -> None:
        """Wakes all followers for the last time, so that open responses end."""
        self.closing = True
        self._wake(list(self._watches))

    def _wake(self, batch_ids: Iterable[str], *, goes_on: bool = False) -> None:
        for batch_id in batch_ids:
            for watch in self._watches.get(batch_id, ()):
                watch.changed.set()
                if not goes_on:
                    watch.urgent.set()

    async def _listen(self) -> None:
        while True:
            try:
                connection = await asyncio.to_thread(_listening, self._engine)
                try:
                    # Changes may have been announced while no connection listened.
                    self._wake(list(self._watches))
                    self.recent.hears()
                    await self._hear(connection)
                finally:
                    self.recent.hears_nothing()
                    # The connection may be broken, so it must not return to the pool.
                    connection.invalidate()
                    connection.close()
            except Exception as error:  # Also that of a bug: nobody would notice that this task has ended.
                log_action(Action.LISTENER_LOST, role="api", error=type(error).__name__)
            await asyncio.sleep(_RECONNECT_AFTER_S)

    async def _hear(self, connection: Connection) -> None:
        """Wakes the followers of each notified batch. Raises the driver's error when the connection is lost, and OperationalError when its
        server has become a former primary."""
        driver = connection.connection.driver_connection
        assert driver is not None
        loop = asyncio.get_running_loop()
        # Read the descriptor now, because a broken connection no longer returns it. The event loop must still remove it. Otherwise the loop
        # ignores the next connection with the same number, which may be a client's.
        descriptor = driver.fileno()
        loop.add_reader(descriptor, self._may_have_news.set)
        try:
            while True:
                await self._may_have_news.wait()
                self._may_have_news.clear()
                timelines.check(connection)
                driver.poll()
                changed = {watching.announced(notice.payload) for notice in driver.notifies}
                driver.notifies.clear()
                self.recent.changed({each.batch_id for each in changed})
                for each in changed:
                    self._wake([each.batch_id], goes_on=each.goes_on)
        finally:
            loop.remove_reader(descriptor)

    async def _look(self) -> None:
        """Finds changes whose notification was lost, with one query for all followed batches."""
        while True:
            await asyncio.sleep(self._poll_s)
            self._may_have_news.set()
            if not self._watches:
                continue
            organizations = sorted({watch.organization_id for watches in self._watches.values() for watch in watches})
            batch_ids = list(self._watches)
            try:
                present = await self._database.run(partial(self._database.versions, organizations, batch_ids))
            except Exception as error:  # as in `_listen`
                log_action(Action.WATCH_POLL_FAILED, role="api", error=type(error).__name__)
                continue
            for batch_id in batch_ids:
                for watch in self._watches.get(batch_id, ()):
                    if watch.version != present.get(batch_id):
                        watch.changed.set()
                        watch.urgent.set()


def _listening(engine: Engine) -> Connection:
    connection = engine.connect()
    try:
        connection.execute(text(f"LISTEN {watching.CHANNEL}"))
    except BaseException:
        # The error's traceback would keep the connection, and so the pool's only place, until cycles are collected.
        connection.invalidate()
        connection.close()
        raise
    return connection
