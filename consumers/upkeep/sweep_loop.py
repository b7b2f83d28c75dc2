"""Sweeps and purges repeatedly, until told to stop."""

import threading
from collections.abc import Callable
from dataclasses import asdict
from time import monotonic

from confluent_kafka import KafkaException
from sqlalchemy import Engine

from consumers.upkeep.purger import Purged, Purger
from consumers.upkeep.sweeper import Sweeper, Swept
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.health import LoopHealth

LEAST_PAUSE = 0.1
"""The least pause after a sweep, as a share of the interval."""


class SweepLoop:
    """Runs a sweeper and a purger. `run` blocks its thread until `stop`, which any thread may call."""

    def __init__(self, sweeper: Sweeper, purger: Purger, engine: Engine, *, interval_s: float) -> None:
        self.health = LoopHealth()
        self._steps: dict[str, Callable[[Engine], Swept | Purged]] = {**sweeper.steps, **purger.steps}
        for step in self._steps:
            metrics.SWEEP_FAILURES.labels(step)
            metrics.SWEEP_SET_ASIDE.labels(step)
        self._engine = engine
        self._interval_s = interval_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Asks the loop to end after the step that is under way."""
        self._stopping.set()

    def run(self) -> None:
        """Runs until stopped. A step that fails with any error is tried again by the next sweep, and the other steps still run.

        An outage only delays a sweep: a stuck item stays stuck until the next one.
        """
        pause_s = self._interval_s
        while not self._stopping.wait(pause_s):
            began_s = monotonic()
            self._sweep()
            # A sweep in which somebody is forgotten takes half of the interval, one more step of that, and the time of all other steps. The next
            # one is no later for that.
            pause_s = max(self._interval_s - (monotonic() - began_s), self._interval_s * LEAST_PAUSE)

    def _sweep(self) -> None:
        failed: list[str] = []
        has_contact = True
        for step, do in self._steps.items():
            if self._stopping.is_set():
                return
            try:
                done = do(self._engine)
            except Exception as error:
                is_kafkas = isinstance(error, KafkaException)
                has_contact = has_contact and not is_kafkas
                failed.append(step)
                metrics.SWEEP_FAILURES.labels(step).inc()
                # Kafka's errors quote no records, so their message can be logged.
                told = str(error) if is_kafkas else without_values(error)
                log_action(Action.SWEEP_FAILED, role="sweeper", step=step, error=told)
            else:
                if isinstance(done, Swept):
                    metrics.SWEEPER_RESENDS.inc(done.resent)
                if done:
                    log_action(Action.STEP_DONE, role="sweeper", step=step, **asdict(done))
            self.health.turned()
        self.health.broker_contact = has_contact
        self.health.failing = f"the last sweep failed in {', '.join(failed)}; see the log" if failed else None
