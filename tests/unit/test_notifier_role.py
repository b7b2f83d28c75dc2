"""The role `notifier`: neither half goes on without the other, and its health is that of the half that is worse off."""

import threading
from typing import cast

import pytest

from consumers.loop.runtime import ConsumerLoop
from consumers.notifying.delivering import Deliverer
from consumers.notifying.role import NotifierRole
from orchestrator.process.health import Health, LoopHealth
from tests.support.waiting import PATIENCE_S


class Half:
    """Stands in for recording or delivering. It goes on until it is stopped, or fails when a test wants it to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.health = LoopHealth(lambda: self.now, broker_contact=True)
        self.error: Exception | None = None
        self.ending = threading.Event()

    def run(self) -> None:
        assert self.ending.wait(PATIENCE_S), "nobody has stopped this half"
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.ending.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.ending.set()


def role_of(recording: Half, delivering: Half) -> NotifierRole:
    return NotifierRole(cast("ConsumerLoop", recording), cast("Deliverer", delivering))


@pytest.mark.parametrize("place", [0, 1], ids=["recording", "delivering"])
def test_if_one_half_fails_the_other_ends_and_the_role_has_its_error(place: int) -> None:
    halves = Half(), Half()
    halves[place].fail(KeyError("a test's"))
    with pytest.raises(KeyError):
        role_of(*halves).run()
    assert all(half.ending.is_set() for half in halves)


@pytest.mark.parametrize("place", [0, 1], ids=["recording", "delivering"])
def test_if_one_half_ends_so_does_the_role(place: int) -> None:
    halves = Half(), Half()
    halves[place].stop()
    role_of(*halves).run()
    assert all(half.ending.is_set() for half in halves)


def test_a_role_that_is_stopped_ends_both_halves() -> None:
    halves = Half(), Half()
    role = role_of(*halves)
    role.stop()
    role.run()
    assert all(half.ending.is_set() for half in halves)


@pytest.mark.parametrize("place", [0, 1], ids=["recording", "delivering"])
def test_the_role_is_well_if_both_halves_are(place: int) -> None:
    halves = Half(), Half()
    role, half = role_of(*halves), halves[place]
    halves[0].health.holding = "what it holds"
    assert role.health.check(max_loop_age_s=30) == Health(True, "what it holds")
    half.health.failing = "it has no database"
    assert role.health.check(max_loop_age_s=30) == Health(False, "it has no database")
    half.health.failing = None
    half.now = 31.0
    assert role.health.loop_age_s == 31.0
    assert not role.health.check(max_loop_age_s=30).ok
