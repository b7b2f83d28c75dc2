"""Submissions that arrive during a commit share the next one (decision 14).

With no commit in flight, a submission commits immediately. Later arrivals queue; the first of them leads the next commit. Each commit holds
submissions of one organization, because row level security lets a transaction see only one.
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

# A larger submission commits alone, so that the others do not wait for it.
MAX_ITEMS = 100

# The database is slow. Retrying the submissions one after the other would keep the next group waiting for minutes.
_STATEMENT_TIMEOUT = "57014"


@dataclass(slots=True)
class _Waiting:
    """A queued submission. Its thread waits until the submission has a result, or until it leads the next commit."""

    request: SubmissionRequest
    woken: threading.Event = field(default_factory=threading.Event)
    result: SubmissionResult | None = None
    failure: Exception | None = None
    leads: bool = False


class GroupCommit:
    """Commits the submissions of concurrent threads in shared transactions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._gathering: dict[str, list[_Waiting]] = {}
        """Submissions queued behind a commit in flight, by organization."""

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
        """Stores its own submission with the queued ones, then passes the lead to the first that arrived in the meantime."""
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
                # One submission may be at fault; the others must not fail with it.
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
