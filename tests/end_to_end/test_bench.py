"""The benchmark measures what it reports. These tests use tiny sizes and check no speed."""

import sys
from contextlib import nullcontext
from pathlib import Path

import psycopg2
import pytest

from compose.bench.bench import Bench
from compose.bench.curves import CurvePlaces
from compose.bench.database_limit import SET_ITEMS, limit_database, measure
from compose.bench.page import page
from compose.bench.peers import running
from compose.bench.peers.running import PeerFailedError, measure_peer
from compose.bench.plans import Plan
from compose.bench.rounds import Sizes
from compose.bench.target import BenchTarget
from compose.embedded.home import Home
from tests.support.product import running_product

PLAN = Plan(
    warm_up_batches=50,
    rounds=1,
    sizes=Sizes(
        closed_batches=4,
        batches={25: 4, 10: 2},
        alone_batches=2,
        beside_batches=2,
        half_load_s=0.5,
        large_items=2_000,
        limit_items=1_000,
        pair_messages=1_000,
    ),
    idle_s=0.5,
    places=CurvePlaces(clients=(1, 2), batch_sizes=(1,), items=1),
    grown=(5_000,),
)
PARTS = (
    "supervisor",
    "api",
    "relay, splitter, sweeper, notary, notifier",
    "registration",
    "aggregator",
    "kafka",
    "postgres",
    "load generator",
    "all",
)
LOADS = (
    "batches of 25, 16 clients that wait for them",
    "batches of 25, 16 clients that wait for them, each of another organization",
    "batches of 25, 16 clients that don't wait",
    "batches of 10, 16 clients that don't wait",
)
THROUGHPUT = [
    f"{load}: {figure}"
    for load in LOADS
    for figure in (
        "submit to folded status",
        *(f"CPU for an item, {part}" for part in PARTS),
        "CPU for an item, all / load generator",
    )
]
MEASURED = """\
database limit
bare producer and consumer
product / database limit, batches of 25, 16 clients that wait for them
product / database limit, batches of 25, 16 clients that don't wait
product / bare pair
load generator, its share of a core at most
batch of 25, submit to terminal, alone: p50
batch of 25, submit to terminal, alone: p99
batch of 25, submit to terminal, at half the maximum load: p50
batch of 25, submit to terminal, at half the maximum load: p99
batch of 25, submit to terminal, while a large one runs: p50
batch of 25, submit to terminal, while a large one runs: p99
POST of 50, at half the maximum load: p50
POST of 50, at half the maximum load: p99
GET of its status, at half the maximum load: p50
GET of its status, at half the maximum load: p99
batch of 2,000: accepted
batch of 2,000: finished
batch of 2,000: memory of the process that grew most
cancel of a running batch of 2,000
idle: all our processes together
idle: memory of supervisor
idle: memory of api
idle: memory of relay, splitter, sweeper, notary, notifier
idle: memory of registration
idle: memory of aggregator
up, again
cost of an item at 1,250 activities
cost of an item at 5,000 activities
"""


def test_every_row_is_measured_on_a_running_product_that_passes_verification(tmp_path: Path) -> None:
    with running_product(tmp_path / "home") as product:
        target = BenchTarget.running_in(Home(tmp_path / "home"))
        assert target is not None
        figures = Bench(target, PLAN, lambda _words: nullcontext()).run(up_s={"again": 1.0})
        # The measured batches, and those that filled the tables, are ordinary batches.
        product.bulkreg("verify")
    assert [row.what for row in figures.rows] == THROUGHPUT + MEASURED.splitlines()
    assert all(row.lowest <= row.median <= row.highest for row in figures.rows)
    assert [[point.place for point in curve.points] for curve in figures.curves] == [[1, 2], [1], [1_250, 5_000]]
    assert page(figures)


def test_the_limit_writes_every_row_that_the_product_writes(infrastructure: object, template_database: str) -> None:
    with limit_database(template_database) as url:
        measure(url, 2 * SET_ITEMS)
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            for table in ("orchestrator.batch_item", "orchestrator.outcome", "registration.activity", "registration.audit"):
                cursor.execute(f"SELECT count(*) FROM {table}")
                assert cursor.fetchall() == [(2 * SET_ITEMS,)], table
            cursor.execute("SELECT status, count(*) FROM orchestrator.batch GROUP BY status")
            assert cursor.fetchall() == [("completed", 40)]
        connection.close()


def test_a_library_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, template_database: str) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(running, "ENVIRONMENT", tmp_path)
    with pytest.raises(PeerFailedError, match="pgqueuer"):
        measure_peer(template_database, "pgqueuer")
