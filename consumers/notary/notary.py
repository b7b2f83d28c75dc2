"""The loop of the role `notary`: appends the audit to the logs of receipts, and signs checkpoints.

1. append the audit rows that are final
2. compare the checkpoints on the lifecycle topic with the logs: at the start, after every error, when the database has started again, and every
   ten minutes
3. sign the logs that are due, unless a published checkpoint contradicts them

Any number of notaries may run. An advisory lock lets one at a time change the logs.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from confluent_kafka import KafkaException
from sqlalchemy import Engine, text

from consumers.notary.appending import Appender
from consumers.notary.published import compare_topic
from consumers.notary.signing import Signer
from consumers.reading.topic_reader import LeaderSilentError, ReadingStoppedError
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.failpoints import failpoints
from orchestrator.process.health import LoopHealth
from orchestrator.process.settings import Settings
from orchestrator.receipts.keys import SigningKey
from orchestrator.storage.blame import is_environments
from orchestrator.storage.receipt_checkpoints import Unsettled, settle_published

# How often the topic is compared while nothing happens. Each time reads what was published since the last.
_COMPARE_EVERY_S = 600.0
_MAX_PAUSE_S = 5.0
# Nothing is appended while the topic is read. So this is less than the age at which a loop counts as standing still, and the health can tell
# the reason. The next try has a new client, which asks for the present leader.
_STALL_S = 20.0
_ROLE = "notary"

# A pooler may keep our connection while the server behind it is replaced by one that was restored.
_STARTED = text("SELECT pg_postmaster_start_time()")


class Notary:
    """One notary. `run` blocks its thread until `stop`, which any thread may call."""

    def __init__(self, settings: Settings, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` decides only when to compare the topic again."""
        self.health = LoopHealth()
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._stopping = threading.Event()
        passed = failpoints(settings.failpoints)
        self._appender = Appender(engine, name=settings.receipts_origin, stopping=self._stopping, passed=passed)
        secret = settings.receipts_signing_key
        key = None if secret is None else SigningKey.parse(secret.get_secret_value())
        self._signer = None if key is None else Signer(engine, key, passed=passed)
        self._compared_at: float | None = None
        self._server_started: datetime | None = None
        self._halted: frozenset[tuple[str, int]] = frozenset()
        self._unread: str | None = None
        """Why the topic could not be compared the last time."""

    def stop(self) -> None:
        """Asks the notary to return after the transaction that is under way."""
        self._stopping.set()

    def run(self) -> None:
        """Continues when the database or the broker is unavailable. Raises any other error, which is a bug."""
        if self._signer is None:
            log_action(Action.RECEIPTS_UNSIGNED, role=_ROLE)
            self.health.broker_contact = True
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            try:
                self.turn()
                pause_s = self._settings.notary_poll_ms / 1000
            except ReadingStoppedError:
                break
            except Exception as error:
                if not isinstance(error, KafkaException) and not is_environments(error):
                    raise
                self._failed(error)
                pause_s = _MAX_PAUSE_S

    def turn(self) -> None:
        """Appends and signs once. Raises DBAPIError, KafkaException, and ReadingStoppedError after `stop`."""
        metrics.RECEIPT_LEAVES_APPENDED.inc(self._appender.append())
        if self._signer is not None:
            self._compare(self._signer)
            metrics.RECEIPT_CHECKPOINTS_SIGNED.inc(self._signer.sign_due())
        self.health.turned()

    def _compare(self, signer: Signer) -> None:
        with self._engine.begin() as connection:
            started = connection.execute(_STARTED).scalar_one()
            self._note(settle_published(connection))
        is_recent = self._compared_at is not None and self._clock() - self._compared_at < _COMPARE_EVERY_S
        if is_recent and started == self._server_started:
            return
        signer.announce_key()
        compare_topic(self._settings, self._engine, stall_s=_STALL_S, is_stopping=self._stopping.is_set)
        self._unread = None
        with self._engine.begin() as connection:
            self._note(settle_published(connection))
        self._compared_at, self._server_started = self._clock(), started
        self.health.broker_contact = True

    def _note(self, unsettled: Sequence[Unsettled]) -> None:
        for published, state in unsettled:
            if (published.organization_id, published.log) not in self._halted:
                log_action(
                    Action.RECEIPT_LOG_HALTED,
                    role=_ROLE,
                    organization=published.organization_id,
                    log=published.log,
                    size=published.size,
                    state=state.value,
                )
        self._halted = frozenset((each.published.organization_id, each.published.log) for each in unsettled)
        self.health.failing = (
            f"{len(unsettled)} logs of receipts contradict their published checkpoints and are not signed; bulkreg doctor says which"
            if unsettled
            else self._unread
        )

    def _failed(self, error: Exception) -> None:
        # After an error the database may be another one than before.
        self._compared_at = None
        told = error.args[0].str() if isinstance(error, KafkaException) else without_values(error)
        self.health.retrying = told
        if isinstance(error, KafkaException):
            # A silent leader is not the only broker: another one has named the partitions.
            self.health.broker_contact = isinstance(error, LeaderSilentError)
            self._unread = f"the published checkpoints can't be read, so nothing is signed: {told}"
            self.health.failing = self.health.failing or self._unread
            self.health.turned()
        log_action(Action.NOTARY_FAILED, role=_ROLE, error=told)
