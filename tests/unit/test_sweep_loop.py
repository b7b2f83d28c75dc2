"""A sweep has several steps, and a failing one does not stop the others. How failures and recoveries are reported."""

from collections.abc import Callable
from dataclasses import fields
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from consumers.upkeep import sweep_loop
from consumers.upkeep.purger import Purged, Purger
from consumers.upkeep.sweep_loop import SweepLoop
from consumers.upkeep.sweeper import Sweeper, Swept
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from tests.support.log_lines import logged
from tests.support.shown import shown

NO_BROKER = KafkaException(KafkaError(KafkaError._TRANSPORT, "nobody answers"))

Step = Callable[[Engine], Any]


class Sweeps:
    """Runs this many sweeps, whose steps do what the test says, and the first step of another, which stops the loop. Keeps the loop's state
    after each."""

    def __init__(self, *sweeps: dict[str, Exception | Swept | Purged]) -> None:
        self.done: list[str] = []
        self.health: list[tuple[bool, str | None]] = []
        self._sweeps = list(sweeps)
        names = ("fold", "drive_on", "purge")
        sweeper = SimpleNamespace(steps={name: self._step(name) for name in names[:2]})
        purger = SimpleNamespace(steps={name: self._step(name) for name in names[2:]})
        self.loop = SweepLoop(cast("Sweeper", sweeper), cast("Purger", purger), cast("Engine", None), interval_s=0.001)
        self.loop.run()

    def _step(self, name: str) -> Step:
        def do(_: Engine) -> Any:
            self.done.append(name)
            if name == "fold" and len(self.done) > 1:
                self._end_of_sweep()
            outcome = self._sweeps[0].get(name, Swept()) if self._sweeps else Swept()
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        return do

    def _end_of_sweep(self) -> None:
        self.health.append((self.loop.health.broker_contact, self.loop.health.failing))
        self._sweeps.pop(0)
        if not self._sweeps:
            self.loop.stop()


@pytest.mark.parametrize(("sweep_takes_s", "pause_s"), [(0, 12), (4, 8), (6, 6), (9.5, 2.5), (60, 1.2)])
def test_the_time_of_a_sweep_counts_towards_the_interval_and_a_tenth_of_it_is_left(
    monkeypatch: pytest.MonkeyPatch, sweep_takes_s: float, pause_s: float
) -> None:
    """9.5 s is a sweep in which somebody is forgotten for 6 s and one more step, while the other steps have much to do."""
    now, pauses = [100.0], []

    def step(_: Engine) -> Swept:
        now[0] += sweep_takes_s
        return Swept()

    def wait(pause_s: float) -> bool:
        pauses.append(pause_s)
        return len(pauses) > 1

    monkeypatch.setattr(sweep_loop, "monotonic", lambda: now[0])
    sweeper, purger = SimpleNamespace(steps={"fold": step}), SimpleNamespace(steps={})
    loop = SweepLoop(cast("Sweeper", sweeper), cast("Purger", purger), cast("Engine", None), interval_s=12)
    monkeypatch.setattr(loop, "_stopping", SimpleNamespace(wait=wait, is_set=lambda: False))
    loop.run()
    assert pauses == pytest.approx([12, pause_s])


def test_each_step_that_ends_counts_as_progress_also_one_that_fails() -> None:
    """So a long sweep is well as long as none of its steps hangs."""
    now, ages_s = [100.0], []

    def step(error: Exception | None = None) -> Step:
        def do(_: Engine) -> Swept:
            ages_s.append(loop.health.loop_age_s)
            now[0] += 25
            if error is not None:
                raise error
            return Swept()

        return do

    def last(_: Engine) -> Purged:
        ages_s.append(loop.health.loop_age_s)
        loop.stop()
        return Purged()

    sweeper = SimpleNamespace(steps={"fold": step(), "drive_on": step(NO_BROKER)})
    purger = SimpleNamespace(steps={"purge": step(), "forget": last})
    loop = SweepLoop(cast("Sweeper", sweeper), cast("Purger", purger), cast("Engine", None), interval_s=0.001)
    loop.health.clock = lambda: now[0]
    loop.health.turned()
    loop.run()
    assert ages_s == [0, 0, 0, 0]


