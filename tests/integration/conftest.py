"""What the tests of the flow stand on."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.support.pipeline import Pipeline, standard_directory


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    """The flow with the standard directory, without a broker."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()
