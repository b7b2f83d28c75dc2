"""The table: the rounds' figures and the goals (docs/performance.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from compose.bench.curves import Point
from compose.bench.jobs import MEDIUM_ITEMS, SMALL_ITEMS
from compose.bench.rounds import CLIENTS, Latency, Round
from compose.bench.samples import Goal, Row, row
from compose.bench.throughput import GENERATOR, Throughput

CLOSED_SHARE = 0.15
OPEN_SHARE = 0.25
MOST_GENERATOR_PERCENT = 50
PEER_TIMES: Mapping[str, int] = {"pgqueuer": 6, "procrastinate": 18, "dbos": 36}
MOST_GROWTH = 1.2
MOST_GROWN_MB = 16
"""The body of 10,000 items and what it becomes. Memory is flat if it does not grow with every such batch."""


CLOSED = f"batches of {SMALL_ITEMS}, {CLIENTS} clients that wait for them"
SCATTERED = f"{CLOSED}, each of another organization"


def open_load(items: int) -> str:
    """Names the load of clients that don't wait for their batches."""
    return f"batches of {items:,}, {CLIENTS} clients that don't wait"


@dataclass(frozen=True, slots=True)
class AtRest:
    """The product after the load, when it is idle."""

    idle_percent: float
    """Of one core, for all our processes together."""
    memory_mb: Mapping[str, float]
    """By the roles of a process."""


def throughput_rows(rounds: Sequence[Round]) -> list[Row]:
    """Items per second, what an item costs, and the limits to compare with. The loads of waiting clients come first: they are what users do."""
    limit = median(each.limit_rate for each in rounds)
    rows = _load_rows(CLOSED, [each.closed for each in rounds], limit, CLOSED_SHARE)
    rows += _load_rows(SCATTERED, [each.scattered for each in rounds], limit, CLOSED_SHARE)
    for items in rounds[0].open:
        rows += _load_rows(open_load(items), [each.open[items] for each in rounds], limit, OPEN_SHARE)
    return [
        *rows,
        row("database limit", "items/s", [each.limit_rate for each in rounds]),
        row("bare producer and consumer", "messages/s", [each.pair_rate for each in rounds]),
        row(
            f"product / database limit, {CLOSED}",
            "",
            [each.closed.rate / each.limit_rate for each in rounds],
            Goal(f">= {CLOSED_SHARE}", at_least=CLOSED_SHARE),
        ),
        row(
            f"product / database limit, {open_load(SMALL_ITEMS)}",
            "",
            [each.open[SMALL_ITEMS].rate / each.limit_rate for each in rounds],
            Goal(f">= {OPEN_SHARE}", at_least=OPEN_SHARE),
        ),
        row("product / bare pair", "", [each.open[SMALL_ITEMS].rate / each.pair_rate for each in rounds]),
        row(
            "load generator, its share of a core at most",
            "%",
            [each.generator_percent for each in rounds],
            Goal(f"< {MOST_GENERATOR_PERCENT}: it is no bottleneck", at_most=MOST_GENERATOR_PERCENT),
        ),
    ]


def _load_rows(load: str, samples: Sequence[Throughput], limit: float, share: float) -> list[Row]:
    """The rate and the CPU time for an item, by part. A core has 1,000,000 µs for all items of a second."""
    goal = Goal(f">= {share * limit:,.0f}, {share:g} of the limit", at_least=share * limit)
    parts = [row(f"{load}: CPU for an item, {part}", "us", [each.cpu_us[part] for each in samples]) for part in samples[0].cpu_us]
    return [
        row(f"{load}: submit to folded status", "items/s", [each.rate for each in samples], goal),
        *parts,
        row(f"{load}: CPU for an item, all", "us", [each.all_us for each in samples]),
        row(f"{load}: CPU for an item, all / {GENERATOR}", "", [each.all_us / each.cpu_us[GENERATOR] for each in samples]),
    ]


