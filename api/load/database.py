"""Runs the API's database work in worker threads, with a connection each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, cast

from sqlalchemy import Connection, QueuePool

from api.load.threads import Threads
from orchestrator.batches.records import ActivityRecords
from orchestrator.batches.repository import ActivityRepository, NotesStore, PeriodStore, TemplateStore
from orchestrator.directory.forgetting_requests import ForgettingRequests
from orchestrator.directory.reading import DirectoryReader
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.registration.external import NoPrediction
from orchestrator.registration.external_revoking import ExternalRecords
from orchestrator.registration.in_process import InProcessPrediction
from orchestrator.registration.periods import PostgresPeriods
from orchestrator.registration.port import Prediction
from orchestrator.registration.reading import ActivityReader
from orchestrator.registration.records import InProcessRecords, NoRecords
from orchestrator.storage import watching
from orchestrator.storage.backlog import Backlog, read_backlog
from orchestrator.storage.database import ask, create_database_engine, transact
from orchestrator.storage.error_counts import ErrorCounts, NotCountedError
from orchestrator.storage.notes import PostgresNotes
from orchestrator.storage.receipts import ReceiptReader
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.templates import PostgresTemplates
from orchestrator.webhooks.store import WebhookStore

Result = TypeVar("Result")

# Long enough to survive a proxy's failover or a deadlock, short enough that the client learns of an outage.
_GIVE_UP_AFTER_S = 2.0

# Large bodies are read and stored two at a time: a batch of 10,000 takes 30 MB of objects and a thread for a quarter of a second. A flood of
# them then exhausts neither the memory nor the threads that other requests need.
_LARGE_AT_ONCE = 2

# A read is one statement of a millisecond. More threads would only wait for the interpreter.
_READS_AT_ONCE = 4


class Database:
    """Runs work in one transaction each. The event loop calls `run`, the threads call the rest."""

    def __init__(self, settings: Settings) -> None:
        connections = settings.api_database_connections + _READS_AT_ONCE + _LARGE_AT_ONCE
        self._engine = create_database_engine(settings.api_url, settings, connections=connections, application_name="bulkreg api")
        metrics.DATABASE_POOL_IN_USE.set_function(cast("QueuePool", self._engine.pool).checkedout)
        threads = partial(Threads, most_waiting=settings.api_max_waiting_requests, deadline_s=settings.request_deadline_ms / 1000)
        self._changes = threads("changes", threads=settings.api_database_connections)
        self._reads = threads("reads", threads=_READS_AT_ONCE)
        self._large = threads("large", threads=_LARGE_AT_ONCE)
        self._error_counts = ErrorCounts()
        # None: an external service decides, so nothing can be predicted.
        self._earliest_year = settings.earliest_activity_year if settings.registration_url is None else None
        self._bulk_threshold_items = settings.bulk_threshold_items
        self._service_revokes = settings.registration_revokes

    async def run(self, work: Callable[[], Result], *, changes: bool = False, is_large: bool = False) -> Result:
        """Runs `work` in a worker thread. Raises as `Threads.run` does.

        Work that changes something has threads of its own: its commits wait for ever while a synchronous standby is missing, and reads go on.
        """
        threads = self._large if is_large else self._changes if changes else self._reads
        return await threads.run(work)

    def _in_transaction(self, organization_id: str, work: Callable[[Connection], Result]) -> Result:
        """Runs `work` in a transaction that sees this organization. Raises what `work` and `transact` raise, as all methods below do."""
        return transact(self._engine, work, organizations=[organization_id], give_up_after_s=_GIVE_UP_AFTER_S)

    def _in_snapshot(self, organization_id: str, work: Callable[[Connection], Result]) -> Result:
        """Runs `work` in a transaction that sees this organization in one snapshot, and can't change anything."""
        return transact(self._engine, work, organizations=[organization_id], snapshot=True, give_up_after_s=_GIVE_UP_AFTER_S)

    def change(self, organization_id: str, work: Callable[[ActivityRepository], Result]) -> Result:
        """Runs `work` in a transaction that sees this organization and may change it."""
        return self.change_as_planned(organization_id, lambda repository, _: work(repository))

    def change_as_planned(self, organization_id: str, work: Callable[[ActivityRepository, Prediction], Result]) -> Result:
        """As `change`, for work that also needs a prediction of what registration would decide in this transaction."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), self._prediction(connection))
        )

    def change_records(self, organization_id: str, work: Callable[[ActivityRepository, ActivityRecords], Result]) -> Result:
        """The same for work that takes activities back."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), self._records(connection))
        )

    def read_records(self, organization_id: str, work: Callable[[ActivityRepository, ActivityRecords], Result]) -> Result:
        """One transaction that sees this organization and its activities in one snapshot, and changes nothing."""

        def read(connection: Connection) -> Result:
            repository = PostgresActivityRepository(connection, partial(self._error_counts.fill, connection))
            return work(repository, self._records(connection))

        return self._in_snapshot(organization_id, read)

    def read(self, organization_id: str, work: Callable[[ActivityRepository], Result]) -> Result:
        """Runs `work` in a transaction that sees this organization in one snapshot and changes nothing."""
        return self.preview(organization_id, lambda repository, _prediction, _directory: work(repository))

    def read_with_directory(self, organization_id: str, work: Callable[[ActivityRepository, DirectoryReader], Result]) -> Result:
        """The same for work that also asks what the directory says."""
        return self.preview(organization_id, lambda repository, _prediction, directory: work(repository, directory))

    def preview(self, organization_id: str, work: Callable[[ActivityRepository, Prediction, DirectoryReader], Result]) -> Result:
        """As `read`, for work that also needs a prediction of what registration would decide in this snapshot, and the directory."""

        def read(connection: Connection) -> Result:
            repository = PostgresActivityRepository(connection, partial(self._error_counts.fill, connection))
            return work(repository, self._prediction(connection), DirectoryReader(connection))

        return self._in_snapshot(organization_id, read)

    def _prediction(self, connection: Connection) -> Prediction:
        return NoPrediction() if self._earliest_year is None else InProcessPrediction(connection, self._earliest_year)

    def _records(self, connection: Connection) -> ActivityRecords:
        if self._earliest_year is not None:
            return InProcessRecords(connection)
        if not self._service_revokes:
            return NoRecords()
        return InProcessRecords(connection, ExternalRecords(connection, bulk_threshold_items=self._bulk_threshold_items))

    def look(self, organization_id: str, work: Callable[[ActivityRepository], Result]) -> Result:
        """As `read`, for work that executes one prepared statement: one round trip, unless errors have to be counted again."""
        try:
            return ask(
                self._engine,
                lambda connection: work(PostgresActivityRepository(connection, self._error_counts.fill_from_memory)),
                organizations=[organization_id],
                give_up_after_s=_GIVE_UP_AFTER_S,
            )
        except NotCountedError:
            return self.read(organization_id, work)

    def read_templates(self, organization_id: str, work: Callable[[TemplateStore], Result]) -> Result:
        """Runs `work` in a transaction that reads the templates of this organization in one snapshot."""
        return self._in_snapshot(organization_id, lambda connection: work(PostgresTemplates(connection)))

    def change_templates(self, organization_id: str, work: Callable[[ActivityRepository, TemplateStore], Result]) -> Result:
        """Runs `work` in a transaction that may change the templates of this organization."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), PostgresTemplates(connection))
        )

    def change_notes(self, organization_id: str, work: Callable[[ActivityRepository, NotesStore], Result]) -> Result:
        """Runs `work` in a transaction that may erase notes of this organization."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), PostgresNotes(connection))
        )

    def read_periods(self, organization_id: str, work: Callable[[PeriodStore], Result]) -> Result:
        """Runs `work` in a transaction that reads the closed period of this organization in one snapshot."""
        return self._in_snapshot(organization_id, lambda connection: work(PostgresPeriods(connection)))

    def change_periods(self, organization_id: str, work: Callable[[ActivityRepository, PeriodStore], Result]) -> Result:
        """Runs `work` in a transaction that may change the closed period of this organization."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), PostgresPeriods(connection))
        )

    def read_receipts(self, organization_id: str, work: Callable[[ActivityRepository, ReceiptReader], Result]) -> Result:
        """Runs `work` in a transaction that reads this organization's log in one snapshot."""
        return self._in_snapshot(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), ReceiptReader(connection))
        )

    def read_webhooks(self, organization_id: str, work: Callable[[WebhookStore], Result]) -> Result:
        """Runs `work` in a transaction that reads the webhooks of this organization in one snapshot."""
        return self._in_snapshot(organization_id, lambda connection: work(WebhookStore(connection)))

    def change_webhooks(self, organization_id: str, work: Callable[[ActivityRepository, WebhookStore], Result]) -> Result:
        """Runs `work` in a transaction that may change the webhooks of this organization."""
        return self._in_transaction(
            organization_id, lambda connection: work(PostgresActivityRepository(connection), WebhookStore(connection))
        )

    def directory(self, organization_id: str, work: Callable[[DirectoryReader], Result]) -> Result:
        """One transaction that reads the directory of this organization in one snapshot."""
        return self._in_snapshot(organization_id, lambda connection: work(DirectoryReader(connection)))

    def forgetting(self, organization_id: str, work: Callable[[ForgettingRequests], Result]) -> Result:
        """Runs `work` on the requests of this organization to forget people, in a transaction."""
        return self._in_transaction(organization_id, lambda connection: work(ForgettingRequests(connection)))

    def read_activities(self, organization_id: str, work: Callable[[ActivityReader], Result]) -> Result:
        """One transaction that reads the activities of this organization in one snapshot."""
        return self._in_snapshot(organization_id, lambda connection: work(ActivityReader(connection)))

    def console(self, work: Callable[[Connection], Result]) -> Result:
        """Runs `work` on sessions of the console in a transaction. It sees no organization."""
        return transact(self._engine, work, give_up_after_s=_GIVE_UP_AFTER_S)

    def versions(self, organization_ids: Sequence[str], batch_ids: Sequence[str]) -> Mapping[str, int]:
        """Returns the present versions of these batches of these organizations."""
        return ask(
            self._engine,
            lambda connection: watching.versions(connection, batch_ids),
            organizations=organization_ids,
            give_up_after_s=_GIVE_UP_AFTER_S,
        )

    def backlog(self) -> Backlog:
        """Returns how many items are waiting, in all organizations."""
        return transact(self._engine, read_backlog, give_up_after_s=_GIVE_UP_AFTER_S)

    def close(self) -> None:
        """Waits for running work, then closes the connections."""
        for threads in (self._changes, self._reads, self._large):
            threads.close()
        self._engine.dispose()
