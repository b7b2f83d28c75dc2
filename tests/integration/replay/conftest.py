"""Fixtures of the replay's tests."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from schemas import event_builders
from tests.support.replaying import RecordingPipeline, recording


@pytest.fixture
def pipeline(settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordingPipeline]:
    """The flow with 700 mentors. A cancel's event holds two runs of positions, so that a batch of six items needs more than one."""
    monkeypatch.setattr(event_builders, "MAX_CANCELLED_RUNS", 2)
    with recording(settings, engine, mentor_count=700) as pipeline:
        yield pipeline
