"""The flow with a person who is to be forgotten."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from orchestrator.process.settings import Settings
from tests.integration.test_replay import RecordingPipeline
from tests.support.forgetting import NAME, OTHER, PERSON
from tests.support.pipeline import ORGANIZATION, standard_directory


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    standard_directory(engine)
    with engine.begin() as connection:
        for mentor_id, name in ((PERSON, NAME), (OTHER, "Somebody Else")):
            connection.execute(
                text("INSERT INTO registration.mentor VALUES (:org, :id, :name, 'chapter-1')"),
                {"org": ORGANIZATION, "id": mentor_id, "name": name},
            )
    pipeline = RecordingPipeline(settings, engine)
    yield pipeline
    pipeline.close()
