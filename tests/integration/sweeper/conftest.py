"""Fixtures of the sweeper's tests."""

from dataclasses import replace
from datetime import timedelta

import pytest

from consumers.upkeep.sweeper import Sweeper, SweepPolicy
from orchestrator.process.settings import Settings
from tests.support.pipeline import Pipeline
from tests.support.sweeping import Broker


@pytest.fixture
def broker(pipeline: Pipeline) -> Broker:
    return Broker(pipeline)


@pytest.fixture
def sweeper(settings: Settings, broker: Broker) -> Sweeper:
    eager = replace(SweepPolicy.of(settings), quiet=timedelta(0), resend_pause=timedelta(0), max_resends=2)
    return Sweeper(eager, broker)


@pytest.fixture
def patient_sweeper(settings: Settings, broker: Broker) -> Sweeper:
    """A sweeper for which an hour without changes is quiet."""
    return Sweeper(replace(SweepPolicy.of(settings), quiet=timedelta(hours=1), resend_pause=timedelta(0)), broker)
