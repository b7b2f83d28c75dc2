"""Measures throughput and latency against concurrency, batch size and table size."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from compose.bench.generator import Generator
from compose.bench.jobs import SMALL_ITEMS, Closed, Open, Seen
from compose.bench.rounds import CLIENTS, Latency, Sizes, Step

_BATCHES_PER_CLIENT = 2
_MOST_BATCHES = 1_000


@dataclass(frozen=True, slots=True)
class CurvePlaces:
    """The places of a curve's points."""

    clients: Sequence[int]
    batch_sizes: Sequence[int]
    items: int
    """How many are submitted for each sample: at least two batches from each client, and 1,000 batches at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One round at one place of a curve."""

    rate: float
    """Items per second."""
    latency: Latency


@dataclass(frozen=True, slots=True)
class Point:
    """The rounds at one place. `place` is the value on the curve's axis."""

    place: int
    samples: Sequence[Sample]

    @property
    def rate(self) -> float:
        """Items per second: the median of the rounds."""
        return median(sample.rate for sample in self.samples)

    @property
    def latency(self) -> Latency:
        """The medians of the rounds."""
        return Latency(
            median(sample.latency.p50_ms for sample in self.samples), median(sample.latency.p99_ms for sample in self.samples)
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of their places. `against` names the axis, `how` the load of the measurement."""

    against: str
    how: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Curves:
    """Measures points, each in the given number of rounds."""

    generator: Generator
    rounds: int
    step: Step

    def against_clients(self, places: CurvePlaces) -> Curve:
        """The typical batch from a growing number of clients."""
        jobs = [_closed(SMALL_ITEMS, clients, places.items) for clients in places.clients]
        how = f"Batches of {SMALL_ITEMS}. Each client waits for the end of its batch, then sends the next."
        return self._curve("clients", how, places.clients, jobs)

    def against_batch_size(self, places: CurvePlaces) -> Curve:
        """Batches of growing size from a fixed number of clients."""
        jobs = [_closed(size, CLIENTS, places.items) for size in places.batch_sizes]
        how = f"{CLIENTS} clients. Each waits for the end of its batch, then sends the next."
        return self._curve("items in a batch", how, places.batch_sizes, jobs)

    def at(self, activities: int, sizes: Sizes) -> Point:
        """With this many activities in the tables: the rate at full load, then the latency of one batch at a time."""
        loaded = Open(sizes.batches[SMALL_ITEMS], SMALL_ITEMS, CLIENTS)
        alone = Closed(sizes.alone_batches, SMALL_ITEMS, 1)
        samples = []
        for number in range(1, self.rounds + 1):
            with self.step(f"at {activities:,} activities, round {number} of {self.rounds}"):
                samples.append(Sample(_rate(self.generator.load(loaded)), Latency.of(self.generator.load(alone).finished_s)))
        return Point(activities, samples)

    def _curve(self, against: str, how: str, places: Sequence[int], jobs: Sequence[Closed]) -> Curve:
        """Measures the points in turn in each round, so that all of them meet the same state of the machine."""
        rounds = []
        for number in range(1, self.rounds + 1):
            with self.step(f"curve against {against}, round {number} of {self.rounds}"):
                seen = [self.generator.load(job) for job in jobs]
            rounds.append([Sample(_rate(each), Latency.of(each.finished_s)) for each in seen])
        points = [Point(place, samples) for place, samples in zip(places, zip(*rounds, strict=True), strict=True)]
        return Curve(against, how, points)


def _closed(size: int, clients: int, items: int) -> Closed:
    batches = max(_BATCHES_PER_CLIENT * clients, min(_MOST_BATCHES, items // size))
    return Closed(batches, size, clients)


def _rate(seen: Seen) -> float:
    return seen.items / seen.total_s
