"""What many readers of one batch cost, and how a large batch is read."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event

from schemas.envelope import Topic
from schemas.paths import API_PATH
from tests.support.pipeline import Pipeline, item

READERS = 24


@pytest.fixture
def recounts() -> Iterator[list[str]]:
    """The statements of this process that count items by error code."""
    seen: list[str] = []

    def look(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "error ->> 'code'" in statement and parameters.get("counts_errors", True):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", look)
    yield seen
    event.remove(Engine, "before_cursor_execute", look)


def test_readers_of_one_version_share_one_count(coordinator: httpx.Client, pipeline: Pipeline, recounts: list[str]) -> None:
    url = f"{API_PATH}/{pipeline.submit([item('nobody'), item('mentor-1'), item('stranger')])}"
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    commands = sorted(pipeline.take(Topic.COMMANDS), key=lambda command: json.loads(command.value)["position"])

    def register(first: int, last: int) -> None:
        pipeline.handle(pipeline.registration, commands[first:last])
        pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))

    def read() -> set[str]:
        with ThreadPoolExecutor(READERS) as threads:
            answers = [answer.json() for answer in threads.map(coordinator.get, [url] * READERS)]
        answers += coordinator.get(API_PATH).json()["data"]
        with coordinator.stream("GET", f"{url}/events") as stream:
            line = next(line for line in stream.iter_lines() if line.startswith("data: "))
        answers.append(json.loads(line.removeprefix("data: ")))
        assert len(answers) == READERS + 2
        return {json.dumps([answer["failed"], answer["errors_by_code"]]) for answer in answers}

    assert read() == {"[0, {}]"}
    assert len(recounts) == 0, "errors were counted although no item has failed"
    register(0, 1)
    assert read() == {'[1, {"mentor_not_found": 1}]'}
    assert len(recounts) == 1
    register(1, 3)
    assert read() == {'[2, {"mentor_not_found": 2}]'}
    assert len(recounts) == 2


def test_a_finished_batch_of_ten_thousand_is_read_in_pages(coordinator: httpx.Client, pipeline: Pipeline) -> None:
    total, page_size = 10_000, 997
    shared = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
    submission = {"mentor_ids": [f"mentor-{number}" for number in range(total)], "activity": shared}
    url = f"{API_PATH}/{coordinator.post(API_PATH, json=submission).json()['batch_id']}"
    assert coordinator.post(f"{url}/cancel").json()["cancelled"] == total
    read: list[tuple[int, str, str]] = []
    sizes, cursor = [], None
    while True:
        page = coordinator.get(url, params={"item_limit": page_size} | ({} if cursor is None else {"item_cursor": cursor})).json()
        assert (page["status"], page["cancelled"]) == ("cancelled", total)
        read += [(each["position"], each["mentor_id"], each["status"]) for each in page["items"]]
        sizes.append(len(page["items"]))
        cursor = page["next_item_cursor"]
        if cursor is None:
            break
    assert read == [(position, f"mentor-{position}", "cancelled") for position in range(total)]
    assert sizes == [page_size] * (total // page_size) + [total % page_size]
    # Without paging parameters, the response is a page, too.
    assert len(coordinator.get(url).json()["items"]) == 200
