"""What the clients did and saw: every call, and its outcome as far as its caller knows. The judge believes nothing else about them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class Operation(StrEnum):
    """A call that changes something."""

    SUBMIT = "submit"
    UPSTREAM = "upstream event"
    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"
    REVOKE = "revoke"
    DISMISS = "dismiss"


class Ending(StrEnum):
    """How a call ended. A call without a definite response may have been carried out, which is found out at the end."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Values:
    """The requested values of one mentor's registration."""

    mentor_id: str
    activity_type: str
    activity_date: str
    duration_minutes: int
    override_duplicates: bool = field(default=False, compare=False)
    """Asked for beside another one. The record does not show it, so it is not compared."""

    @property
    def identity(self) -> tuple[str, str, str]:
        """The key for which there is at most one unflagged activity."""
        return self.mentor_id, self.activity_type, self.activity_date


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a batch, as its status returns them."""

    total: int
    pending: int
    completed: int
    failed: int
    cancelled: int


Ends = Mapping[tuple[str, int], Set[tuple[str, Counts]]]
"""By batch and number of the retry, each announced status with its counts. One event may come several times."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A requested batch. The label is unique, so that the batch can be found whatever its submitter was told."""

    label: str
    items: tuple[Values, ...]
    batch_id: str | None = None
    """The id that an upstream service has chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that was to change something."""

    label: str
    operation: Operation
    outcome: Ending
    began_s: float
    ended_s: float
    status: int | None = None
    """The status of the HTTP response. None if there was none."""
    key: str | None = None
    """The Idempotency-Key. Calls with the same key are one call, repeated."""
    batch_id: str | None = None
    """The id in the response to a submission."""
    retried: int | None = None
    revoked: int | None = None
    corrections: Mapping[int, Values] = field(default_factory=dict)
    """By position, all values that the item has after the correction."""
    counts: Counts | None = None
    """The counts in the response to a cancel. They are final."""
    part: int = 1
    """The id of an upstream event."""


@dataclass(frozen=True, slots=True)
class Closing:
    """One call that was to close the organization's period through a day, or, with None, to reopen it."""

    closed_through: str | None
    outcome: Ending


@dataclass(frozen=True, slots=True)
class Erasure:
    """One call that was to erase the notes of an item."""

    label: str
    position: int
    outcome: Ending


@dataclass(frozen=True, slots=True)
class Forgetting:
    """The calls that were to have a person forgotten, who has a number and a batch with this label."""

    mentor_id: str
    number: int
    label: str
    outcome: Ending
    receipt: bytes | None = None
    """The receipt of the batch from before; None if there was none."""
    unknown_at: datetime | None = None
    """When the reply was that nobody has the id."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a client saw of a batch when something had changed since it last looked."""

    client: int
    label: str
    at_s: float
    status: str
    """Whether it was not found."""
    counts: Counts | None


GONE = "gone"


class History:
    """Everything that happened, in the order in which it ended. Several threads may add to it."""

    def __init__(self) -> None:
        self.submissions: dict[str, Submission] = {}
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.observations: dict[str, list[Observation]] = defaultdict(list)
        self.closings: list[Closing] = []
        self.erasures: list[Erasure] = []
        self.forgettings: list[Forgetting] = []
        self.contested: set[tuple[str, str, str]] = set()
        """Keys that were requested more than once."""
        self.server_errors: list[str] = []
        """Responses with status 500: faults that the product did not handle."""
        self.wrong_templates: list[str] = []
        """Templates that differ from what their only user has saved."""
        self.reads: Counter[Ending] = Counter()

    def add(self, call: Call) -> None:
        """Adds a call that has ended."""
        self.calls[call.label].append(call)

    def saw(self, observation: Observation) -> None:
        """Adds what a client saw of a changed batch."""
        self.observations[observation.label].append(observation)

    def counted(self) -> Mapping[tuple[Operation, Ending], int]:
        """How many calls of each kind had each outcome."""
        return Counter((call.operation, call.outcome) for calls in self.all_calls() for call in calls)

    def all_calls(self) -> Sequence[list[Call]]:
        """By batch. A copy, because other threads add calls meanwhile."""
        return list(self.calls.values())
