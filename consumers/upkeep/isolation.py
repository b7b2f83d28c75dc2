"""Works on many batches in one transaction. When one of them makes it fail, works on the others without it."""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection, Engine

from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.storage.blame import Blame, blame
from orchestrator.storage.database import transact

# If this many batches of one round meet a lasting error of the environment (a missing right, a statement that takes too long), no batch
# is to blame.
_MAX_REFUSED = 20


class OfBatch(Protocol):
    """Something to do for a batch."""

    @property
    def batch_id(self) -> str:
        """The batch."""


Found = TypeVar("Found", bound=OfBatch)
Done = TypeVar("Done")


class Isolation(Generic[Found, Done]):
    """One step of a sweep. It sets aside a batch that makes the step fail until the next sweep, and logs it."""

    def __init__(
        self,
        engine: Engine,
        step: str,
        find: Callable[[Connection, Sequence[str]], Sequence[Found]],
        work: Callable[[Connection, Sequence[Found]], Done],
        *,
        may_work: Callable[[Connection], bool] = lambda _: True,
    ) -> None:
        """`find` returns what is to be done, without the batches that it is given. `work` does it, in the same transaction.

        `work` may also get a part of what an earlier transaction found. Neither is called while `may_work` returns False.
        """
        self._engine = engine
        self._step = step
        self._find = find
        self._work = work
        self._may_work = may_work
        self._aside: list[str] = []
        self._refused = 0

    def round(self) -> tuple[int, list[Done]]:
        """Returns how much was found, and the result of each transaction. Raises errors that no batch causes."""
        found: list[Found] = []
        self._refused = 0

        def whole(connection: Connection) -> list[Done]:
            found[:] = self._find(connection, self._aside) if self._may_work(connection) else []
            return [self._work(connection, found)] if found else []

        try:
            done = transact(self._engine, whole)
        except Exception as error:
            if not found or not _may_be_a_batchs(error):
                raise
            done = self._divide(found, error)
        return len(found), done

    def _divide(self, found: Sequence[Found], error: Exception) -> list[Done]:
        batch_ids = sorted({each.batch_id for each in found})
        if len(batch_ids) == 1:
            self._refused += blame(error) is Blame.LASTING
            if self._refused > _MAX_REFUSED:
                raise error
            self._aside += batch_ids
            metrics.SWEEP_SET_ASIDE.labels(self._step).inc()
            log_action(Action.BATCH_SET_ASIDE, role="sweeper", batch=batch_ids[0], step=self._step, error=without_values(error))
            return []
        first = set(batch_ids[: len(batch_ids) // 2])
        return [
            done
            for part in (
                [each for each in found if each.batch_id in first],
                [each for each in found if each.batch_id not in first],
            )
            for done in self._part(part)
        ]

    def _part(self, found: Sequence[Found]) -> list[Done]:
        def work(connection: Connection) -> list[Done]:
            return [self._work(connection, found)] if self._may_work(connection) else []

        try:
            return transact(self._engine, work)
        except Exception as error:
            if not _may_be_a_batchs(error):
                raise
            return self._divide(found, error)


def _may_be_a_batchs(error: Exception) -> bool:
    """Whether the error may be this batch's own: values and constraints, a trigger, a damaged page, a lock that somebody holds for long.
    Errors that pass by themselves hit every batch alike."""
    return blame(error) is not Blame.PASSING