def peer_rows(rounds: Sequence[Round]) -> list[Row]:
    """Other libraries that do an item's work on the same PostgreSQL, and how many times as fast the product is."""
    rows = []
    for peer in rounds[0].peers:
        times = [each.open[SMALL_ITEMS].rate / each.peers[peer] for each in rounds]
        least = PEER_TIMES[peer]
        rows.append(
            row(
                f"{peer}, batches of {SMALL_ITEMS}, {CLIENTS} clients that don't wait",
                "items/s",
                [each.peers[peer] for each in rounds],
            )
        )
        rows.append(row(f"product / {peer}", "", times, Goal(f">= {least}", at_least=least)))
    return rows


def latency_rows(rounds: Sequence[Round]) -> list[Row]:
    """How long people and programs wait."""
    undisturbed = median(each.alone.p99_ms for each in rounds)
    beside_ms = max(2 * undisturbed, 300)
    way = f"batch of {SMALL_ITEMS}, submit to terminal"
    return [
        *_both(f"{way}, alone", [each.alone for each in rounds], 50, 100),
        *_both(f"{way}, at half the maximum load", [each.half_load for each in rounds], None, 500),
        *_both(f"{way}, while a large one runs", [each.beside for each in rounds], None, beside_ms),
        *_both(f"POST of {MEDIUM_ITEMS}, at half the maximum load", [each.post for each in rounds], None, 50),
        *_both("GET of its status, at half the maximum load", [each.get for each in rounds], None, 20),
    ]


def _both(what: str, samples: Sequence[Latency], p50_ms: float | None, p99_ms: float) -> list[Row]:
    return [
        row(f"{what}: p50", "ms", [each.p50_ms for each in samples], None if p50_ms is None else _under(p50_ms)),
        row(f"{what}: p99", "ms", [each.p99_ms for each in samples], _under(p99_ms)),
    ]


def large_rows(rounds: Sequence[Round], items: int) -> list[Row]:
    """A batch with the most items that are allowed."""
    rate = median(each.open[SMALL_ITEMS].rate for each in rounds)
    share_ms = 1000 * items / rate
    name = f"batch of {items:,}"
    return [
        row(f"{name}: accepted", "ms", [each.accepted_ms for each in rounds], _under(1000)),
        row(
            f"{name}: finished",
            "ms",
            [each.finished_ms for each in rounds],
            Goal(f"< {share_ms:,.0f}, at the rate of batches of {SMALL_ITEMS}", at_most=share_ms),
        ),
        row(
            f"{name}: memory of the process that grew most",
            "MB",
            [each.grown_mb for each in rounds],
            Goal(f"< {MOST_GROWN_MB}: flat", at_most=MOST_GROWN_MB),
        ),
        row(f"cancel of a running {name}", "ms", [each.cancelled_ms for each in rounds], _under(1000)),
    ]


def rest_rows(rest: AtRest) -> list[Row]:
    """What the idle product takes."""
    memory = [row(f"idle: memory of {roles}", "MB", [size], Goal("< 150", at_most=150)) for roles, size in rest.memory_mb.items()]
    return [row("idle: all our processes together", "% of a core", [rest.idle_percent], Goal("< 2", at_most=2)), *memory]


def start_rows(seconds: Mapping[str, float]) -> list[Row]:
    """How long `up` takes with everything downloaded, for each kind of start."""
    return [row(f"up, {kind}", "s", [taken], Goal("< 8", at_most=8)) for kind, taken in seconds.items()]


def growth_rows(points: Sequence[Point]) -> list[Row]:
    """What an item costs at each number of activities. The first is the reference for the others."""
    most_us = MOST_GROWTH * 1e6 / points[0].rate
    goal = Goal(f"< {most_us:,.0f}, 20 % more than at first", at_most=most_us)
    return [
        row(
            f"cost of an item at {point.place:,} activities",
            "us",
            [1e6 / sample.rate for sample in point.samples],
            None if point is points[0] else goal,
        )
        for point in points
    ]


def _under(milliseconds: float) -> Goal:
    return Goal(f"< {milliseconds:,.0f}", at_most=milliseconds)
