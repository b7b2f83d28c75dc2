"""The database of a whole run of the simulation."""

from sqlalchemy import Connection, Engine, create_engine, text

from orchestrator.process.settings import Settings
from orchestrator.receipts.keys import SigningKey
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.receipt_checkpoints import add_key
from tests.simulation.interleaving import Deadlocks, mark_statements
from tests.simulation.model import COORDINATOR, MENTORS, NEWCOMER, NORTH, ORGANIZATIONS, SOUTH, SOUTHERNER
from tests.support.audit import tampering
from tests.support.pipeline import Pipeline

_TABLES = (
    "orchestrator.batch", "orchestrator.batch_item", "orchestrator.outcome", "orchestrator.item_history", "orchestrator.batch_part",
    "orchestrator.batch_edit", "orchestrator.batch_dismissal", "orchestrator.template",
    "orchestrator.tombstone", "orchestrator.outbox", "orchestrator.idempotency_key", "orchestrator.consumer_progress",
    "orchestrator.sweep_mark", "orchestrator.sweep_watch", "registration.organization", "registration.mentor",
    "registration.coordinator", "registration.coordinator_scope", "registration.activity_type", "registration.activity",
    "registration.audit", "registration.period_change", "registration.notes_erasure",
)  # fmt: skip
_LOG_TABLES = tuple(
    f"orchestrator.receipt_{table}" for table in ("log", "run", "batch", "node", "checkpoint", "published", "salt", "reading")
)
_EMPTY_LOGS = "; ".join(
    [
        *(
            f"ALTER TABLE {table} DISABLE TRIGGER USER; DELETE FROM {table}; ALTER TABLE {table} ENABLE TRIGGER USER"
            for table in _LOG_TABLES
        ),
        "UPDATE orchestrator.receipt_cursor SET appended_through = 0",
    ]
)
_EMPTY_ALL = text(tampering("; ".join([*(f"DELETE FROM {table}" for table in _TABLES), _EMPTY_LOGS])))
KEY = SigningKey("bulkreg.simulated", b"\x07" * 32)


class Database:
    """Connections for a whole run of the simulation, and a clean start for each example."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.deadlocks = Deadlocks()
        self.workers = self._engine(settings, "worker")
        self.pipeline = Pipeline(settings, self.workers)
        self._watch(self.pipeline.api)
        self._owner = create_engine(settings.owner_url)
        # Connections that only read have no points.
        self.looking = create_database_engine(settings.worker_url, settings, connections=6, application_name="simulation")
        self.looker = self.looking.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _engine(self, settings: Settings, name: str) -> Engine:
        engine = create_database_engine(settings.worker_url, settings, connections=12, application_name=f"simulation {name}")
        self._watch(engine)
        return engine

    def _watch(self, engine: Engine) -> None:
        mark_statements(engine)
        self.deadlocks.watch(engine)

    def clean(self) -> None:
        """Empties every table and fills the directory."""
        with self._owner.begin() as connection:
            connection.execute(_EMPTY_ALL)
        with self.looking.begin() as connection:
            add_key(connection, str(KEY.verifier))
            for organization in ORGANIZATIONS:
                self._fill_directory(connection, organization)

    @staticmethod
    def _fill_directory(connection: Connection, organization: str) -> None:
        for statement in (
            "INSERT INTO registration.organization VALUES (:org, 'Simulated', 'Europe/Oslo')",
            "INSERT INTO registration.coordinator VALUES (:org, :coordinator, 'Coordinator', 'coordinator')",
            "INSERT INTO registration.coordinator_scope VALUES (:org, :coordinator, :north)",
            "INSERT INTO registration.activity_type VALUES (:org, 'visit', 'Visit'), (:org, 'talk', 'Talk')",
            "INSERT INTO registration.mentor SELECT :org, m, 'Mentor', CASE m WHEN :southerner THEN :south ELSE :north END"
            " FROM unnest(CAST(:mentors AS text[])) AS m WHERE m <> :newcomer",
        ):
            used = {"org": organization, "coordinator": COORDINATOR, "north": NORTH, "south": SOUTH, "mentors": list(MENTORS),
                    "southerner": SOUTHERNER, "newcomer": NEWCOMER}  # fmt: skip
            connection.execute(text(statement), {name: value for name, value in used.items() if f":{name}" in statement})

    def close(self) -> None:
        """Closes the connections."""
        self.looker.close()
        self.looking.dispose()
        self._owner.dispose()
        self.workers.dispose()
        self.pipeline.close()
