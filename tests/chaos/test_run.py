"""A run of chaos that can't cause its faults to the end: it ends, says so, and judges what happened until then."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import run
from tests.chaos.clients import Client, run_clients
from tests.chaos.history import History
from tests.chaos.judge import Finding, Rule
from tests.chaos.nemesis import Fault, Stage, Strike
from tests.chaos.run import Plan, load_and_harm
from tests.chaos.work import Work

NOWHERE = "http://127.0.0.1:1"


class Upstream:
    """Sends nothing."""

    def run(self, is_over: threading.Event) -> None:
        is_over.wait()


@contextlib.contextmanager
def _fails_at_its_end(_cluster: object) -> Iterator[bool]:
    yield True
    raise AssertionError("the standby did not come back")


def test_what_failed_in_causing_the_faults_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WARM_UP_S", 0.0)
    monkeypatch.setattr(run, "SAY_EVERY_S", 0.01)
    stage: Any = Stage(
        SimpleNamespace(api=NOWHERE, token="a token"),  # type: ignore[arg-type]
        {"databases": [Fault("kill a backend", _fails_at_its_end)]},
    )
    history, strikes, said = History(), list[Strike](), list[str]()
    upstream: Any = Upstream()
    plan = Plan(seed="a seed", chaos_s=1_000.0, clients=0, calm_s=0.01, only="kill a backend")
    [found] = load_and_harm(plan, stage, history, Work("a seed", history), upstream, strikes, said.append)
    assert isinstance(found, Finding)
    assert found.rule is Rule.NO_MORE_FAULTS
    assert "the standby did not come back" in found.detail
    assert "_fails_at_its_end" in said[-1], "where it happened"


class Deaf(Client):
    """Its request times out in the moment in which it is cancelled, so it learns only of the time that is over."""

    async def run(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)


@pytest.mark.timeout(30)
def test_clients_end_when_the_run_fails() -> None:
    async def until() -> None:
        await asyncio.sleep(0.02)
        raise AssertionError("a reason")

    history = History()
    with pytest.raises(ExceptionGroup) as raised:
        run_clients(2, "a seed", NOWHERE, "a token", Work("a seed", history), history, until, Deaf)
    assert raised.group_contains(AssertionError, match="a reason")
