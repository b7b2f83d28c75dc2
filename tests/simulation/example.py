"""One example of the simulation: how a step is drawn, made and checked."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from orchestrator.process.failpoints import Failpoint
from tests.simulation.database import Database
from tests.simulation.model import CODES, MENTORS, TYPES, Asked
from tests.simulation.snapshot import BatchRow, Group, Values
from tests.simulation.tally import changes
from tests.simulation.world import Action, Fate, World

# The number from which a batch id is made, because ids must be the same when an example is run again. 2026-03-26, in milliseconds.
FIRST_MILLISECOND = 1_774_500_000_000

indexes = st.integers(0, 1_000)
codes = st.lists(st.integers(0, CODES - 1), min_size=1, max_size=7)
# Of each item in turn, whether it overrides duplicates: most often all of a batch do, or none.
overriding = st.one_of(
    st.lists(st.booleans(), min_size=1, max_size=1),
    st.lists(st.booleans(), min_size=1, max_size=1),
    st.lists(st.booleans(), min_size=2, max_size=4),
)
groups = st.builds(
    Group,
    name=st.sampled_from(["Monday's", "Tuesday's"]),
    mentor_ids=st.lists(st.sampled_from(MENTORS), min_size=1, max_size=3, unique=True).map(tuple),
    activity_type=st.sampled_from(TYPES),
    duration_minutes=st.sampled_from([30, 60]),
    weekday=st.none() | st.integers(1, 7),
)


def fates_at(*labels: str) -> st.SearchStrategy[Fate]:
    """Stops at one of these labels, or at the nth point that a run passes: statements, commits, failpoints and records."""
    return st.one_of(
        st.builds(Fate, stop_at=st.sampled_from(labels), crash=st.booleans()),
        st.builds(Fate, stop_at=st.integers(0, 15), crash=st.booleans()),
    )


CONSUMER_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("consumer.")]
NOTARY_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("notary.")]
RELAY_FAILPOINTS = [failpoint.value for failpoint in Failpoint if failpoint.startswith("relay.")]
# Most clients get a response. Most turns of a process end early, because there are many, and the next one repeats what is missing.
fates = st.one_of(st.none(), st.none(), fates_at("COMMIT", "answer"))
consumer_fates = st.one_of(st.none(), fates_at("COMMIT", "COMMIT", "COMMIT", "produce", *CONSUMER_FAILPOINTS))
notary_fates = st.one_of(st.none(), fates_at("COMMIT", *NOTARY_FAILPOINTS))
relay_fates = st.one_of(st.none(), fates_at("produce", *RELAY_FAILPOINTS))


_operations: dict[str, tuple[int, st.SearchStrategy[dict[str, Any]]]] = {}


def operation(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes a method one of the possible steps. The weight says how often it is drawn, compared with the others.

    This is not a rule of Hypothesis, which leaves out half of its rules in each example, and an example without consumers finds little.
    There are no preconditions, because a draw may depend only on earlier draws. A method that finds nothing to do just returns.
    """

    def register(method: Callable[..., None]) -> Callable[..., None]:
        _operations[method.__name__] = (weight, st.fixed_dictionaries(arguments))
        return method

    return register


def some_operation() -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    weighted = [name for name, (weight, _) in _operations.items() for _ in range(weight)]
    return st.sampled_from(weighted).flatmap(lambda name: st.tuples(st.just(name), _operations[name][1]))


class Coverage:
    """How many steps really ran, over all examples, how often a run died at which point, and what has changed."""

    def __init__(self) -> None:
        self.steps = 0
        self.deaths: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.rival_changes: Counter[str] = Counter()
        """Those of the steps, without the ends of the histories, that happened while another run waited inside its work."""


class Example(RuleBasedStateMachine):
    """One example. The caller (`test_simulation.py`) sets `database` and `coverage`."""

    database: Database
    coverage: Coverage

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.database)
        self._is_sound = True
        self._numbers = 0

    @contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """Counts and describes the step, and checks its result."""
        self._is_sound = False
        told: list[str] = []
        before, somebody_waits = self.world.snapshot, self.world.somebody_waits
        try:
            yield told
            self.world.check()
        finally:
            note(what + "".join(told))
        self._is_sound = True
        self.coverage.steps += 1
        changed = changes(before, self.world.snapshot)
        self.coverage.changes += changed
        if somebody_waits:
            self.coverage.rival_changes += changed

    def teardown(self) -> None:
        """Everything accepted must end, unless the example has failed already."""
        try:
            if self._is_sound:
                before = self.world.snapshot
                self.world.quiesce()
                self.coverage.changes += changes(before, self.world.snapshot)
        finally:
            self.coverage.deaths += self.world.deaths
            self.world.close()

    def _pick(self, index: int, suits: Callable[[BatchRow], bool] | None = None) -> Asked:
        """A batch. Three times in four it suits, if any does."""
        known, batches = self.world.model.known(), self.world.snapshot.batches
        suitable = [asked for asked in known if suits and asked.batch_id in batches and suits(batches[asked.batch_id])]
        chosen = suitable if suitable and index % 4 else known
        return chosen[-1 - index // 4 % len(chosen)]

    def _do(self, action: Action, fate: Fate | None, what: str) -> None:
        with self.step(what) as told:
            told.append(self.world.perform(action, fate))

    def _new_id(self) -> UUID:
        self._numbers += 1
        time = FIRST_MILLISECOND + self._numbers
        return UUID(int=(time << 80) | (7 << 76) | (2 << 62) | (self._numbers * 0x9E3779B97F4A7C15 & ((1 << 62) - 1)))


def words(items: tuple[Values, ...]) -> str:
    return "; ".join(" ".join(str(value) for value in values if value is not None) for values in items)
