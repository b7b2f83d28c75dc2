"""Submissions that come while a transaction is on its way share the next one (decision 14).

Whoever comes when nobody is storing stores at once, so one alone waits for nothing. While it does, others gather; the first of them then
stores them all. A set is of one organization, because row level security lets a transaction see one.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.batches.errors import OperationError
from orchestrator.batches.model import Submitted
from orchestrator.batches.submit import SubmissionRequest, SubmissionResult
from orchestrator.storage.blame import is_transient, sqlstate

Store = Callable[[str, Sequence[SubmissionRequest]], Sequence[SubmissionResult]]
"""Stores submissions of an organization in one transaction."""

# A larger one goes alone: the others would wait for it.
MAX_ITEMS = 100

# Of a slow database: one after the other they would keep those that gather meanwhile for minutes.
_STATEMENT_TIMEOUT = "57014"


@dataclass(slots=True)
class _Waiting:
    """A submission, and what its thread waits for: its result, or that it is its turn to store."""

    request: SubmissionRequest
    woken: threading.Event = field(default_factory=threading.Event)
    result: SubmissionResult | None = None
    failure: Exception | None = None
    leads: bool = False


class GroupCommit:
    """Lets threads that submit at the same time share transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._gathering: dict[str, list[_Waiting]] = {}
        """By organization, while somebody is storing: who waits."""

    def submit(self, request: SubmissionRequest) -> Submitted:
        """Returns when the submission is committed. Raises its own refusal, or what the database raised."""
        mine = _Waiting(request)
        if len(request.batch.items) > MAX_ITEMS:
            self._store_together([mine])
            return _result_of(mine)
        organization_id = request.actor.organization_id
        with self._lock:
            others = self._gathering.get(organization_id)
            if others is not None:
                others.append(mine)
            else:
                self._gathering[organization_id] = []
                mine.leads = True
        if not mine.leads:
            mine.woken.wait()
        if mine.leads:
            self._lead(organization_id, mine)
        return _result_of(mine)

    def _lead(self, organization_id: str, mine: _Waiting) -> None:
        """Stores its own submission with those that have gathered, then hands on to one of those that gathered meanwhile."""
        with self._lock:
            together = [mine, *self._gathering[organization_id]]
            self._gathering[organization_id] = []
        try:
            self._store_together(together)
        finally:
            with self._lock:
                gathered = self._gathering[organization_id]
                if gathered:
                    gathered[0].leads = True
                    next_leader = gathered.pop(0)
                    next_leader.woken.set()
                else:
                    del self._gathering[organization_id]
            for other in together[1:]:
                other.woken.set()

    def _store_together(self, together: Sequence[_Waiting]) -> None:
        try:
            results = self._store(together[0].request.actor.organization_id, [waiting.request for waiting in together])
        except Exception as error:
            if len(together) > 1 and not is_transient(error) and sqlstate(error) != _STATEMENT_TIMEOUT:
                # One of them may be at fault; the others must not pay.
                for waiting in together:
                    self._store_together([waiting])
                return
            for waiting in together:
                waiting.failure = error
            return
        for waiting, result in zip(together, results, strict=True):
            waiting.result = result


def _result_of(waiting: _Waiting) -> Submitted:
    if waiting.failure is not None:
        raise waiting.failure
    if isinstance(waiting.result, OperationError):
        raise waiting.result
    assert waiting.result is not None, "a submission that is woken has a result or a failure"
    return waiting.result
