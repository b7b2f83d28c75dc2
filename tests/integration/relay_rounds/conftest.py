"""A relay that the test drives round by round."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from producers import relay as module
from tests.support.relay_rounds import LEASE_S, Broker, Running


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(module, "STOP_LOOK_S", 0.01)
    return settings.model_copy(update={"relay_poll_ms": 100, "relay_lease_ms": int(1000 * LEASE_S), "relay_batch_rows": 100})


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def start(settings: Settings, broker: Broker, engine: Engine) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def run(own: Broker | None = None, **changes: object) -> Running:
        started.append(Running(settings.model_copy(update=changes), own or broker, engine))
        return started[-1]

    yield run
    for each in started:
        each.end()
    assert [each.raised for each in started if each.raised is not broker.bug] == []
