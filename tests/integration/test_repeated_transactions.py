"""A transaction, or a read, that fails for a passing reason is run again, and no other is."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.storage import database
from orchestrator.storage.blame import TransientError
from orchestrator.storage.database import ask, transact

Run = Callable[..., Any]
RUNS = pytest.mark.parametrize("run", [transact, ask])


class Work:
    """Fails this often, then returns a value of the database. Counts its runs."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error
        self.runs = 0

    def __call__(self, connection: Connection) -> int:
        self.runs += 1
        value: int = connection.execute(text("SELECT 17")).scalar_one()
        if self.left:
            self.left -= 1
            raise self.error
        return value


@pytest.fixture(autouse=True)
def longest(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The upper limits of the pauses, which are all 0 here."""
    limits: list[float] = []

    def no_pause(_least: float, most: float) -> float:
        limits.append(most)
        return 0.0

    monkeypatch.setattr(random, "uniform", no_pause)
    return limits


@RUNS
def test_a_passing_failure_is_repeated_at_once_and_then_after_growing_pauses(
    engine: Engine, longest: list[float], run: Run
) -> None:
    work = Work(8, TransientError())
    assert run(engine, work, organizations=["a"], give_up_after_s=3_600) == 17
    assert (work.runs, longest) == (9, [0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5])


@RUNS
def test_any_other_failure_is_raised_at_once(engine: Engine, longest: list[float], run: Run) -> None:
    work = Work(1, LookupError())
    with pytest.raises(LookupError):
        run(engine, work, organizations=["a"], give_up_after_s=3_600)
    assert (work.runs, longest) == (1, [])


@RUNS
def test_the_last_failure_is_raised_when_the_time_is_over(engine: Engine, longest: list[float], run: Run) -> None:
    work = Work(1, TransientError())
    with pytest.raises(TransientError):
        run(engine, work, organizations=["a"], give_up_after_s=0)
    assert (work.runs, longest) == (1, [])


@RUNS
def test_the_time_of_the_first_run_counts(engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3_599.999_999])
    monkeypatch.setattr(database, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    work = Work(8, TransientError())
    with pytest.raises(TransientError):
        run(engine, work, organizations=["a"], give_up_after_s=3_600)
    assert work.runs == 2
