"""What the benchmark doubts about its own figures."""

from dataclasses import replace

from compose.bench.doubts import doubts
from compose.bench.rounds import Latency, Round
from compose.bench.throughput import Throughput

SOME = Latency(1, 2)
ROUND = Round(
    limit_rate=1_000,
    pair_rate=1,
    closed=Throughput(1_000, {"api": 1_500, "load generator": 400}),
    scattered=Throughput(1_000, {"api": 1_500, "load generator": 400}),
    open={25: Throughput(2_000, {"api": 800, "load generator": 100})},
    generator_percent=1,
    alone=SOME,
    half_load=SOME,
    post=SOME,
    get=SOME,
    beside=SOME,
    accepted_ms=1,
    finished_ms=1,
    grown_mb=1,
    cancelled_ms=1,
    peers={},
)


def test_figures_that_fit_together_are_not_doubted() -> None:
    assert doubts([ROUND, replace(ROUND, limit_rate=1_150), ROUND], cores=2) == []


def test_cpu_times_that_need_more_cores_than_there_are_are_doubted() -> None:
    [doubt] = doubts([ROUND, replace(ROUND, open={25: Throughput(2_533, {"api": 807, "load generator": 100})})], cores=2)
    assert "Round 2, batches of 25, 16 clients that don't wait" in doubt
    assert "2.30 cores" in doubt


def test_a_limit_that_differs_by_more_than_a_fifth_says_that_the_machine_is_too_noisy() -> None:
    [doubt] = doubts([ROUND, replace(ROUND, limit_rate=1_250), ROUND], cores=2)
    assert "25 %" in doubt
