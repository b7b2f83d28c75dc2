"""Runs two changes at the same time, in every way in which one can come between the statements of the other."""

import itertools
from collections.abc import Callable, Set
from typing import Protocol

from sqlalchemy import Connection, Engine

from orchestrator.batches.errors import OperationError
from orchestrator.process.settings import Settings
from orchestrator.verification.verify import verify
from tests.simulation.interleaving import Deadlocks, Run, mark_statements
from tests.support.pipeline import Pipeline


class Scene(Protocol):
    """What both changes work on, with a method for each of them."""

    def judge(self, watcher: Connection, done: Set[str], story: str, /) -> None:
        """Called after both. `done` names those that were not refused."""


def run_every_interleaving(
    pipeline: Pipeline,
    settings: Settings,
    engine: Engine,
    changes: tuple[str, str],
    scene: Callable[[Connection], Scene],
    *,
    least: int,
) -> None:
    """Stops each of the changes before each of its statements. Then the other runs completely, or as far as a lock lets it. Each time is in a
    new scene. Each of the changes has to have at least so many statements."""
    deadlocks = Deadlocks()
    for each in (pipeline.engine, pipeline.api):
        deadlocks.watch(each)
        mark_statements(each)
    with looking(engine) as watcher:
        for one, other in (changes, changes[::-1]):
            assert interleave(scene, one, other, watcher) >= least, f"{one} was not interrupted by {other}"
    assert deadlocks.count == 0
    assert verify(engine, settings).breaches == []


def interleave(new_scene: Callable[[Connection], Scene], one: str, other: str, watcher: Connection) -> int:
    """A new scene for each statement of the first, before which the other runs. Returns how many statements there were."""
    for stop_at in itertools.count():
        scene = new_scene(watcher)
        first, second = Run(one, getattr(scene, one), stop_at=stop_at), Run(other, getattr(scene, other))
        if not first.begin():
            return stop_at
        if not second.beside(first, watcher):
            first.resume()
        story = f"{one} waits before {first.stopped_at!r}, {other} comes between"
        for run in (first, second):
            assert run.error is None or isinstance(run.error, OperationError), f"{story}: {run.error!r}"
        scene.judge(watcher, {run.name for run in (first, second) if run.error is None}, story)
    raise AssertionError


def looking(engine: Engine) -> Connection:
    """A session that only reads."""
    return engine.execution_options(isolation_level="AUTOCOMMIT").connect()
