"""The other half of the notifier: claims deliveries that are due, has each one sent, and stores what became of it.

A claim is a short transaction, so no lock is held while a receiver is waited for. A process that dies leaves its deliveries due again when their
lease ends. Each webhook has its own bound of requests under way, and so have all together. Half of the latter is only for first requests to
receivers that work, so that receivers that hang delay no other, however many they are.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine

from consumers.loop.handler import NOTIFIER
from consumers.loop.worker import Worker
from consumers.notifying.sending import TIMEOUT_S, NoSocketError, Sender
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import Failpoint, failpoints
from orchestrator.process.health import LoopHealth
from orchestrator.process.settings import Settings
from orchestrator.storage.blame import is_environments
from orchestrator.storage.database import transact
from orchestrator.webhooks.addresses import ReceiverAddresses
from orchestrator.webhooks.deliveries import Claimed, Ended, Turns, claim_deliveries, end_attempt, renew_secrets
from orchestrator.webhooks.model import Attempt
from orchestrator.webhooks.secrets import Sealer, UnreadableSecretError
from schemas.statuses import DeliveryState

Returned = TypeVar("Returned")

# Deliveries of other processes, tests, redeliveries and those that are due again are found within this time.
POLL_S = 1.0
# How long attempts under way may take when the role stops. What is cut off is due again when its lease ends.
DRAIN_S = 5.0


class Deliverer:
    """Delivers what is due. `run` blocks its thread until `stop`, which any thread may call, as it may `wake`."""

    def __init__(self, settings: Settings, engine: Engine, *, timeout_s: float = TIMEOUT_S) -> None:
        self.health = LoopHealth(broker_contact=True)
        self._engine = engine
        self._most = settings.webhook_concurrency
        self._connections = settings.webhook_connections
        self._addresses = ReceiverAddresses(settings.webhook_networks)
        self._sealer = Sealer(settings.webhook_key_list) if settings.webhook_key_list else None
        self._timeout_s = timeout_s
        self._passed = failpoints(settings.failpoints)
        self._under_way: set[Claimed] = set()
        self._turns = Turns()
        self._loop = asyncio.new_event_loop()
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._database: Worker[object] = Worker("notifier-database")

    def run(self) -> None:
        """Delivers until stopped. Raises any error of a bug."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._deliver())
        except BaseExceptionGroup as group:  # of the attempts: the first one says what is wrong
            raise group.exceptions[0] from group
        finally:
            self._database.close()

    def wake(self) -> None:
        """Has the deliverer look at once for what is due."""
        self._call(self._woken.set)

    def stop(self) -> None:
        """Lets the attempts that are under way end."""
        self._call(self._stopping.set)
        self._call(self._woken.set)

    def _call(self, what: Callable[[], None]) -> None:
        # The loop is closed if the deliverer has ended.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what)

    async def _deliver(self) -> None:
        if self._sealer is None:
            await self._idle()
            return
        async with Sender(self._addresses, self._sealer, timeout_s=self._timeout_s) as sender, asyncio.TaskGroup() as attempts:
            tasks: set[asyncio.Task[None]] = set()
            renewed = False
            while not self._stopping.is_set():
                self._woken.clear()
                renewed = renewed or await self._persistently(self._renew_secrets)
                for claimed in await self._claim():
                    task = attempts.create_task(self._attempt(sender, claimed))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await self._pause()
            if tasks:
                await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in tasks:
                task.cancel()

    async def _idle(self) -> None:
        """Without a key there is nothing to sign with. `doctor` names webhooks that wait for one."""
        while not self._stopping.is_set():
            self.health.turned()
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._woken.wait()

    async def _claim(self) -> list[Claimed]:
        claimed: list[Claimed] = []
        under_way = frozenset(self._under_way)  # the thread reads a copy

        def claim(connection: Connection) -> None:
            claimed[:] = claim_deliveries(
                connection, under_way=under_way, turns=self._turns, most=self._most, connections=self._connections
            )

        if not await self._persistently(claim):
            return []
        self.health.turned()
        if claimed:
            self._passed(Failpoint.NOTIFIER_AFTER_CLAIM)
            self._turns.note(claimed)
        self._under_way.update(claimed)
        return claimed

    async def _attempt(self, sender: Sender, claimed: Claimed) -> None:
        try:
            attempt = await sender.send(claimed)
        except UnreadableSecretError:
            log_action(Action.WEBHOOK_SECRET_UNREADABLE, role=NOTIFIER, webhook=claimed.webhook_id)
        except NoSocketError as error:
            # The delivery is due again when its lease ends.
            log_action(Action.SOCKETS_EXHAUSTED, role=NOTIFIER, error=error)
        else:
            self._passed(Failpoint.NOTIFIER_AFTER_SEND)
            metrics.WEBHOOK_ATTEMPTS.labels(attempt.problem or "delivered").inc()
            await self._end(claimed, attempt)
        finally:
            self._under_way.discard(claimed)
            self._woken.set()

    async def _end(self, claimed: Claimed, attempt: Attempt) -> None:
        ended: Ended | None = None

        def end(connection: Connection) -> None:
            nonlocal ended
            ended = end_attempt(connection, claimed, attempt)

        # If the result can't be stored, the delivery is due again when its lease ends.
        if await self._persistently(end):
            self._passed(Failpoint.NOTIFIER_AFTER_END)
        if ended is not None and ended.state is DeliveryState.FAILED:
            log_action(
                Action.DELIVERY_GIVEN_UP,
                role=NOTIFIER,
                webhook=claimed.webhook_id,
                delivery=claimed.event_id,
                problem=attempt.problem,
                status=attempt.status,
            )
        if ended is not None and ended.disabled is not None:
            log_action(Action.WEBHOOK_DISABLED, role=NOTIFIER, webhook=claimed.webhook_id, reason=ended.disabled)

    def _renew_secrets(self, connection: Connection) -> None:
        assert self._sealer is not None
        renewed = renew_secrets(connection, self._sealer)
        if renewed:
            log_action(Action.WEBHOOK_SECRETS_RENEWED, role=NOTIFIER, secrets=renewed)

    async def _persistently(self, work: Callable[[Connection], None]) -> bool:
        """Runs the work in a transaction, in a thread. Returns whether it was committed: an outage of the database is logged, not raised."""
        try:
            await asyncio.shield(asyncio.wrap_future(self._database.submit(lambda: transact(self._engine, work))))
        except Exception as error:
            if not is_environments(error):
                raise
            self.health.failing = f"the database does not respond: {without_values(error)}"
            log_action(Action.DELIVERING_FAILED, role=NOTIFIER, error=without_values(error))
            return False
        self.health.failing = None
        return True
