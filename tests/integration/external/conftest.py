"""Fixtures of the tests with an external registration service."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from orchestrator.verification.verify import verify
from tests.support.external import ExternalPipeline
from tests.support.faulty_service import FaultyService, faulty_service, impatient
from tests.support.pipeline import standard_directory


@pytest.fixture
def service() -> Iterator[FaultyService]:
    with faulty_service() as service:
        yield service


@pytest.fixture
def asking(settings: Settings, service: FaultyService) -> Settings:
    return impatient(settings, service)


@pytest.fixture
def pipeline(asking: Settings, engine: Engine) -> Iterator[ExternalPipeline]:
    standard_directory(engine)
    pipeline = ExternalPipeline(asking, engine)
    yield pipeline
    # The invariants must hold after every test.
    assert verify(engine, asking).breaches == []
    pipeline.close()
