"""What is allowed: the directory, the requests, and what each response has promised. It contains none of the product's code."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from itertools import cycle

from schemas.corrections import Correction
from tests.simulation.snapshot import Group, Key, Values

ORGANIZATIONS = ("org-a", "org-b")
COORDINATOR = "coord-1"
DAYS = (date(2026, 3, 25), date(2026, 3, 26))
TYPES = ("visit", "talk")
MENTORS = tuple(f"mentor-{number}" for number in range(6))
CANARY = "a note that nobody else may read"

# All mentors in the coordinator's scope live in the north. The last mentor is in no directory until one adds them.
NORTH, SOUTH = "north", "south"
SOUTHERNER, NEWCOMER, LEAVER = "mentor-4", "mentor-5", "mentor-3"


@dataclass(frozen=True, slots=True)
class Directory:
    """The part of one organization's directory that changes."""

    south_in_scope: bool = False
    newcomer_known: bool = False
    leaver_left: bool = False
    talks_known: bool = True

    def broken_rule(self, values: Values, *, is_closed: bool) -> str | None:
        """The code of the first rule that these values break, except for the duplicate rule (docs/rules.md)."""
        if values.mentor_id not in MENTORS or (values.mentor_id == NEWCOMER and not self.newcomer_known):
            return "mentor_not_found"
        if values.mentor_id == SOUTHERNER and not self.south_in_scope:
            return "out_of_scope"
        if values.mentor_id == LEAVER and self.leaver_left and values.activity_date > DAYS[0] - timedelta(days=1):
            return "mentor_inactive"
        if values.activity_type not in TYPES or (values.activity_type == "talk" and not self.talks_known):
            return "activity_type_unknown"
        if is_closed:
            return "period_closed"
        return None if 1 <= values.duration_minutes <= 1_440 else "invalid_item"


@dataclass(slots=True)
class RetryAsked:
    """One call of retry. With `positions` None it is about all failed items. `begun` is the returned number, and None while it is unknown."""

    positions: frozenset[int] | None
    changes: Mapping[int, Correction]
    begun: int | None = None


@dataclass(slots=True)
class RevocationAsked:
    """One call of revoke. With `positions` None it is about the whole batch. `revoked` is the returned number, and None while it is
    unknown."""

    positions: frozenset[int] | None
    revoked: int | None = None


@dataclass(slots=True)
class DismissalAsked:
    """One call of dismiss, with its repetitions under the same key."""

    key: str
    calls: int = 0
    refusals: int = 0


@dataclass(slots=True)
class TemplateAsked:
    """A template that somebody wanted to save, and what was asked of it since. Each try under its key comes with an id of its own."""

    organization_id: str
    key: str
    groups: list[Group]
    """What it may hold: each group that it was saved with."""
    template_id: str | None = None
    """The id of the try that has saved it, once that is known."""
    is_accepted: bool = False
    delete_asked: bool = False
    is_gone: bool = False
    """It was there and is not any more."""


