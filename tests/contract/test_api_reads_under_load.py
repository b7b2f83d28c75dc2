"""The counts of every single response add up while batches are folded, cancelled and retried (docs/states.md)."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Connection

from orchestrator.batches import operations
from orchestrator.batches.model import BatchView, RetryRequest
from orchestrator.batches.states import TERMINAL_BATCH_STATUSES
from orchestrator.storage.batches import Batches
from orchestrator.storage.error_counts import ErrorCounts
from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.support.api_server import ApiServer
from tests.support.pipeline import ADMIN, Pipeline, item, mentors
from tests.support.waiting import PATIENCE_S

Json = dict[str, Any]

READERS = 4


def adds_up(batch: Json) -> None:
    """Checks the promises about counts that every response about a batch keeps."""
    assert batch["total_items"] == batch["pending"] + batch["completed"] + batch["failed"] + batch["cancelled"], batch
    assert sum(batch["errors_by_code"].values()) == batch["failed"], batch
    assert (batch["status"] in TERMINAL_BATCH_STATUSES) == (batch["pending"] == 0), batch


def agrees_with_its_items(batch: Json) -> None:
    """Checks the same for a response with all items."""
    adds_up(batch)
    states = Counter(shown["status"] for shown in batch["items"])
    assert states == +Counter(
        pending=batch["pending"], success=batch["completed"], failed=batch["failed"], cancelled=batch["cancelled"]
    ), batch


class Readers:
    """Threads that read everything all the time. Leaving `reading` raises the first mistake that they found."""

    def __init__(self, api: ApiServer, batches: Sequence[UUID]) -> None:
        self._api = api
        self._batches = batches
        self._stop = threading.Event()
        self._read = threading.Condition()
        self._reads = 0
        self.statuses: set[str] = set()

    def _read_on(self, first: int) -> None:
        with self._api.client() as client:
            number = first
            while not self._stop.is_set():
                batch_id = self._batches[number % len(self._batches)]
                found: Json = client.get(f"{API_PATH}/{batch_id}", params={"item_limit": 1_000}).json()
                agrees_with_its_items(found)
                listed = client.get(API_PATH).json()
                assert listed["pagination"]["total"] == len(self._batches)
                for batch in listed["data"]:
                    adds_up(batch)
                with self._read:
                    self._reads += 1
                    self.statuses.add(found["status"])
                    self._read.notify_all()
                number += 1

    def have_read(self, times: int) -> None:
        """Waits until they have read this many more times. The wait always ends, because a reader stops only after a mistake."""
        with self._read:
            enough = self._reads + times
            assert self._read.wait_for(lambda: self._reads >= enough or self._stop.is_set(), timeout=PATIENCE_S)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Lets them read while the block runs."""
        with ThreadPoolExecutor(READERS) as threads:
            running = [threads.submit(self._until_failure, number) for number in range(READERS)]
            try:
                yield
            finally:
                self._stop.set()
        for each in running:
            each.result()

    def _until_failure(self, first: int) -> None:
        try:
            self._read_on(first)
        finally:
            self._stop.set()


def test_every_response_adds_up_while_batches_are_folded_cancelled_and_retried(
    api: ApiServer, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    per_batch, batches = 12, []
    for number in range(6):
        good = mentors(per_batch - 3, first=1 + number * per_batch)
        batches.append(pipeline.submit([*good, *(item(f"nobody-{number}-{n}") for n in range(3))]))
    readers = Readers(api, batches)
    change = Batches.change_batches

    def change_and_be_read(repository: Batches, changes: Sequence[Any]) -> None:
        # They read twice inside the transaction: while the items are changed and the counts are not, and after both, before the commit.
        readers.have_read(2)
        change(repository, changes)
        readers.have_read(2)

    monkeypatch.setattr(Batches, "change_batches", change_and_be_read)
    with readers.reading():
        pipeline.relay()
        pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
        commands = pipeline.take(Topic.COMMANDS)
        cancelled = iter(batches[::3])
        for part in range(4):
            # A few items of each batch, so that all of them run for a while.
            pipeline.handle(pipeline.registration, commands[part::4])
            pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
            if (mistake := next(cancelled, None)) is not None:
                pipeline.call(operations.cancel_batch, ADMIN, mistake, "wrong week")
        for batch_id in batches[1::3]:
            pipeline.call(operations.retry_failed_items, ADMIN, batch_id, RetryRequest())
        pipeline.drain()
        readers.have_read(len(batches) * READERS)
    assert readers.statuses >= {"processing", "partial", "cancelled"}


def test_counts_items_and_errors_of_one_response_are_of_one_moment(
    coordinator: httpx.Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = pipeline.submit([item("nobody"), *mentors(4), item("stranger")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = sorted(pipeline.take(Topic.COMMANDS), key=lambda command: json.loads(command.value)["position"])
    pipeline.handle(pipeline.registration, commands[:1])
    pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))
    fill = ErrorCounts.fill
    events: list[str] = []

    def fold_and_fill(counts: ErrorCounts, connection: Connection, batches: Sequence[BatchView]) -> list[BatchView]:
        if not events:
            events.append("folded between the items and why they failed")
            pipeline.handle(pipeline.registration, commands[1:])
            pipeline.drain()
        return fill(counts, connection, batches)

    monkeypatch.setattr(ErrorCounts, "fill", fold_and_fill)
    before = coordinator.get(f"{API_PATH}/{batch_id}").json()
    assert events
    assert (before["pending"], before["failed"]) == (5, 1)
    agrees_with_its_items(before)
    after = coordinator.get(f"{API_PATH}/{batch_id}").json()
    assert (after["status"], after["failed"]) == ("partial", 2)
    agrees_with_its_items(after)
