"""The jobs of the load generator and their results, as the two ends of a pipe exchange them. Times are in seconds."""

from dataclasses import dataclass, field

SMALL_ITEMS = 25
"""The typical batch. The time to its terminal status is measured."""
MEDIUM_ITEMS = 50
"""The batch whose `POST` and `GET` are timed (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A number of batches of one size from clients that do what users do: `POST`, `GET`, long poll until the end, then the next batch."""

    batches: int
    batch_items: int
    clients: int


@dataclass(frozen=True, slots=True)
class Scattered:
    """As `Closed`, but each batch is of another organization, as at the end of a month. So it has at most 1,000 batches, of at most 100."""

    batches: int
    batch_items: int
    clients: int


@dataclass(frozen=True, slots=True)
class Open:
    """A number of batches of one size from clients that don't wait for their batches: each sends the next after the response to the last."""

    batches: int
    batch_items: int
    clients: int


@dataclass(frozen=True, slots=True)
class Steady:
    """A steady rate for a given time, however fast the responses are. It alternates watched batches of 25 with batches of 50 that are read
    once.

    A client that waited for slow responses would send less at just that time, and miss what others had to wait. So each time counts from
    the moment at which the request was due.
    """

    items_per_s: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Beside:
    """A number of batches of 25, watched, one at a time, each begun while a large batch runs."""

    batches: int
    large_items: int


@dataclass(frozen=True, slots=True)
class CancelRunning:
    """A large batch that is cancelled when the first of its items are done."""

    items: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The results of a load. `generator_cpu_s` is the CPU time of the generator itself."""

    items: int
    total_s: float
    generator_cpu_s: float
    accepted_s: list[float] = field(default_factory=list)
    """Of each `POST`. At a steady rate, only of the batches of 50."""
    found_s: list[float] = field(default_factory=list)
    """Of each `GET` of a batch that was just accepted. At a steady rate, only of the batches of 50."""
    finished_s: list[float] = field(default_factory=list)
    """Of each watched batch, from its submission to its terminal status."""


@dataclass(frozen=True, slots=True)
class SeenCancel:
    """What a cancel returned, and when. The four counts are the response's."""

    batch_id: str
    answered_s: float
    pending: int
    completed: int
    failed: int
    cancelled: int


Load = Closed | Scattered | Open | Steady | Beside
Job = Load | CancelRunning


def most_items(job: Job) -> int:
    """How many items a job may submit."""
    match job:
        case Closed() | Scattered() | Open():
            return job.batches * job.batch_items
        case Steady():
            return pairs(job) * (SMALL_ITEMS + MEDIUM_ITEMS)
        case Beside():
            return job.batches * (SMALL_ITEMS + job.large_items)
        case CancelRunning():
            return job.items


def pairs(job: Steady) -> int:
    """Returns how many batches of each size the load has."""
    return max(1, round(job.duration_s * job.items_per_s / (SMALL_ITEMS + MEDIUM_ITEMS)))