@dataclass(slots=True)
class Asked:
    """A requested batch, by HTTP or from upstream, and the later requests about it."""

    batch_id: str
    organization_id: str
    variants: list[tuple[Values, ...]]
    """Its possible items: one list, or several if an upstream service contradicted itself."""
    parts: int | None = None
    """The number of parts from upstream, or None for HTTP."""
    parts_sent: set[int] = field(default_factory=set)
    is_wrong: bool = False
    """A part breaks the request rules, so the batch must never get items."""
    key: str | None = None
    is_accepted: bool = False
    cancel_asked: bool = False
    is_cancelled: bool = False
    delete_asked: bool = False
    is_deleted: bool = False
    retries: list[RetryAsked] = field(default_factory=list)
    revocations: list[RevocationAsked] = field(default_factory=list)
    dismissals: list[DismissalAsked] = field(default_factory=list)
    erasures_asked: set[int] = field(default_factory=set)
    """The positions whose notes somebody wanted to erase. No correction of the simulation has notes, so none come back."""
    erased: set[int] = field(default_factory=set)
    """The positions whose erasure was acknowledged."""

    def values_after_retry(self, position: int, values: Values) -> list[Values]:
        """What an item's values may be in its next attempt."""
        return [
            values._replace(**retry.changes.get(position, {}))
            for retry in self.retries
            if retry.begun != 0 and (retry.positions is None or position in retry.positions)
        ]

    @property
    def attempts_begun(self) -> range:
        """How many attempts the retries may have begun in total: from what was returned to what may have happened."""
        certain = sum(retry.begun or 0 for retry in self.retries)
        unknown = sum(1 for retry in self.retries if retry.begun is None)
        return range(certain, certain + unknown * len(self.variants[0]) + 1)

    def may_be_revoked(self, position: int) -> bool:
        """Whether a revocation was requested."""
        return any(each.revoked != 0 and (each.positions is None or position in each.positions) for each in self.revocations)

    @property
    def revoked(self) -> range:
        """How many of its activities the calls have revoked: from what was returned to what may have happened."""
        certain = sum(each.revoked or 0 for each in self.revocations)
        unknown = sum(1 for each in self.revocations if each.revoked is None)
        return range(certain, certain + unknown * len(self.variants[0]) + 1)


class Model:
    """The whole model."""

    def __init__(self) -> None:
        self.asked: dict[str, Asked] = {}
        self.directories: dict[str, list[Directory]] = {organization: [Directory()] for organization in ORGANIZATIONS}
        """By organization: the present directory last, and before it those that a process still at work may have seen."""
        self.templates: dict[str, TemplateAsked] = {}
        """By the id of each try to save them."""
        self.closings: dict[str, set[date | None]] = {organization: {None} for organization in ORGANIZATIONS}
        """By organization: the requested last closed days."""
        self.lost: set[Key] = set()
        """Items of which the simulation has removed a record. Only these may fail with `internal_error`."""

        self.forged: set[str] = set()
        """Batches about which another writer has written events in the product's name."""

    def known(self) -> list[Asked]:
        """Every requested batch, oldest first."""
        return list(self.asked.values())

    def change_directory(self, organization_id: str, change: str) -> Directory:
        """Changes one of the directory's facts into its opposite. Returns the new directory."""
        present = self.directories[organization_id][-1]
        changed = replace(present, **{change: not getattr(present, change)})
        self.directories[organization_id].append(changed)
        return changed

    def forget_old_directories(self) -> None:
        """Drops old directories when no process is at work that may have seen them."""
        for versions in self.directories.values():
            del versions[:-1]

    def rule_answers(self, organization_id: str, values: Values, *, closed: Set[bool]) -> set[str | None]:
        """What the rules may have returned to a process that has just decided. `closed`: whether the date may have been in a closed period."""
        return {
            directory.broken_rule(values, is_closed=is_closed)
            for directory in self.directories[organization_id]
            for is_closed in closed
        }


def values_of(code: int, *, override: bool) -> Values:
    """One of about a hundred items. Small numbers are the plain ones, and many of them have the same mentor, type and date."""
    code, mentor = divmod(code, len(MENTORS))
    code, kind = divmod(code, len(TYPES))
    variant, day = divmod(code, len(DAYS))
    return Values(
        mentor_id=MENTORS[mentor],
        activity_type="dance" if variant == 2 else TYPES[kind],
        activity_date=DAYS[day],
        duration_minutes=0 if variant == 3 else 60,
        notes=CANARY if variant == 1 else None,
        override_duplicates=override,
    )


CODES = len(MENTORS) * len(TYPES) * len(DAYS) * 4


def items_of(codes: Sequence[int], *, overriding: Sequence[bool] = (False,)) -> tuple[Values, ...]:
    """Items for these codes, without those that would be in the batch twice. `overriding` says of each in turn whether it overrides
    duplicates."""
    items: dict[tuple[str, str, date], Values] = {}
    for code, override in zip(codes, cycle(overriding), strict=False):
        values = values_of(code, override=override)
        items.setdefault((values.mentor_id, values.activity_type, values.activity_date), values)
    return tuple(items.values())
