"""What the clients did and saw: every call, and how it ended as far as its caller knows. All that the judge believes of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum


class Operation(StrEnum):
    """What changes something."""

    SUBMIT = "submit"
    UPSTREAM = "upstream event"
    RETRY = "retry"
    CANCEL = "cancel"
    DELETE = "delete"
    REVOKE = "revoke"


class Ending(StrEnum):
    """How a call ended. What got no definite answer may have been carried out: that is found out in the end."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Values:
    """What was asked to be registered of one mentor."""

    mentor_id: str
    activity_type: str
    activity_date: str
    duration_minutes: int

    @property
    def identity(self) -> tuple[str, str, str]:
        """What there is one activity of."""
        return self.mentor_id, self.activity_type, self.activity_date


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a batch, as its status tells them."""

    total: int
    pending: int
    completed: int
    failed: int
    cancelled: int


Ends = Mapping[tuple[str, int], Set[tuple[str, Counts]]]
"""By batch and number of the retry: each status with counts that was announced. One event may come several times."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A batch that somebody asked for. The label is unique, so that it can be looked for whatever its submitter was told."""

    label: str
    items: tuple[Values, ...]
    batch_id: str | None = None
    """That an upstream service has chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that was to change something."""

    label: str
    operation: Operation
    outcome: Ending
    began_s: float
    ended_s: float
    status: int | None = None
    """Of the HTTP answer; None: there was none."""
    key: str | None = None
    """The Idempotency-Key: calls with the same one are one call, repeated."""
    batch_id: str | None = None
    """That a submission was answered."""
    retried: int | None = None
    revoked: int | None = None
    corrections: Mapping[int, Values] = field(default_factory=dict)
    """By position: all values that the item has with the correction."""
    counts: Counts | None = None
    """That a cancel was answered: they are final."""
    part: int = 1
    """Of an upstream event."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a client saw of a batch when something had changed since it last looked."""

    client: int
    label: str
    at_s: float
    status: str
    """`gone`: not found."""
    counts: Counts | None


GONE = "gone"


class History:
    """Everything that happened, in the order in which it ended. Several threads may add to it."""

    def __init__(self) -> None:
        self.submissions: dict[str, Submission] = {}
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self.observations: dict[str, list[Observation]] = defaultdict(list)
        self.contested: set[tuple[str, str, str]] = set()
        """Identities that were asked for more than once."""
        self.server_errors: list[str] = []
        """Answers 500: faults that the product did not know how to tell."""
        self.reads: Counter[Ending] = Counter()

    def add(self, call: Call) -> None:
        """A call has ended."""
        self.calls[call.label].append(call)

    def saw(self, observation: Observation) -> None:
        """A batch has changed."""
        self.observations[observation.label].append(observation)

    def counted(self) -> Mapping[tuple[Operation, Ending], int]:
        """How many calls there were of each kind and outcome."""
        return Counter((call.operation, call.outcome) for calls in self.all_calls() for call in calls)

    def all_calls(self) -> Sequence[list[Call]]:
        """By batch; a copy, for whoever looks while others add."""
        return list(self.calls.values())
