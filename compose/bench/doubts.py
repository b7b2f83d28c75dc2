"""What makes the figures of a run doubtful: CPU times that can't be, and a machine that was too noisy."""

from collections.abc import Iterator, Sequence
from statistics import median

from compose.bench.rounds import Round
from compose.bench.rows import CLOSED, SCATTERED, open_load

MOST_SPREAD = 0.2
"""Of the database limit, which is the same work in each round."""
_ACCURACY = 1.05
"""The processes are read one after the other, a little before and after the load."""


def doubts(rounds: Sequence[Round], cores: int) -> list[str]:
    """Returns a sentence for each reason to doubt the figures."""
    return [*_impossible(rounds, cores), *_noise(rounds)]


def _impossible(rounds: Sequence[Round], cores: int) -> Iterator[str]:
    for number, each in enumerate(rounds, 1):
        loads = {CLOSED: each.closed, SCATTERED: each.scattered} | {open_load(items): one for items, one in each.open.items()}
        for load, throughput in loads.items():
            if throughput.cores > _ACCURACY * cores:
                yield (
                    f"Round {number}, {load}: {throughput.rate:,.0f} items/s with {throughput.all_us:,.0f} us of CPU each are"
                    f" {throughput.cores:.2f} cores, and there are {cores}. The CPU times of this load are wrong."
                )


def _noise(rounds: Sequence[Round]) -> Iterator[str]:
    limits = [each.limit_rate for each in rounds]
    spread = (max(limits) - min(limits)) / median(limits)
    if spread > MOST_SPREAD:
        yield (
            f"The database limit, which is the same work in each round, differed by {100 * spread:.0f} % of its median. The machine is too"
            " noisy: compare no rate with another run's, only CPU for an item in units of the load generator's."
        )
