"""Runs roles in this process, each in a thread, until a signal arrives or one of them can't continue."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import uvloop
from prometheus_client import REGISTRY, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.process import metrics, tracing
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.first_values import begin_at_zero
from orchestrator.process.health import Health, LoopHealth
from orchestrator.process.memory import free_memory_until, relieve_collector
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.observing import RESTARTS_WITHIN, note_starts

if TYPE_CHECKING:
    from consumers.loop.handler import Handler


# A loop that has not completed an iteration for this long is stuck. It is longer than the pauses between the retries of one unit of work.
MAX_LOOP_AGE_S = 30.0
# A role that has begun too often counts as working again after this time.
STEADY_AFTER_S = 60.0
# A process that was asked to stop has ended after this time, and the API after its drain and this time. What is under way takes up to 10 s
# (`DRAIN_S` of the consumers, the API's requests); the rest is for closing. Supervisors wait for 20 s or more (docs/operations.md).
STOP_WITHIN_S = 16.0


class RunningRole(Protocol):
    """A role that can be run: `run` blocks its thread until another thread calls `stop`."""

    health: LoopHealth

    def run(self) -> None:
        """Works until stopped. Raises when a new process has to take over."""

    def stop(self) -> None:
        """Asks the role to finish what is under way and to return."""


class ServerRole:
    """A server in a thread with an event loop of its own. `serving` yields its port."""

    def __init__(self, name: str, serving: AbstractAsyncContextManager[int]) -> None:
        self.health = LoopHealth()
        self._name = name
        self._serving = serving
        self._loop = uvloop.new_event_loop()
        self._stopping = asyncio.Event()

    def run(self) -> None:
        """Serves until `stop`."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with self._serving as port:
            log_action(Action.SERVING, role=self._name, port=port)
            await self._stopping.wait()

    def stop(self) -> None:
        """Lets the running requests finish."""
        # A server that could not start has already closed its loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)


class _LoopAges(Collector):
    """Collects how long ago each loop of this process has completed an iteration."""

    def __init__(self, roles: Mapping[str, RunningRole]) -> None:
        self._roles = roles

    def collect(self) -> Iterable[Metric]:
        """Returns one gauge for all loops."""
        for name, role in self._roles.items():
            metrics.LOOP_AGE_SECONDS.labels(name).set(role.health.loop_age_s)
        yield from metrics.LOOP_AGE_SECONDS.collect()


class UnknownRoleError(RefusedStartError):
    """The given name is not a role. The message lists the roles."""


class SigningKeyError(RefusedStartError):
    """The key that signs receipts can't be used. The message says why."""


class AddressError(RefusedStartError):
    """The API can't be served at the address in the settings. The message says which setting names another one."""


def _refuse_address(host: str, port: int, setting: str) -> None:
    """Raises AddressError if the address is taken, or is not one of this machine."""

    async def listen() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
        server.close()

    try:
        asyncio.run(listen())
    except OSError as error:
        raise AddressError(
            f"nothing can be served at {host}:{port}: {error.strerror}; stop what uses it, or set {setting} (or BULKREG_API_HOST)"
        ) from error


Build = Callable[[Settings], RunningRole]

# Each role imports what it needs. Otherwise a consumer would keep 25 MB of HTTP server and tokens, and the API the consumers. The functions
# that import return those that make the role, so that a process can wait in between, with its code loaded.


def _api(settings: Settings, checks: Mapping[str, Callable[[], Health]]) -> RunningRole:
    from api.app import serving

    return ServerRole("api", serving(settings, health=checks))


def _health(settings: Settings, port: int, checks: Mapping[str, Callable[[], Health]]) -> RunningRole:
    from api.endpoints.health import serving_health

    return ServerRole("health", serving_health(settings, port, checks))


def _relay() -> Build:
    from producers.producer import EventProducer
    from producers.relay import OutboxRelay

    return lambda settings: OutboxRelay(settings, EventProducer(settings, role="relay"))