def test_a_loop_that_is_told_to_stop_begins_no_other_step() -> None:
    """The steps of a sweep together may take longer than a process may that is asked to stop."""
    assert Sweeps({}).done == ["fold", "drive_on", "purge", "fold"]


def test_the_sweeper_runs_before_the_purger_in_every_sweep() -> None:
    sweeps = Sweeps({}, {})
    assert sweeps.done == [*["fold", "drive_on", "purge"] * 2, "fold"]
    assert sweeps.health == [(True, None)] * 2


@pytest.mark.parametrize("series", ["bulkreg_sweep_failures_total", "bulkreg_sweep_set_aside_total"])
def test_a_series_of_each_step_is_there_before_its_first_event(series: str) -> None:
    for metric in (metrics.SWEEP_FAILURES, metrics.SWEEP_SET_ASIDE):
        metric.clear()
    Sweeps({})
    assert {step: REGISTRY.get_sample_value(series, {"step": step}) for step in ("fold", "drive_on", "purge")} == {
        "fold": 0,
        "drive_on": 0,
        "purge": 0,
    }


def test_a_failing_step_is_named_until_a_sweep_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    failures = {step: metrics.SWEEP_FAILURES.labels(step) for step in ("fold", "drive_on", "purge")}
    before = {step: shown(value) for step, value in failures.items()}
    sweeps = Sweeps({"fold": KeyError("somebody's notes"), "purge": ValueError("somebody's notes")}, {"purge": ValueError()}, {})
    assert sweeps.done == [*["fold", "drive_on", "purge"] * 3, "fold"]
    assert [failing and failing.partition(";")[0] for _, failing in sweeps.health] == [
        "the last sweep failed in fold, purge",
        "the last sweep failed in purge",
        None,
    ]
    assert {contact for contact, _ in sweeps.health} == {True}, "the failure must not be blamed on the broker"
    assert {step: shown(value) - before[step] for step, value in failures.items()} == {"fold": 1, "drive_on": 0, "purge": 2}
    lines = logged(caplog, Action.SWEEP_FAILED)
    assert {line["role"] for line in lines} == {"sweeper"}
    assert [(line["step"], str(line["error"]).partition(" ")[0]) for line in lines] == [
        ("fold", "KeyError"),
        ("purge", "ValueError"),
        ("purge", "ValueError"),
    ]
    assert "somebody" not in caplog.text


def test_a_broker_that_does_not_respond_is_reported_with_its_message(caplog: pytest.LogCaptureFixture) -> None:
    sweeps = Sweeps({"fold": NO_BROKER, "drive_on": NO_BROKER}, {"drive_on": NO_BROKER, "purge": KeyError()}, {})
    assert [contact for contact, _ in sweeps.health] == [False, False, True]
    assert any("nobody answers" in str(line["error"]) for line in logged(caplog, Action.SWEEP_FAILED))


def test_the_work_of_a_step_is_logged_and_no_work_is_not(caplog: pytest.LogCaptureFixture) -> None:
    before = shown(metrics.SWEEPER_RESENDS)
    with caplog.at_level("INFO", "bulkreg"):
        Sweeps({"fold": Swept(), "drive_on": Swept(resent=3), "purge": Purged(keys=2)}, {})
    assert shown(metrics.SWEEPER_RESENDS) - before == 3
    lines = logged(caplog, Action.STEP_DONE)
    assert len(lines) == len(caplog.records)
    assert [(line["step"], line.get("resent"), line.get("keys")) for line in lines] == [("drive_on", 3, None), ("purge", None, 2)]


@pytest.mark.parametrize("field", [field.name for field in fields(Swept)])
def test_everything_that_was_swept_is_counted(field: str) -> None:
    one = Swept(**{field: 2})
    assert one
    assert not Swept()
    assert one + Swept(**{field: 3}) == Swept(**{field: 5})


@pytest.mark.parametrize("field", [field.name for field in fields(Purged)])
def test_everything_that_was_purged_is_counted(field: str) -> None:
    one = Purged(**{field: 2})
    assert one
    assert not Purged()
    assert one + Purged(**{field: 3}) == Purged(**{field: 5})
