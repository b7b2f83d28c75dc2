"""The notifier role: recording and delivering in one process. If one ends, so does the other."""

import threading

from consumers.loop.runtime import ConsumerLoop
from consumers.notifying.delivering import Deliverer
from orchestrator.process.health import Health, LoopHealth


class NotifierRole:
    """Runs both halves. `run` blocks its thread until `stop`, which any thread may call."""

    def __init__(self, recording: ConsumerLoop, deliverer: Deliverer) -> None:
        self.health: LoopHealth = _BothHealth(recording.health, deliverer.health)
        self._recording = recording
        self._deliverer = deliverer
        self._error: BaseException | None = None

    def run(self) -> None:
        """Raises the error of the half that has failed."""
        thread = threading.Thread(target=self._deliver, name="notifier-deliverer", daemon=True)
        thread.start()
        try:
            self._recording.run()
        finally:
            self._deliverer.stop()
            thread.join()
        if self._error is not None:
            raise self._error

    def _deliver(self) -> None:
        try:
            self._deliverer.run()
        except BaseException as error:  # `run` raises it in the role's thread
            self._error = error
        finally:
            self._recording.stop()

    def stop(self) -> None:
        """Asks both to finish what is under way."""
        self._recording.stop()


class _BothHealth(LoopHealth):
    """The health of two loops: as old as the older one, and well if both are."""

    def __init__(self, *both: LoopHealth) -> None:
        super().__init__()
        self._both = both

    @property
    def loop_age_s(self) -> float:
        return max(health.loop_age_s for health in self._both)

    def check(self, *, max_loop_age_s: float) -> Health:
        found = [health.check(max_loop_age_s=max_loop_age_s) for health in self._both]
        return next((health for health in found if not health.ok), found[0])
