"""The extent of a measurement: the short form that `make bench` runs, and the long one."""

from collections.abc import Sequence
from dataclasses import dataclass

from compose.bench.curves import CurvePlaces
from compose.bench.rounds import Sizes
from compose.bench.target import MENTORS

_GROWN = (1_000_000, 5_000_000)


@dataclass(frozen=True, slots=True)
class Plan:
    """The number and size of rounds, and what follows them."""

    warm_up_batches: int
    """Batches of 25 items. The first 20,000 items cost the broker's virtual machine twice as much as later ones, until it has compiled its
    code."""
    rounds: int
    sizes: Sizes
    idle_s: float
    """The sweeper runs every 15 s, so a shorter time would miss it."""
    places: CurvePlaces | None = None
    """Where to measure curves. None: no curves."""
    grown: Sequence[int] = ()
    """The numbers of activities to fill the tables to, in order; the benchmark measures again at each."""
    peers: bool = False
    """Whether other libraries are measured in each round."""


SHORT = Plan(
    warm_up_batches=1_200,
    rounds=3,
    sizes=Sizes(
        closed_batches=240,
        batches={25: 400, 10: 300, 50: 150, 1_000: 20},
        alone_batches=50,
        beside_batches=40,
        half_load_s=4,
        large_items=MENTORS,
        limit_items=50_000,
        pair_messages=30_000,
    ),
    idle_s=15,
)
LONG = Plan(
    warm_up_batches=1_200,
    rounds=5,
    sizes=Sizes(
        closed_batches=800,
        batches={25: 1_000, 10: 1_000, 50: 500, 1_000: 20},
        alone_batches=300,
        beside_batches=200,
        half_load_s=30,
        large_items=MENTORS,
        limit_items=100_000,
        pair_messages=100_000,
    ),
    idle_s=60,
)
PLACES = CurvePlaces(clients=(1, 4, 16, 64), batch_sizes=(1, 10, 25, 50, 1_000), items=4_000)


def grown_to(activities: int) -> Sequence[int]:
    """Returns the steps to this many activities: 1,000,000 and 5,000,000 if they are below the number, then the number itself. None for 0."""
    return (*(step for step in _GROWN if step < activities), activities) if activities else ()