def _splitter() -> Build:
    from consumers.splitter import SplitterHandler

    def handler(settings: Settings) -> SplitterHandler:
        return SplitterHandler(
            bulk_threshold_items=settings.bulk_threshold_items,
            max_items=settings.max_items,
            max_batch_bytes=settings.max_batch_bytes,
        )

    return _consumer(handler)


def _registration() -> Build:
    from consumers.registration import RegistrationHandler
    from orchestrator.registration.in_process import InProcessRegistrationService

    in_process = _consumer(lambda settings: RegistrationHandler(InProcessRegistrationService(settings.earliest_activity_year)))
    return lambda settings: in_process(settings) if settings.registration_url is None else _external_registration(settings)


def _external_registration(settings: Settings) -> RunningRole:
    assert settings.registration_url is not None
    from consumers.external.adapter import ExternalRegistration
    from consumers.external.http_client import refuse_unusable_way
    from consumers.loop.runtime import ConsumerLoop
    from consumers.registration import RegistrationHandler
    from orchestrator.registration.external import ExternalRegistrationService
    from producers.producer import EventProducer

    refuse_unusable_way(settings.registration_url)
    engine = _engine(settings, RegistrationHandler.name, connections=1)
    preparation = ExternalRegistration(settings, engine)
    handler = RegistrationHandler(ExternalRegistrationService())
    return ConsumerLoop(settings, handler, engine, EventProducer(settings, role=handler.name), preparation=preparation)


def _aggregator() -> Build:
    from consumers.aggregator import AggregatorHandler

    return _consumer(lambda settings: AggregatorHandler(bulk_threshold_items=settings.bulk_threshold_items))


def _sweeper() -> Build:
    from consumers.upkeep.end_offsets import BrokerEndOffsets
    from consumers.upkeep.observer import ProductObserver
    from consumers.upkeep.purger import PurgePolicy, Purger
    from consumers.upkeep.sweep_loop import SweepLoop
    from consumers.upkeep.sweeper import Sweeper, SweepPolicy
    from orchestrator.directory.forgetting import Forgetter
    from orchestrator.process.failpoints import failpoints
    from orchestrator.storage.people import ForgettingKey

    def build(settings: Settings) -> RunningRole:
        sweeper = Sweeper(SweepPolicy.of(settings), BrokerEndOffsets(settings))
        REGISTRY.register(ProductObserver.of(settings))
        engine = _engine(settings, "sweeper", connections=1)
        forgetter = Forgetter(ForgettingKey.of(settings), failpoints(settings.failpoints))
        return SweepLoop(
            sweeper, Purger(PurgePolicy.of(settings), forgetter), engine, interval_s=settings.sweep_interval_ms / 1000
        )

    return build


def _notary() -> Build:
    from consumers.notary.notary import Notary
    from orchestrator.receipts.keys import BadKeyError

    def build(settings: Settings) -> RunningRole:
        try:
            return Notary(settings, _engine(settings, "notary", connections=1))
        except BadKeyError as error:
            raise SigningKeyError(
                f"BULKREG_RECEIPTS_SIGNING_KEY is not usable: {error}; make one with: bulkreg keys create"
            ) from error

    return build


def _notifier() -> Build:
    from consumers.loop.runtime import ConsumerLoop
    from consumers.notifying.delivering import Deliverer
    from consumers.notifying.recording import RecordingHandler
    from consumers.notifying.role import NotifierRole
    from producers.producer import EventProducer

    def build(settings: Settings) -> RunningRole:
        deliverer = Deliverer(settings, _engine(settings, "notifier deliveries", connections=1))
        handler = RecordingHandler(deliverer.wake)
        producer = EventProducer(settings, role=handler.name)
        recording = ConsumerLoop(settings, handler, _engine(settings, handler.name, connections=1), producer)
        return NotifierRole(recording, deliverer)

    return build


