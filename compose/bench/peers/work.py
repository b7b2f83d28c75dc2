"""The work that every library does for an item, and how it is measured: one process submits, two others work.

Sixteen clients submit batches of 25 as fast as they can. The time ends when every item has its status. An item's work is one statement and one
transaction: the row that makes a repetition harmless, the activity, and the item's status. There is no HTTP, token, rule or audit.
"""

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import date, timedelta

import psycopg

CLIENTS = 16
BATCH_ITEMS = 25
WORKERS = 2
"""Processes: one for each core of the machine that the figures are of."""

_MENTORS = 10_000
_FIRST_DAY = date(2000, 1, 1)
_POLL_S = 0.02
_GIVE_UP_S = 300.0

TABLES = """
    CREATE SCHEMA work;
    CREATE TABLE work.item (
        batch_id uuid, position integer, mentor_id text NOT NULL, activity_date date NOT NULL, status text NOT NULL DEFAULT 'pending',
        PRIMARY KEY (batch_id, position)
    );
    CREATE TABLE work.outcome (
        batch_id uuid, position integer, attempt integer, outcome text NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (batch_id, position, attempt)
    );
    CREATE TABLE work.activity (
        activity_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), organization_id text NOT NULL, attributed_to text NOT NULL,
        registered_by text NOT NULL, activity_type text NOT NULL, activity_date date NOT NULL, duration_minutes integer NOT NULL,
        notes text NOT NULL, batch_id uuid NOT NULL, position integer NOT NULL, created_at timestamptz NOT NULL DEFAULT now(),
        UNIQUE (organization_id, attributed_to, activity_type, activity_date), UNIQUE (batch_id, position)
    );
"""

# The parameters in the three notations of the libraries' drivers.
_ITEM = """
    WITH decided AS (
        INSERT INTO work.outcome (batch_id, position, attempt, outcome)
        VALUES (CAST({batch_id} AS uuid), CAST({position} AS integer), 1, 'success')
        ON CONFLICT DO NOTHING RETURNING batch_id, position
    ), updated AS (
        UPDATE work.item i SET status = 'success' FROM decided d WHERE (i.batch_id, i.position) = (d.batch_id, d.position)
        RETURNING i.*
    )
    INSERT INTO work.activity (organization_id, attributed_to, registered_by, activity_type, activity_date, duration_minutes, notes, batch_id,
                               position)
    SELECT 'peer', mentor_id, 'coordinator', 'visit', activity_date, 60, 'A walk and a talk, as agreed.', batch_id, position FROM updated
"""
_SUBMIT = """
    INSERT INTO work.item (batch_id, position, mentor_id, activity_date)
    SELECT CAST({batch_id} AS uuid), position, mentor_id, CAST({day} AS date)
    FROM unnest(CAST({mentors} AS text[])) WITH ORDINALITY AS n (mentor_id, position)
"""


def item_sql(batch_id: str, position: str) -> str:
    """The statement for one item, with a driver's names of the parameters."""
    return _ITEM.format(batch_id=batch_id, position=position)


def submit_sql(batch_id: str, mentors: str, day: str) -> str:
    """The statement for a batch's rows, with a driver's names of the parameters."""
    return _SUBMIT.format(batch_id=batch_id, mentors=mentors, day=day)


class Batches:
    """New batches. No two items have the same mentor and day."""

    def __init__(self, items: int) -> None:
        self._left = items
        self._next = 0
        self._mentors = uuid.uuid4().hex[:8]

    def take(self) -> tuple[str, list[str], date] | None:
        """Returns the next batch's id, mentors and day; None when there are enough."""
        if self._left <= 0:
            return None
        self._left -= BATCH_ITEMS
        day, first = divmod(self._next, _MENTORS)
        self._next += BATCH_ITEMS
        return str(uuid.uuid4()), [f"{self._mentors}-{first + n}" for n in range(BATCH_ITEMS)], _FIRST_DAY + timedelta(days=day)


def positions() -> Sequence[int]:
    """The positions of a batch's items, as the statement for its rows numbers them."""
    return range(1, BATCH_ITEMS + 1)


def main(prepare: Callable[[str], None], submit: Callable[[str, int], None], work: Callable[[str], None]) -> None:
    """Runs one part of a peer's module: `MODULE measure URL ITEMS` prepares the database, starts the other parts and writes items per second.

    `prepare` creates the library's tables, `submit` submits that many items, and `work` handles them until the process is ended.
    """
    _, part, url, *rest = sys.argv
    match part:
        case "measure":
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(TABLES.encode())
            prepare(url)
            sys.stdout.write(json.dumps(_measure(url, int(rest[0]))))
        case "submit":
            submit(url, int(rest[0]))
        case "work":
            work(url)


def _measure(url: str, items: int) -> float:
    module = sys.modules["__main__"].__spec__
    assert module is not None, "a peer's module is started with -m"
    program = [sys.executable, "-m", module.name]
    workers = [subprocess.Popen([*program, "work", url]) for _ in range(WORKERS)]
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            # A first load, so that the measured one meets workers that have started and connected.
            _load(connection, [*program, "submit", url], items // 10)
            return items / _load(connection, [*program, "submit", url], items)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _load(connection: psycopg.Connection, submit: Sequence[str], items: int) -> float:
    """Seconds until that many more items have their status. The submitting process tells when it has connected and begins."""
    before = _finished(connection)
    with subprocess.Popen([*submit, str(items)], stdout=subprocess.PIPE) as submitting:
        assert submitting.stdout is not None
        submitting.stdout.readline()
        began = time.perf_counter()
        while _finished(connection) < before + items:
            if time.perf_counter() - began > _GIVE_UP_S:
                raise TimeoutError(f"{items:,} items were not done in {_GIVE_UP_S:g} s")
            if submitting.poll():
                raise RuntimeError("the submitting process has failed; what it wrote above says why")
            time.sleep(_POLL_S)
        return time.perf_counter() - began


def _finished(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT count(*) FROM work.outcome").fetchone()
    assert row is not None
    return int(row[0])


def begins() -> None:
    """Called by a submitting process when it has connected."""
    sys.stdout.write("begins\n")
    sys.stdout.flush()
