"""Clients that submit small batches all the time, and how long these took."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count, pairwise
from statistics import quantiles
from uuid import UUID

import httpx
from sqlalchemy import Engine, text

from producers.partitions import partition_of
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.waiting import PATIENCE_S

CLIENTS = 4
PAUSE_S = 0.1
SOME = 50
"""So many batches have to end before a test goes on."""
MENTORS = 100
FIRST_DAY = date(1990, 1, 1)

Place = tuple[Topic, int]
"""A topic and a partition."""


@dataclass(frozen=True)
class Accepted:
    """A batch of one item that the API has accepted."""

    batch_id: UUID
    mentor_id: str
    tried_s: float
    """When the client first tried, by the clock of this machine."""

    def places(self, partitions: int) -> set[Place]:
        """The partitions that its events go to."""
        keys = {
            Topic.BATCHES: str(self.batch_id),
            Topic.COMMANDS: f"{ORGANIZATION}:{self.mentor_id}",
            Topic.RESULTS: f"{self.batch_id}:0",
        }
        return {(topic, partition_of(key.encode(), partitions)) for topic, key in keys.items()}


@dataclass(frozen=True)
class Took:
    """How long batches took from the first try to their end."""

    batches: int
    p50_s: float
    p99_s: float
    most_s: float
    stall_s: float
    """The longest time in which none of them ended."""

    def __str__(self) -> str:
        """Cells of the table in docs/cluster.md."""
        return f"{self.batches} batches, p50 {self.p50_s:.2f} s, p99 {self.p99_s:.2f} s, longest {self.most_s:.1f} s, stall {self.stall_s:.1f} s"


class Load:
    """The clients. Each repeats a request under its key until the API accepts it, as a client should."""

    def __init__(self, api: str, token: str, numbers: "count[int]") -> None:
        """`numbers` never repeat in one deployment: each is another record."""
        self.accepted: list[Accepted] = []
        self.refused = 0
        """How many requests were repeated."""
        self._numbers = numbers
        self._stopping = threading.Event()
        self._raised: list[BaseException] = []
        headers = {"Authorization": f"Bearer {token}", "X-Organization-Id": ORGANIZATION}
        self._http = httpx.Client(base_url=api, headers=headers, timeout=PATIENCE_S, verify=NO_TLS)

    @contextlib.contextmanager
    def at_work(self) -> Iterator["Load"]:
        """Submits until the block ends."""
        threads = [threading.Thread(target=self._work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
            self._http.close()
        assert not self._raised, self._raised

    def _work(self) -> None:
        try:
            while not self._stopping.wait(PAUSE_S):
                self._submit(next(self._numbers))
        except BaseException as error:
            self._raised.append(error)

    def _submit(self, number: int) -> None:
        day, mentor = divmod(number, MENTORS)
        mentor_id = f"mentor-{mentor + 1}"
        values = {
            "mentor_id": mentor_id,
            "activity_type": "visit",
            "activity_date": (FIRST_DAY + timedelta(days=day)).isoformat(),
            "duration_minutes": 60,
        }
        body = {"coordinator_id": COORDINATOR, "items": [values]}
        tried_s = time.time()
        while True:
            try:
                answer = self._http.post(API_PATH, json=body, headers={"Idempotency-Key": f"load-{number}"})
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                batch_id = UUID(answer.json()["batch_id"])
                self.accepted.append(Accepted(batch_id, mentor_id, tried_s))
                return
            assert answer is None or answer.status_code in (503, 504, 409), answer.text
            self.refused += 1
            # A client that gives up here may leave a batch that it does not know of, which is no loss.
            if self._stopping.wait(0.2):
                return


def ended(engine: Engine, batches: Sequence[Accepted]) -> dict[UUID, float]:
    """When each of these batches succeeded, by the database's clock. Batches that have not ended are left out."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT batch_id, extract(epoch FROM completed_at)::float8 FROM orchestrator.batch"
                " WHERE batch_id = ANY(CAST(:ids AS uuid[])) AND status = 'completed'"
            ),
            {"ids": [str(batch.batch_id) for batch in batches]},
        )
        return {row[0]: row[1] for row in rows}


def took(engine: Engine, batches: Sequence[Accepted]) -> Took:
    """Measures batches that have all succeeded."""
    ends = ended(engine, batches)
    times = sorted(ends[batch.batch_id] - batch.tried_s for batch in batches)
    hundredths = quantiles(times, n=100, method="inclusive")
    moments = sorted([min(batch.tried_s for batch in batches), *ends.values()])
    return Took(
        len(batches), hundredths[49], hundredths[98], times[-1], max(later - earlier for earlier, later in pairwise(moments))
    )
