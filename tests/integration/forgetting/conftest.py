"""The flow with a person who is to be forgotten."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from orchestrator.process.settings import Settings
from tests.support.forgetting import NAME, OTHER, PERSON
from tests.support.pipeline import ORGANIZATION
from tests.support.replaying import RecordingPipeline, recording


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[RecordingPipeline]:
    with recording(settings, engine) as pipeline:
        with engine.begin() as connection:
            for mentor_id, name in ((PERSON, NAME), (OTHER, "Somebody Else")):
                connection.execute(
                    text("INSERT INTO registration.mentor VALUES (:org, :id, :name, 'chapter-1')"),
                    {"org": ORGANIZATION, "id": mentor_id, "name": name},
                )
        yield pipeline
