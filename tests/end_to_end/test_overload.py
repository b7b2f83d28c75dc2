"""Three times the load that the product can handle, for minutes: it refuses requests, and loses nothing that it accepted."""

import asyncio
import json
import os
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import aiohttp
import psutil
import psycopg2
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine

from compose.bench.target import ORGANIZATION, make_organizations
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.support.product import Product, running_product
from tests.support.waiting import eventually

ITEMS = 25
MOST_WAITING = 10_000
SECONDS = float(os.environ.get("BULKREG_OVERLOAD_SECONDS") or 120)
WARM_UP_BATCHES = 200
FIRST_DAY = date(1990, 1, 1)


class Load:
    """Submissions, each for a date of its own, and the responses to them."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._number = 0
        self.answers: Counter[int] = Counter()
        self.told_to_wait_s: list[int] = []
        self.accepted: list[str] = []

    async def submit(self) -> None:
        self._number += 1
        activity = {
            "activity_type": "visit",
            "activity_date": (FIRST_DAY + timedelta(days=self._number % 10_000)).isoformat(),
            "duration_minutes": 60,
        }
        first = 1 + self._number // 10_000 * ITEMS
        body = {
            "coordinator_id": "bench-coordinator",
            "mentor_ids": [f"mentor-{number}" for number in range(first, first + ITEMS)],
            "activity": activity,
        }
        async with self._session.post(API_PATH, json=body) as answer:
            self.answers[answer.status] += 1
            if answer.status == 202:
                self.accepted.append((await answer.json())["batch_id"])
            else:
                self.told_to_wait_s.append(int(answer.headers["Retry-After"]))


async def measured_rate(load: Load, product: Product) -> float:
    """How many items it handles per second."""
    began = time.monotonic()
    for _ in range(WARM_UP_BATCHES // 20):
        await asyncio.gather(*(load.submit() for _ in range(20)))
    await asyncio.to_thread(eventually, lambda: not waiting(product))
    return WARM_UP_BATCHES * ITEMS / (time.monotonic() - began)


async def overload(load: Load, product: Product, rate: float) -> dict[str, float]:
    """Submits at a fixed rate, whatever the responses. Returns the largest backlog, and the largest memory use of our processes."""
    most = {"waiting": 0.0, "outbox": 0.0, "memory_mb": 0.0}
    began = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    sent = looked = 0
    while (age_s := time.monotonic() - began) < SECONDS:
        while sent < age_s * rate / ITEMS:
            task = asyncio.create_task(load.submit())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            sent += 1
        if age_s > looked:
            looked += 1
            seen = await asyncio.to_thread(look, product)
            most = {name: max(most[name], seen[name]) for name in most}
        await asyncio.sleep(0.01)
    await asyncio.gather(*under_way)
    return most


def look(product: Product) -> dict[str, float]:
    ours = {pid for role, pids in product.stack["pids"].items() if role not in ("kafka", "postgres") for pid in pids}
    memory_mb = max(psutil.Process(pid).memory_info().rss for pid in ours) / 1e6
    return {
        "waiting": waiting(product),
        "outbox": count(product, "SELECT count(*) FROM orchestrator.outbox"),
        "memory_mb": memory_mb,
    }


def waiting(product: Product) -> float:
    return count(product, "SELECT coalesce(sum(pending), 0) FROM orchestrator.batch WHERE status = 'processing'")


def count(product: Product, query: str) -> float:
    connection = psycopg2.connect(product.stack["postgres"])
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        [(number,)] = cursor.fetchall()
    connection.close()
    return float(number)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_three_times_the_load_is_refused_in_time_and_nothing_accepted_is_lost(tmp_path: Path) -> None:
    with running_product(tmp_path / "home", {"BULKREG_MAX_BACKLOG_ITEMS": str(MOST_WAITING)}) as product:
        engine = create_engine(Settings(database_url=SecretStr(product.stack["postgres"])).owner_url)
        make_organizations(engine)
        engine.dispose()

        async def run() -> tuple[Load, float, dict[str, float]]:
            headers = {"Authorization": f"Bearer {product.stack['token']}", "X-Organization-Id": ORGANIZATION}
            connector = aiohttp.TCPConnector(limit=200)
            async with aiohttp.ClientSession(product.stack["api"], headers=headers, connector=connector) as session:
                load = Load(session)
                rate = await measured_rate(load, product)
                load.answers.clear()
                return load, rate, await overload(load, product, 3 * rate)

        load, rate, most = asyncio.run(run())
        print(
            json.dumps(
                {
                    "rate": rate,
                    "answers": load.answers,
                    "most": most,
                    "told_to_wait_s": [min(load.told_to_wait_s, default=0), max(load.told_to_wait_s, default=0)],
                }
            )
        )
        assert set(load.answers) == {202, 503}, load.answers
        # One second's worth may come in addition to the last count.
        assert most["waiting"] <= MOST_WAITING + 3 * rate
        assert all(1 <= seconds <= 300 for seconds in load.told_to_wait_s)
        eventually(lambda: not waiting(product), within_s=120, what="the end of everything accepted")
        completed = count(product, "SELECT count(*) FROM orchestrator.batch WHERE status = 'completed'")
        assert completed == len(load.accepted)
        assert count(product, "SELECT count(*) FROM registration.activity") == ITEMS * len(load.accepted)
        product.bulkreg("verify")
