"""Sweeps and purges again and again, until told to stop."""

import logging
import threading

from confluent_kafka import KafkaException
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from consumers.purger import Purger
from consumers.sweeper import Sweeper
from orchestrator.error_text import without_values
from orchestrator.health import LoopHealth
from orchestrator.storage.blame import TransientError

_logger = logging.getLogger(__name__)


class SweepLoop:
    """Runs a sweeper and a purger. `run` blocks its thread until `stop`, which any thread may call."""

    def __init__(self, sweeper: Sweeper, purger: Purger, engine: Engine, *, interval_s: float) -> None:
        self.health = LoopHealth()
        self._sweeper = sweeper
        self._purger = purger
        self._engine = engine
        self._interval_s = interval_s
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Asks the loop to end after the sweep that is under way."""
        self._stopping.set()

    def run(self) -> None:
        """An outage only delays a sweep: what is stuck stays stuck until the next."""
        while not self._stopping.wait(self._interval_s):
            try:
                swept = self._sweeper.sweep(self._engine)
                self.health.broker_contact = True
                self.health.turned()
                if swept:
                    _logger.info("sweeper: swept: %s", swept)
                purged = self._purger.purge(self._engine)
                if purged:
                    _logger.info("sweeper: purged: %s", purged)
            except KafkaException as error:
                self.health.broker_contact = False
                _logger.warning("sweeper: sweep_failed: %s", error)
            except (DBAPIError, TransientError) as error:
                _logger.warning("sweeper: sweep_failed: %s", without_values(error))