def _consumer(make_handler: "Callable[[Settings], Handler]") -> Build:
    from consumers.loop.runtime import ConsumerLoop
    from producers.producer import EventProducer

    def build(settings: Settings) -> RunningRole:
        handler = make_handler(settings)
        return ConsumerLoop(
            settings, handler, _engine(settings, handler.name, connections=1), EventProducer(settings, role=handler.name)
        )

    return build


def _engine(settings: Settings, role: str, *, connections: int) -> Engine:
    return create_database_engine(settings.worker_url, settings, connections=connections, application_name=f"bulkreg {role}")


_LOADERS: Mapping[str, Callable[[], Build]] = {
    "relay": _relay,
    "splitter": _splitter,
    "registration": _registration,
    "aggregator": _aggregator,
    "sweeper": _sweeper,
    "notary": _notary,
    "notifier": _notifier,
}

ROLES = ("api", *_LOADERS)
"""The roles that a deployment runs, in the order of the flow."""


def run_roles(settings: Settings, names: Sequence[str], *, when_loaded: Callable[[], None] = lambda: None) -> int:
    """Runs the roles until SIGTERM or SIGINT. Returns the exit code: 0, or 1 when a role could not continue. A second signal exits
    immediately.

    Call it in the main thread. Calls `when_loaded` before it connects to anything. Raises RefusedStartError (which says why) before anything
    runs.
    """
    _refuse_start(settings, names)
    if "api" not in names:
        _be_batch_work()
    tracer = begin_tracing(os.environ)
    builds = {name: _LOADERS[name]() for name in names if name != "api"}
    when_loaded()
    roles = {name: build(settings) for name, build in builds.items()}
    REGISTRY.register(_LoopAges(dict(roles)))
    for name in names:
        begin_at_zero(name)
    roles |= _serving_health(settings, roles, beside_api="api" in names)
    relieve_collector()
    drain_s = settings.api_drain_ms / 1000 if "api" in names else 0.0
    return _run(roles, stop_within_s=STOP_WITHIN_S + drain_s, close=None if tracer is None else tracer.close)


def _refuse_start(settings: Settings, names: Sequence[str]) -> None:
    """Raises RefusedStartError if one of the roles is unknown, or can't be served with these settings."""
    unknown = sorted(set(names) - set(ROLES))
    if unknown:
        raise UnknownRoleError(f"no such role: {', '.join(unknown)}; there are {', '.join(ROLES)}")
    if "api" in names:
        from api.app import refuse_unsafe_start

        refuse_unsafe_start(settings)
        _refuse_address(settings.api_host, settings.api_port, "BULKREG_API_PORT")
    elif settings.health_port is not None:
        _refuse_address(settings.api_host, settings.health_port, "BULKREG_HEALTH_PORT")


def _serving_health(settings: Settings, roles: Mapping[str, RunningRole], *, beside_api: bool) -> Mapping[str, RunningRole]:
    """Returns the server that tells how these roles are: the API, or one at the health port. Empty without either."""
    starts = _note_starts(settings, list(roles))
    # What stops another role does not stop the API from accepting batches.
    checks = {
        name: _health_check(role.health, None if beside_api else starts.get(name), settings.max_restarts, tells_only=beside_api)
        for name, role in roles.items()
    }
    if beside_api:
        return {"api": _api(settings, checks)}
    return {} if settings.health_port is None else {"health": _health(settings, settings.health_port, checks)}


