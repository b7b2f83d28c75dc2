"""One round of the benchmark: measures every figure once, so that all of them meet the same state of the machine."""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Engine

from compose.bench import database_limit
from compose.bench.cancelling import measure_cancel
from compose.bench.generator import Generator
from compose.bench.jobs import SMALL_ITEMS, Beside, Closed, Load, Open, Scattered, Seen, Steady
from compose.bench.processes import Processes
from compose.bench.samples import percentile
from compose.bench.throughput import Throughput, measure_throughput
from orchestrator.process.settings import Settings

CLIENTS = 16

Step = Callable[[str], AbstractContextManager[None]]
"""Tells people what is being measured while the block runs."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a round measures, in items unless it says otherwise."""

    closed_batches: int
    """Batches of 25 from clients that wait for them: first of one organization, then each of another."""
    batches: Mapping[int, int]
    """How many batches of each size from clients that don't wait."""
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
    closed: Throughput
    """Batches of 25 from clients that wait for them."""
    scattered: Throughput
    """The same, each of another organization."""
    open: Mapping[int, Throughput]
    """By batch size, from clients that don't wait."""
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
    peers: Mapping[str, float]
    """Items per second of other libraries, if they are measured."""


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
    peer_rate: Callable[[str], float]
    peers: Collection[str]
    """The other libraries that are measured beside the product."""


def measure_round(tools: Instruments, sizes: Sizes, name: str) -> Round:
    """Measures every figure once. `name` begins each step's description."""
    loads: list[Seen] = []

    def load(words: str, job: Load) -> Seen:
        with tools.step(f"{name}: {words}"):
            loads.append(tools.generator.load(job))
        return loads[-1]

    def throughput(words: str, job: Closed | Scattered | Open) -> Throughput:
        with tools.step(f"{name}: {words}"):
            measured, seen = measure_throughput(tools.generator, tools.processes, job)
        loads.append(seen)
        return measured

    with tools.step(f"{name}: the database limit"):
        limit_rate = database_limit.measure(tools.limit_url, sizes.limit_items)
    number = sizes.closed_batches
    closed = throughput(
        f"{number} batches of {SMALL_ITEMS} from {CLIENTS} clients that wait for them", Closed(number, SMALL_ITEMS, CLIENTS)
    )
    scattered = throughput("as many, each of another organization", Scattered(number, SMALL_ITEMS, CLIENTS))
    opened = {
        items: throughput(f"{batches} batches of {items} from {CLIENTS} clients", Open(batches, items, min(CLIENTS, batches)))
        for items, batches in sizes.batches.items()
    }
    peers = {}
    for peer in tools.peers:
        with tools.step(f"{name}: {peer}"):
            peers[peer] = tools.peer_rate(peer)
    # Last, because just after it the product was slower by a twentieth.
    with tools.step(f"{name}: a bare producer and consumer"):
        pair_rate = tools.pair_rate(sizes.pair_messages)
    alone = load(f"{sizes.alone_batches} batches of {SMALL_ITEMS}, one at a time", Closed(sizes.alone_batches, SMALL_ITEMS, 1))
    half_rate = opened[SMALL_ITEMS].rate / 2
    half = load(f"half the maximum load, {half_rate:,.0f} items/s", Steady(half_rate, sizes.half_load_s))
    memory_before = tools.processes.memory_mb()
    large = load(f"a batch of {sizes.large_items:,}", Closed(1, sizes.large_items, 1))
    memory_after = tools.processes.memory_mb()
    beside = load(f"batches of {SMALL_ITEMS} while it runs", Beside(sizes.beside_batches, sizes.large_items))
    with tools.step(f"{name}: cancel of a running batch of {sizes.large_items:,}"):
        cancelled_s = measure_cancel(tools.settings, tools.engine, tools.generator, sizes.large_items)
    return Round(
        limit_rate=limit_rate,
        pair_rate=pair_rate,
        closed=closed,
        scattered=scattered,
        open=opened,
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
        peers=peers,
    )
