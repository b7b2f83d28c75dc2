"""Clients of a deployment that is changed while they work."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from itertools import count
from typing import Any

import httpx
from pydantic import SecretStr

from api.access.tokens import make_development_token
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.support.api_server import KEY
from tests.support.pipeline import COORDINATOR, ORGANIZATION
from tests.support.waiting import PATIENCE_S, eventually

ITEMS = 5
"""Of each batch."""
MENTORS = 100
FIRST_DAY = date(1990, 1, 1)


class Clients:
    """Clients of the API. Each repeats a request under its key until it gets a final response."""

    def __init__(self, settings: Settings, urls: list[str]) -> None:
        self.urls = urls
        """The addresses of APIs. The list may change at any time, like a proxy's."""
        self.accepted: list[str] = []
        self.times_s: list[float] = []
        """For each batch that was followed to its end, the time from the first try to submit it."""
        self.trouble: Counter[str] = Counter()
        """How many requests were repeated, by reason."""
        with_key = settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})
        token = make_development_token(with_key, sub=COORDINATOR, role=Role.COORDINATOR, orgs=(ORGANIZATION,), ttl_s=7_200)
        self._http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S)
        self._numbers = count()
        self._stopping = threading.Event()
        self._raised: list[BaseException] = []

    def ask(self, method: str, path: str, headers: Mapping[str, str], **request: Any) -> httpx.Response:
        """The first response that is not 503. Raises AssertionError for an unexpected one."""
        for turn in count():
            urls = tuple(self.urls)
            url = urls[turn % len(urls)]
            try:
                answer = self._http.request(method, f"{url}{API_PATH}{path}", headers=headers, **request)
            except httpx.TransportError as error:
                self.trouble[type(error).__name__] += 1
                time.sleep(0.02)  # A refused connection fails at once, and the next try would take the CPU of what starts.
                continue
            if answer.status_code == 503:
                self.trouble["503"] += 1
                # Sooner than Retry-After asks for, so that a client is at work as soon as the deployment is, but not at once: a 503
                # may come in a millisecond, and the repetitions would take the CPU of what starts.
                time.sleep(0.1)
                continue
            assert answer.status_code in (200, 202, 304), answer.text
            return answer
        raise AssertionError("unreachable")

    def submit(self) -> tuple[str, str]:
        """Submits a batch with new values. Returns its id and its ETag."""
        number = next(self._numbers)
        day, group = divmod(number, MENTORS // ITEMS)
        items = [
            {
                "mentor_id": f"mentor-{1 + group * ITEMS + position}",
                "activity_type": "visit",
                "activity_date": (FIRST_DAY + timedelta(days=day)).isoformat(),
                "duration_minutes": 60,
            }
            for position in range(ITEMS)
        ]
        answer = self.ask("POST", "", {"Idempotency-Key": f"batch-{number}"}, json={"items": items})
        batch_id = str(answer.json()["batch_id"])
        self.accepted.append(batch_id)
        return batch_id, answer.headers.get("ETag", "")

    def submit_and_follow(self) -> None:
        """Submits a batch and follows it until it has succeeded."""
        began_s = time.monotonic()
        batch_id, etag = self.submit()
        status = ""
        while status not in ("completed", "partial", "failed", "cancelled"):
            answer = self.ask("GET", f"/{batch_id}", {"If-None-Match": etag}, params={"wait": "20s"})
            if answer.status_code == 200:
                status, etag = answer.json()["status"], answer.headers["ETag"]
        self.times_s.append(time.monotonic() - began_s)
        assert status == "completed", answer.text

    def go_on(self) -> None:
        """Returns after each client has finished some more batches."""
        goal = len(self.times_s) + 10
        eventually(lambda: self._raised or len(self.times_s) >= goal, what="more finished batches")
        assert not self._raised, self._raised

    @contextlib.contextmanager
    def at_work(self, number: int, *, pause_s: float = 0.0, follow: bool = True) -> Iterator[None]:
        """Runs this many clients, each with one batch after the other."""

        def work() -> None:
            try:
                while not self._stopping.wait(pause_s):
                    self.submit_and_follow() if follow else self.submit()
            except BaseException as error:
                self._raised.append(error)

        threads = [threading.Thread(target=work) for _ in range(number)]
        with self._http:
            for thread in threads:
                thread.start()
            try:
                yield
            finally:
                self._stopping.set()
                for thread in threads:
                    thread.join()
        assert not self._raised, self._raised
