"""The main job on real input: a data set has exactly its expected outcomes, without disturbance and while everything is killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from orchestrator.process.settings import Settings
from tests.faults.roles import shorten_session
from tests.support.prepared import BULKREG
from tests.support.product import COMMAND_WITHIN_S, Product, running_product
from tests.support.waiting import eventually

DATA = Path(__file__).parents[1] / "data"
OUR_ROLES = ("api", "relay", "registration", "aggregator")
GROUPS = ("splitter", "registration", "aggregator")


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    with running_product(tmp_path / "home") as product:
        yield product


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def outcomes(product: Product, size: str) -> list[dict[str, Any]]:
    """The outcome of each submission, in the order of the file, from the API, in the form of `expected.ndjson`."""
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


def check(product: Product, size: str, count: int | None = None) -> None:
    """The outcomes of the first submissions, this many, or of all."""
    assert outcomes(product, size) == lines(DATA / size / "expected.ndjson")[:count]
    product.bulkreg("verify")


def test_small_data_set(product: Product) -> None:
    load(product, "small")
    product.bulkreg("submit", str(DATA / "small" / "submissions.ndjson"), code=1)
    check(product, "small")
    # Submitting the same file again changes nothing, because the keys are derived from the content.
    product.bulkreg("submit", str(DATA / "small" / "submissions.ndjson"), code=1)
    check(product, "small")


@pytest.mark.full
def test_large_data_set(product: Product) -> None:
    """Without disturbance. In `make test`, the test below runs the same set under harder conditions."""
    load(product, "large")
    product.bulkreg("submit", str(DATA / "large" / "submissions.ndjson"), code=1)
    check(product, "large")


# Each kill comes after fifteen more batches, so the last one comes half way through a third.
@pytest.mark.parametrize(
    ("count", "times"),
    [pytest.param(214, 1, id="a third, once"), pytest.param(642, 2, id="all, twice", marks=pytest.mark.full)],
)
def test_large_data_set_while_everything_is_killed(product: Product, tmp_path: Path, count: int, times: int) -> None:
    """kill -9 for each of our processes, so many times, and once for the broker, the supervisor and PostgreSQL, while these many submissions
    are registered."""
    load(product, "large")
    submissions = tmp_path / "submissions.ndjson"
    with (DATA / "large" / "submissions.ndjson").open("rb") as all_of_them:
        submissions.write_bytes(b"".join(islice(all_of_them, count)))
    # Otherwise the test would mostly wait for the five seconds after each kill.
    for group in GROUPS:
        # A role that is expelled because the machine stood still is restarted like one that died.
        shorten_session(Settings(kafka_bootstrap_servers=product.stack["kafka"]), group, session_timeout_ms=1_500)
    said = product.home.parent / "submit.out"
    command = [*BULKREG, "submit", str(submissions), "--home", str(product.home)]
    progress = Progress(product)
    killed: list[str] = []
    with (
        said.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL) as submit,
    ):
        try:
            for victim in (*OUR_ROLES, "kafka", "supervisor", *OUR_ROLES * (times - 1), "postgres"):
                # The run continues for some batches between two kills, so each kill comes during work, and the product recovers from each.
                goal = progress.finished_batches() + 15
                eventually(partial(_is_over_or_at, submit, progress, goal), within_s=120, what=f"work after {killed}")
                assert submit.poll() is None, f"the run was over before {victim} could be killed: {said.read_text()[-4000:]}"
                [pid] = product.stack["pids"][victim]
                os.kill(pid, signal.SIGKILL)
                killed.append(victim)
                if victim == "supervisor":
                    product.up()
                else:
                    eventually(partial(_is_replaced, product, victim, pid), what=f"a new {victim}")
            assert submit.wait(COMMAND_WITHIN_S) == 1, said.read_text()[-4000:]
        finally:
            submit.kill()
            progress.close()
    check(product, "large", count)


def _is_over_or_at(submit: subprocess.Popen[bytes], progress: "Progress", goal: int) -> bool:
    return submit.poll() is not None or progress.finished_batches() >= goal


def _is_replaced(product: Product, victim: str, pid: int) -> bool:
    return product.stack["pids"].get(victim, []) not in ([], [pid])


class Progress:
    """How far the run is, read from the database, which may be away. Uses one connection as long as it lasts."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._connection: Any = None

    def finished_batches(self) -> int:
        """How many batches are terminal."""
        return eventually(self._ask, what="a response of the database")[0]

    def _ask(self) -> tuple[int, ...]:
        """The number, or None while the database is away."""
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._product.stack["postgres"])
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM orchestrator.batch WHERE completed_at IS NOT NULL")
                return tuple(cursor.fetchone())
        except (psycopg2.OperationalError, psycopg2.InterfaceError, FileNotFoundError):
            self.close()
            time.sleep(0.1)
            return ()

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
