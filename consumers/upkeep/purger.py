"""The other half of the sweeper role: removes deleted batches, old notes, expired keys, deliveries and sessions, and forgets people."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, Engine

from consumers.upkeep.isolation import Isolation
from orchestrator.directory.forgetting import Forgetter
from orchestrator.process.settings import Settings
from orchestrator.storage.console_sessions import remove_ended_sessions
from orchestrator.storage.database import transact
from orchestrator.storage.notes import Due, batches_with_old_notes, erase_old_notes, erase_old_notes_of_purged
from orchestrator.storage.purging import Deleted, deleted_batches, expire_keys, purge_batches
from orchestrator.webhooks.deliveries import expire_deliveries


@dataclass(frozen=True, slots=True)
class PurgePolicy:
    """How long things are kept, and how much is removed at a time."""

    purge_after: timedelta
    keys_after: timedelta
    deliveries_after: timedelta = timedelta(days=30)
    notes_after: timedelta | None = None
    """None: notes are kept until somebody erases them."""
    # The size of one transaction: about 20 ms, for which a late result of a purged batch may have to wait.
    max_items: int = 1_000
    max_batches: int = 200
    # What one round may do before the sweep is due again: a second or two. The next round finds what is left.
    max_chunks: int = 50
    forgets_for_s: float = 6.0
    """How long one round may search for people who are forgotten. In a large database the search takes minutes."""

    @classmethod
    def of(cls, settings: Settings) -> "PurgePolicy":
        """Returns the policy that the settings ask for."""
        days = settings.notes_retention_days
        return cls(
            timedelta(hours=settings.purge_after_hours),
            timedelta(days=settings.idempotency_key_days),
            # An event that is read again must find its delivery.
            max(timedelta(days=settings.webhook_delivery_days), timedelta(hours=settings.topic_retention_hours)),
            None if days is None else timedelta(days=days),
            forgets_for_s=settings.sweep_interval_ms / 2_000,
        )


@dataclass(frozen=True, slots=True)
class Purged:
    """What one round removed."""

    batches: int = 0
    items: int = 0
    keys: int = 0
    sessions: int = 0
    notes: int = 0
    deliveries: int = 0
    forgotten: int = 0
    """People, not rows."""

    def __bool__(self) -> bool:
        return any((self.batches, self.items, self.keys, self.sessions, self.notes, self.deliveries, self.forgotten))

    def __add__(self, other: "Purged") -> "Purged":
        return Purged(
            self.batches + other.batches,
            self.items + other.items,
            self.keys + other.keys,
            self.sessions + other.sessions,
            self.notes + other.notes,
            self.deliveries + other.deliveries,
            self.forgotten + other.forgotten,
        )


class Purger:
    """Any number of purgers may run. Each skips what another one is removing."""

    def __init__(self, policy: PurgePolicy, forgetter: Forgetter | None = None) -> None:
        self._policy = policy
        self._forgetter = forgetter

    @property
    def steps(self) -> Mapping[str, Callable[[Engine], Purged]]:
        """Returns the steps of a purge by name. Each runs even if another failed.

        A step works in short transactions, however much is due. It may be interrupted anywhere and repeated.
        """
        steps = {
            "purge": self._remove_batches,
            "expire_keys": self._remove_keys,
            "end_sessions": self._remove_sessions,
            "expire_deliveries": self._remove_deliveries,
        }
        notes_after, forgetter = self._policy.notes_after, self._forgetter
        if notes_after is not None:
            steps["erase_notes"] = lambda engine: self._erase_notes(engine, notes_after)
        if forgetter is not None:
            steps["forget"] = lambda engine: Purged(forgotten=forgetter.work(engine, most_s=self._policy.forgets_for_s).people)
        return steps

    def _remove_batches(self, engine: Engine) -> Purged:
        """Removes batches. One that makes the purge fail is left out until the next purge."""
        isolation = Isolation(engine, "purge", self._due, self._purge_batches)
        total = Purged()
        for _ in range(self._policy.max_chunks):
            found, purged = isolation.round()
            if not found:
                break
            total = sum(purged, total)
        return total

    def _erase_notes(self, engine: Engine, after: timedelta) -> Purged:
        """Erases old notes. A batch that makes it fail is left out until the next purge."""
        policy = self._policy

        def due(connection: Connection, aside: Sequence[str]) -> Sequence[Due]:
            return batches_with_old_notes(
                connection, after=after, aside=aside, max_items=policy.max_items, max_batches=policy.max_batches
            )

        def erase(connection: Connection, found: Sequence[Due]) -> int:
            return erase_old_notes(connection, [each.batch_id for each in found], after=after, max_items=policy.max_items)

        isolation = Isolation(engine, "erase_notes", due, erase)
        total = 0
        for _ in range(policy.max_chunks):
            found, erased = isolation.round()
            if not found:
                break
            total += sum(erased)
        return Purged(
            notes=total
            + self._remove(
                engine, lambda connection: erase_old_notes_of_purged(connection, after=after, max_items=policy.max_items)
            )
        )

    def _remove_keys(self, engine: Engine) -> Purged:
        return Purged(keys=self._remove(engine, self._expire_keys))

    def _remove_sessions(self, engine: Engine) -> Purged:
        return Purged(sessions=self._remove(engine, self._end_sessions))

    def _remove_deliveries(self, engine: Engine) -> Purged:
        return Purged(deliveries=self._remove(engine, self._expire_deliveries))

    def _remove(self, engine: Engine, step: Callable[[Connection], int]) -> int:
        """Repeats the step, a transaction each, until it finds nothing more. Returns how many rows it removed."""
        total = 0
        for _ in range(self._policy.max_chunks):
            removed = transact(engine, step)
            total += removed
            if removed < self._policy.max_items:
                break
        return total

    def _due(self, connection: Connection, aside: Sequence[str]) -> Sequence[Deleted]:
        policy = self._policy
        return deleted_batches(connection, after=policy.purge_after, aside=aside, max_batches=policy.max_batches)

    def _purge_batches(self, connection: Connection, due: Sequence[Deleted]) -> Purged:
        return Purged(*purge_batches(connection, [each.batch_id for each in due], max_items=self._policy.max_items))

    def _expire_keys(self, connection: Connection) -> int:
        return expire_keys(connection, after=self._policy.keys_after, max_keys=self._policy.max_items)

    def _expire_deliveries(self, connection: Connection) -> int:
        return expire_deliveries(connection, after=self._policy.deliveries_after, most=self._policy.max_items)

    def _end_sessions(self, connection: Connection) -> int:
        return remove_ended_sessions(connection, max_sessions=self._policy.max_items)
