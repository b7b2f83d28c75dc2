"""The main job on real input: what must come out of a data set comes out, undisturbed and while everything is killed."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.support.product import BULKREG, COMMAND_WITHIN_S, Product, running_product
from tests.support.waiting import eventually

DATA = Path(__file__).parents[1] / "data"
OUR_ROLES = ("api", "relay", "registration", "aggregator")


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with running_product(tmp_path / "home") as product:
        yield product


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outcomes(product: Product, size: str) -> list[dict[str, Any]]:
    """What became of each submission, in the order of the file, as the API tells it and `expected.ndjson` writes it."""
    batches: list[tuple[str, str, str]] = []
    organizations = sorted({submission["organization_id"] for submission in lines(DATA / size / "submissions.ndjson")})
    for organization in organizations:
        with product.client(organization) as client:
            cursor = None
            while True:
                query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
                listing = client.base_url.copy_with(path="/api/v1/bulk-registrations")
                page = client.get(listing, params=query).raise_for_status().json()
                batches += [(batch["submitted_at"], organization, batch["batch_id"]) for batch in page["data"]]
                cursor = page["pagination"]["next_cursor"]
                if cursor is None:
                    break
    found = []
    clients = {organization: product.client(organization) for organization in organizations}
    for number, (_, organization, batch_id) in enumerate(sorted(batches), start=1):
        batch = clients[organization].get(f"/{batch_id}", params={"item_limit": 1000}).raise_for_status().json()
        found.append(
            {
                "line": number,
                **{name: batch[name] for name in ("total_items", "completed", "failed", "status")},
                "items": [item["error"]["code"] if item["status"] == "failed" else item["status"] for item in batch["items"]],
            }
        )
    for client in clients.values():
        client.close()
    return found


def load(product: Product, size: str) -> None:
    product.bulkreg("directory", "import", str(DATA / size / "directory"))


def check(product: Product, size: str) -> None:
    assert outcomes(product, size) == lines(DATA / size / "expected.ndjson")
    product.bulkreg("verify")


def test_small_data_set(product: Product) -> None:
    load(product, "small")
    product.bulkreg("submit", str(DATA / "small" / "submissions.ndjson"), code=1)
    check(product, "small")
    # The same again is the same again: the keys are derived from the content.
    product.bulkreg("submit", str(DATA / "small" / "submissions.ndjson"), code=1)
    check(product, "small")


@pytest.mark.full
def test_large_data_set(product: Product) -> None:
    """Undisturbed; the test below runs the same set in `make test`, under harder conditions."""
    load(product, "large")
    product.bulkreg("submit", str(DATA / "large" / "submissions.ndjson"), code=1)
    check(product, "large")


def test_large_data_set_while_everything_is_killed(product: Product) -> None:
    """kill -9 of each of our processes, twice, and of the broker and of PostgreSQL once each, in the middle of the run."""
    load(product, "large")
    submit = subprocess.Popen(
        [*BULKREG, "submit", str(DATA / "large" / "submissions.ndjson"), "--home", str(product.home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    done = threading.Event()

    def wait() -> None:
        output, _ = submit.communicate(timeout=COMMAND_WITHIN_S)
        (product.home.parent / "submit.out").write_bytes(output)
        done.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    killed: list[str] = []
    try:
        for victim in (*OUR_ROLES, "kafka", *OUR_ROLES, "postgres"):
            # Between two kills the run goes on for some batches: each kill meets it at work, and it recovers from each.
            goal = finished_batches(product) + 15
            eventually(partial(_is_at_work, product, done, goal), within_s=120, what=f"work after {killed}")
            assert not done.is_set(), f"the run was over before {victim} could be killed"
            pid = product.stack["pids"][victim][0]
            os.kill(pid, signal.SIGKILL)
            killed.append(victim)
            eventually(partial(_is_replaced, product, victim, pid), within_s=60, what=f"a new {victim}")
    finally:
        waiter.join()
    assert submit.returncode == 1, (product.home.parent / "submit.out").read_text()[-4000:]
    check(product, "large")


def _is_at_work(product: Product, done: threading.Event, goal: int) -> bool:
    return done.is_set() or finished_batches(product) >= goal


def _is_replaced(product: Product, victim: str, pid: int) -> bool:
    return product.stack["pids"][victim] not in ([], [pid])


def finished_batches(product: Product) -> int:
    """How many batches are terminal; asked of the database, which may be away."""
    while True:
        try:
            connection = psycopg2.connect(product.stack["postgres"])
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM orchestrator.batch WHERE completed_at IS NOT NULL")
                [(count,)] = cursor.fetchall()
            connection.close()
        except (psycopg2.OperationalError, FileNotFoundError):
            continue
        return int(count)
