"""An API whose followers hear of changes only when they are announced."""

from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from api.endpoints import events
from orchestrator.process.settings import Settings
from tests.support.api_server import KEY, ApiServer, running_api
from tests.support.following import LITTLE_ROOM, NEVER_POLLS
from tests.support.pipeline import Pipeline


@pytest.fixture(autouse=True)
def _no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns heartbeats off, because they look at the batch, too."""
    monkeypatch.setattr(events, "_HEARTBEAT_S", 3_600.0)


@pytest.fixture
def api(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """An API whose followers learn of changes only from announcements."""
    little_room = {"api_max_waiting_requests": LITTLE_ROOM}
    with running_api(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY), **NEVER_POLLS, **little_room})) as server:
        yield server