def _run(roles: Mapping[str, RunningRole], *, stop_within_s: float, close: Callable[[], None] | None) -> int:
    """Runs each role in a thread. Once one of them has ended, or a signal has arrived, stops all, and calls `close`. Returns the exit code.

    Ends the process after `stop_within_s`, whatever a role waits for. Nothing bounds a statement to a server that stands still, for example.
    What was under way is delivered again.
    """
    failed = threading.Event()
    ended = threading.Event()

    def work(name: str, role: RunningRole) -> None:
        try:
            role.run()
        except Exception as error:
            # Log the place and not the message: a driver's message can quote rows, and rows contain notes.
            place = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{place.filename}:{place.lineno}"
            log_action(Action.ROLE_FAILED, role=name, error=without_values(error), at=at)
            failed.set()
        finally:
            # One role that ends takes the process with it. The supervisor starts all of them again, clean.
            ended.set()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if ended.is_set():
            os._exit(1)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    threads = [threading.Thread(target=work, args=pair, name=pair[0], daemon=True) for pair in roles.items()]
    for thread in threads:
        thread.start()
    # Not in this thread, which handles signals: what is freed may be a client of Kafka, and its end may take long.
    threading.Thread(target=free_memory_until, args=(ended,), name="memory", daemon=True).start()
    ended.wait()
    until = time.monotonic() + stop_within_s
    for role in roles.values():
        role.stop()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    exit_code = 1 if failed.is_set() else 0
    if left := [thread.name for thread in threads if thread.is_alive()]:
        log_action(Action.STOP_ABANDONED, role=None, roles=left)
        # The interpreter's own end would wait for some of the threads.
        os._exit(exit_code)
    if close is not None:
        closing = threading.Thread(target=close, name="closing", daemon=True)
        closing.start()
        closing.join(max(0.0, until - time.monotonic()))
    return exit_code


def begin_tracing(environment: Mapping[str, str]) -> tracing.Tracing | None:
    """Begins to send traces, if the OTEL_* variables ask for it. Raises RefusedStartError."""
    if not tracing.is_asked_for(environment):
        return None
    # Imported only here: without tracing no process has OpenTelemetry.
    from compose.telemetry import OpenTelemetry

    tracer = OpenTelemetry.of(environment)
    tracing.begin(tracer)
    return tracer


def _be_batch_work() -> None:
    """Runs this process and the threads it starts under SCHED_BATCH (sched(7)), so that the API is not preempted.

    A client waits for an HTTP response; nobody waits for a single micro-batch. On two busy cores the API's p99 for a GET fell from 35 to
    27 ms, its median for a POST from 14 to 12 ms, and throughput rose by 3 % because of fewer context switches.
    """
    if sys.platform == "linux":
        try:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        except OSError as error:
            # A sandbox may forbid the call. The role works without it.
            log_action(Action.SCHEDULER_CLASS_REFUSED, role=None, error=error.strerror)


def _note_starts(settings: Settings, roles: Sequence[str]) -> Mapping[str, int]:
    """Returns how often each role began on this host recently. Empty when the database is unavailable, which other checks report."""
    if not roles:
        return {}
    engine = _engine(settings, "starts", connections=1)
    try:
        with engine.begin() as connection:
            starts = note_starts(connection, roles, host=socket.gethostname())
    except SQLAlchemyError as error:
        log_action(Action.ROLE_STARTS_NOT_NOTED, role=None, roles=list(roles), error=without_values(error))
        return {}
    finally:
        engine.dispose()
    for role, number in starts.items():
        metrics.ROLE_STARTS.labels(role).set(number)
    return starts


def _health_check(health: LoopHealth, starts: int | None, max_restarts: int, *, tells_only: bool) -> Callable[[], Health]:
    """`starts`: how often the role began recently. With `tells_only`, a trouble of a loop that still turns is reported but does not
    count."""
    steady_at = health.clock() + STEADY_AFTER_S

    def check() -> Health:
        if starts is not None and starts > max_restarts and health.clock() < steady_at:
            return Health(
                False,
                f"it began {starts} times within {RESTARTS_WITHIN.total_seconds() / 60:.0f} minutes; its log says why it ends",
            )
        found = health.check(max_loop_age_s=MAX_LOOP_AGE_S)
        return (
            Health(True, found.detail) if tells_only and health.failing is not None and found.detail == health.failing else found
        )

    return check
