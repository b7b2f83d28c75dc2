"""What tests of followers share: announcements, the API's listener, and a stream that a thread reads."""

import json
import threading
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import Engine, text

from orchestrator.storage import watching
from schemas.api.batches import BatchEvent
from tests.support.waiting import PATIENCE_S

# Far longer than a test waits, so a client that is woken in time was woken by the announcement.
LITTLE_ROOM = 20
NEVER_POLLS = {"api_watch_poll_ms": 3_600_000}


def announce(engine: Engine, batch_id: UUID) -> None:
    with engine.begin() as connection:
        watching.announce(connection, [batch_id])


LISTENERS = "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


def listening(owner: Engine) -> bool:
    """Whether the API's listener is connected."""
    with owner.connect() as connection:
        return bool(connection.execute(text(f"SELECT count(*) {LISTENERS}")).scalar_one())


class Events:
    """A stream that a separate thread reads."""

    def __init__(self, client: httpx.Client, url: str, **headers: str) -> None:
        self.events: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.status: int | None = None
        self.is_cut = False
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(client, url, headers))
        self._thread.start()

    def _read(self, client: httpx.Client, url: str, headers: dict[str, str]) -> None:
        try:
            with client.stream("GET", url, headers=headers) as answer:
                self.status = answer.status_code
                for line in answer.iter_lines():
                    if line.startswith("id: "):
                        self.ids.append(int(line[4:]))
                    if line.startswith("data: "):
                        BatchEvent.model_validate_json(line[6:], extra="forbid")
                        self.events.append(json.loads(line[6:]))
        except httpx.TransportError:
            self.is_cut = True
        finally:
            self.ended.set()

    def finish(self) -> None:
        """Waits until the server ends the stream."""
        assert self.ended.wait(PATIENCE_S)
        assert not self.is_cut
        self._thread.join()
