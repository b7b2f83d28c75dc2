"""The product under everything that can happen, at random (docs/simulation.md)."""

import logging
import os
import secrets
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import create_engine, text

from orchestrator.settings import Settings
from schemas import events
from tests.simulation.machine import Simulation, StepCount
from tests.simulation.world import Database

STEPS_PER_EXAMPLE = 60


@pytest.fixture
def database(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """One database for all examples. Everything that comes in sets is made small, so that a few items fill several."""
    monkeypatch.setattr(events, "MAX_PART_ITEMS", 3)
    with create_engine(settings.owner_url, isolation_level="AUTOCOMMIT").connect() as owner:
        # Nothing is ever killed that has the data: waiting for the disk would only cost time.
        name = owner.execute(text("SELECT current_database()")).scalar_one()
        owner.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    logging.disable(logging.CRITICAL)
    database = Database(
        settings.model_copy(update={"max_batch_records": 3, "bulk_threshold_items": 3, "relay_batch_rows": 3, "max_items": 20})
    )
    yield database
    database.close()
    logging.disable(logging.NOTSET)


def simulate(database: Database, *, steps: int, first_seed: int) -> int:
    """Runs at least so many steps, in rounds with a seed each. A failure prints the seed, and the shortest history that fails."""
    count = StepCount()
    number = first_seed
    while count.steps < steps:
        examples = max(1, min(200, -(-(steps - count.steps) // STEPS_PER_EXAMPLE)))
        # A class of its own for each round: Hypothesis keeps the seed on it.
        machine = seed(number)(type("Simulation", (Simulation,), {"database": database, "count": count}))
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=STEPS_PER_EXAMPLE,
                    deadline=None,
                    database=None,
                    phases=(Phase.generate, Phase.shrink),
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                    verbosity=Verbosity.normal,
                ),
            )
        except BaseException:
            print(f"found after {count.steps} steps; again with: make simulate SEED={number} STEPS={steps}")
            raise
        number += 1
    return count.steps


def test_nothing_breaks_a_promise(database: Database) -> None:
    steps = int(os.environ.get("BULKREG_SIMULATION_STEPS") or 3_000)
    first_seed = int(os.environ.get("BULKREG_SIMULATION_SEED") or secrets.randbelow(1_000_000))
    assert simulate(database, steps=steps, first_seed=first_seed) >= steps


@pytest.mark.full
@pytest.mark.timeout(7_200)
def test_nothing_breaks_a_promise_for_long(database: Database) -> None:
    assert simulate(database, steps=50_000, first_seed=secrets.randbelow(1_000_000)) >= 50_000
