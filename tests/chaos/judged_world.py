"""What the judge judges: the history that the clients tell, and the tables, made up by a test."""

from dataclasses import dataclass, replace

from tests.chaos.history import Call, Counts, Ending, History, Observation, Operation, Submission, Values
from tests.chaos.judge import Verdict, judge
from tests.chaos.tables import ActivityRow, BatchRow, ItemRow, Periods, Totals
from tests.support.pipeline import COORDINATOR

NOTHING = Totals(0, 0, 0, 0)


@dataclass
class World:
    """What the clients say, and what the tables contain."""

    history: History
    batches: dict[str, BatchRow]
    unattached: Totals = NOTHING
    """Rows that belong to no batch."""
    ends: dict[str, set[tuple[str, Counts]]] | None = None
    """The announced completions, by label. None means those of the tables."""
    periods: Periods = Periods()  # noqa: RUF009 - is frozen

    def verdict(self) -> Verdict:
        batches = list(self.batches.values())
        activities = [activity for batch in batches for item in batch.items for activity in item.activities]
        totals = Totals(
            sum(len(batch.items) for batch in batches) + self.unattached.items,
            sum(len(item.outcomes) for batch in batches for item in batch.items) + self.unattached.outcomes,
            len(activities) + self.unattached.activities,
            sum(activity.audits + activity.revocation_audits for activity in activities) + self.unattached.audits,
        )
        ends = self.ends or self.ends_of_tables()
        return judge(self.history, batches, totals, {(f"id of {label}", 0): told for label, told in ends.items()}, self.periods)

    def ends_of_tables(self) -> dict[str, set[tuple[str, Counts]]]:
        return {label: {(batch.status, batch.counts)} for label, batch in self.batches.items()}

    def call(self, label: str, operation: Operation, outcome: Ending = Ending.OK, **told: object) -> None:
        self.history.add(Call(label=label, operation=operation, outcome=outcome, began_s=10, ended_s=11, **told))  # type: ignore[arg-type]

    def see(self, label: str, status: str, counts: Counts | None, *, client: int = 0, at_s: float = 20) -> None:
        self.history.saw(Observation(client, label, at_s, status, counts))

    def submitted(self, label: str, *items: ItemRow, deleted: bool = False) -> None:
        """Accepted by HTTP, and completed."""
        self.history.submissions[label] = Submission(label, tuple(item.values for item in items))
        self.call(label, Operation.SUBMIT, batch_id=f"id of {label}")
        self.batches[label] = row(label, *items, deleted=deleted)


def values(mentor: str, minutes: int = 60) -> Values:
    return Values(mentor, "visit", "2026-03-25", minutes)


def success(position: int, asked: Values, attempt: int = 1) -> ItemRow:
    activity = f"activity of {asked.mentor_id}"
    outcomes: dict[int, tuple[str, str | None]] = dict.fromkeys(range(1, attempt), ("failed", None))
    records = [ActivityRow(activity, asked, COORDINATOR, 1)]
    return ItemRow(position, asked, "success", attempt, activity, None, outcomes | {attempt: ("success", activity)}, records)


def revoked(position: int, asked: Values) -> ItemRow:
    item = success(position, asked)
    [activity] = item.activities
    return replace(item, is_revoked=True, activities=[replace(activity, is_revoked=True, revocation_audits=1)])


def unsuccessful(position: int, asked: Values, status: str, code: str | None = None) -> ItemRow:
    return ItemRow(position, asked, status, 1, None, code, {1: (status, None)})


def row(label: str, *items: ItemRow, deleted: bool = False) -> BatchRow:
    states = [item.status for item in items]
    counts = Counts(len(items), *(states.count(status) for status in ("pending", "success", "failed", "cancelled")))
    if counts.cancelled:
        status = "cancelled"
    elif not counts.failed:
        status = "completed"
    else:
        status = "partial" if counts.completed else "failed"
    taken_back = sum(item.is_revoked for item in items)
    return BatchRow(f"id of {label}", label, status, counts, deleted, True, 0, list(items), taken_back)
