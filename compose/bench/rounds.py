"""One round of the benchmark: measures every figure once, so that all of them meet the same state of the machine."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Engine

from compose.bench import database_limit
from compose.bench.cancelling import measure_cancel
from compose.bench.generator import Generator
from compose.bench.jobs import SMALL_ITEMS, Beside, Closed, Open, Seen
from compose.bench.processes import Processes
from compose.bench.samples import percentile
from orchestrator.process.settings import Settings

CLIENTS = 16

Step = Callable[[str], AbstractContextManager[None]]
"""Tells people what is being measured while the block runs."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a round measures, in items unless it says otherwise."""

    batches: Mapping[int, int]
    """How many batches of each size."""
    alone_batches: int
    beside_batches: int
    half_load_s: float
    large_items: int
    limit_items: int
    """Enough for some seconds of writing. A shorter run would measure the buffers of the write-ahead log."""
    pair_messages: int


@dataclass(frozen=True, slots=True)
class Latency:
    """The two percentiles of one round, in milliseconds."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, samples_s: list[float]) -> "Latency":
        """Returns the percentiles of samples in seconds."""
        return cls(1000 * percentile(samples_s, 50), 1000 * percentile(samples_s, 99))


@dataclass(frozen=True, slots=True)
class Round:
    """The results of one round. Rates are items, or messages, per second."""

    limit_rate: float
    pair_rate: float
    rates: Mapping[int, float]
    """By batch size."""
    budget_us: Mapping[str, float]
    """CPU time for an item of the small batches, by process; the load generator too."""
    generator_percent: float
    """The load generator's largest share of a core."""
    alone: Latency
    half_load: Latency
    post: Latency
    get: Latency
    beside: Latency
    accepted_ms: float
    finished_ms: float
    grown_mb: float
    """By how much the memory of one process grew, at most, while it handled the large batch."""
    cancelled_ms: float


@dataclass(frozen=True, slots=True)
class Instruments:
    """What a round needs for measuring."""

    settings: Settings
    engine: Engine
    limit_url: str
    pair_rate: Callable[[int], float]
    generator: Generator
    processes: Processes
    step: Step


def measure_round(tools: Instruments, sizes: Sizes, name: str) -> Round:
    """Measures every figure once. `name` begins each step's description."""
    loads: list[Seen] = []

    def load(words: str, job: Closed | Open | Beside) -> Seen:
        with tools.step(f"{name}: {words}"):
            loads.append(tools.generator.load(job))
        return loads[-1]

    with tools.step(f"{name}: the database limit"):
        limit_rate = database_limit.measure(tools.limit_url, sizes.limit_items)
    rates = {}
    budget_us: dict[str, float] = {}
    for items, batches in sizes.batches.items():
        words = f"{batches} batches of {items} from {CLIENTS} clients"
        before = tools.processes.cpu_by_part_s()
        seen = load(words, Closed(batches, items, min(CLIENTS, batches), is_watched=False))
        rates[items] = seen.items / seen.total_s
        if items == SMALL_ITEMS:
            spent = {part: after - before[part] for part, after in tools.processes.cpu_by_part_s().items()}
            budget_us = {part: 1e6 * s / seen.items for part, s in {**spent, "load generator": seen.generator_cpu_s}.items()}
    # Last, because just after it the product was slower by a twentieth.
    with tools.step(f"{name}: a bare producer and consumer"):
        pair_rate = tools.pair_rate(sizes.pair_messages)
    alone = load(
        f"{sizes.alone_batches} batches of {SMALL_ITEMS}, one at a time", Closed(sizes.alone_batches, SMALL_ITEMS, 1, True)
    )
    half_rate = rates[SMALL_ITEMS] / 2
    half = load(f"half the maximum load, {half_rate:,.0f} items/s", Open(half_rate, sizes.half_load_s))
    memory_before = tools.processes.memory_mb()
    large = load(f"a batch of {sizes.large_items:,}", Closed(1, sizes.large_items, 1, is_watched=True))
    memory_after = tools.processes.memory_mb()
    beside = load(f"batches of {SMALL_ITEMS} while it runs", Beside(sizes.beside_batches, sizes.large_items))
    with tools.step(f"{name}: cancel of a running batch of {sizes.large_items:,}"):
        cancelled_s = measure_cancel(tools.settings, tools.engine, tools.generator, sizes.large_items)
    return Round(
        limit_rate=limit_rate,
        pair_rate=pair_rate,
        rates=rates,
        budget_us=budget_us,
        generator_percent=max(100 * seen.generator_cpu_s / seen.total_s for seen in loads),
        alone=Latency.of(alone.finished_s),
        half_load=Latency.of(half.finished_s),
        post=Latency.of(half.accepted_s),
        get=Latency.of(half.found_s),
        beside=Latency.of(beside.finished_s),
        accepted_ms=1000 * large.accepted_s[0],
        finished_ms=1000 * large.finished_s[0],
        grown_mb=max(memory_after[process] - memory_before[process] for process in memory_before),
        cancelled_ms=1000 * cancelled_s,
    )
