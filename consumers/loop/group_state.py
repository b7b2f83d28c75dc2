"""What the database says about a role's group: its generation (decision 43), and the partitions that stand."""

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.process.actions import Action, log_action
from orchestrator.process.error_text import without_values
from orchestrator.storage.consumer_groups import FIRST_GENERATION, read_generation
from orchestrator.storage.observing import standing_partitions
from schemas.envelope import Topic


class GroupState:
    """The state of the group as far as one loop knows. The worker calls `look`; the thread that polls uses everything else."""

    def __init__(self, engine: Engine, role: str, topics: Sequence[Topic], *, trouble_after_ms: int) -> None:
        self._engine = engine
        self._role = role
        self._topics = topics
        self._trouble_after = timedelta(milliseconds=trouble_after_ms)
        self.generation = FIRST_GENERATION
        """The generation that the database has, as far as the loop knows."""
        self.is_look_due = False
        """Whether the worker is to look at the database."""
        self._standing: Sequence[tuple[Topic, int]] = ()
        """Partitions of the role that nobody has handled a record of for `trouble_after_ms`."""

    def ask(self) -> None:
        """Asks for a look. If the worker has had no time since the last time, what it read is old."""
        if self.is_look_due:
            self._standing = ()
        self.is_look_due = True

    def look(self) -> None:
        """Reads the state. If the database does not respond, the generation stays as it is, and no partition stands."""
        self.look_for_generation()
        self._standing = self._read_standing()

    def look_for_generation(self) -> None:
        """Reads only the generation."""
        self.generation = self._read_generation()

    def joined(self) -> None:
        """Forgets which partitions stood before the loop joined the group with a new client."""
        self._standing = ()

    def complaint(self, own: Collection[tuple[Topic, int]]) -> str | None:
        """The message about partitions that stand and that this member does not read. It complains about its own in other ways."""
        names = [f"{topic.value}/{partition}" for topic, partition in self._standing if (topic, partition) not in own]
        return (
            f"records wait on {', '.join(names)}, which this process does not read, and nobody has handled any of them for"
            f" {self._trouble_after.total_seconds():g} s; run: bulkreg groups list"
            if names
            else None
        )

    def _read_generation(self) -> int:
        try:
            with self._engine.connect() as connection:
                return read_generation(connection, self._role)
        except SQLAlchemyError as error:
            log_action(Action.GROUP_UNKNOWN, role=self._role, error=without_values(error))
            return self.generation

    def _read_standing(self) -> Sequence[tuple[Topic, int]]:
        try:
            with self._engine.connect() as connection:
                return standing_partitions(connection, self._topics, trouble_after=self._trouble_after)
        except SQLAlchemyError:
            return ()
