"""Reports the records that a loop has failed to handle: in its log, in its health and in a metric."""

import time
from collections.abc import Sequence

from consumers.loop.postponing import Failure, PostponedUnits
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.process.health import LoopHealth
from orchestrator.storage.blame import kind_of

# While nothing gets through, the loop logs it at this interval.
TELL_OF_OUTAGE_EVERY_S = 10.0


class FailureReports:
    """The reports of one loop."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._tells_of_outage_at = float("-inf")

    def report(self, failures: Sequence[Failure], postponed: PostponedUnits, health: LoopHealth) -> None:
        """Logs each of these failures, whose records are among the postponed ones. In an outage, logs the outage at intervals instead, and
        the health has the kind of the error."""
        metrics.POSTPONED_RECORDS.labels(self._role).set(postponed.records)
        now = time.monotonic()
        for failure in failures:
            if postponed.is_outage:
                health.retrying = kind_of(failure.error)
            if postponed.is_outage and now < self._tells_of_outage_at:
                continue
            self._tells_of_outage_at = now + TELL_OF_OUTAGE_EVERY_S
            log_action(
                Action.RECORDS_POSTPONED,
                role=self._role,
                **failure.entries[0].log_fields,
                records=len(failure.entries),
                waiting=postponed.records,
                outage=postponed.is_outage,
                error=without_values(failure.error),
            )
