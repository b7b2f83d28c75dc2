"""The database limit: writes the rows that the product writes for an item as fast as the same server can (docs/performance.md).

It writes sets of 500 from memory over two connections, with one commit each; no HTTP, no Kafka, no rules. It uses the product's own tables
in a separate database, so that indexes, row widths and durability are the real ones.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta

import psycopg2
from pydantic import SecretStr

from compose.bench.scratch import scratch_database
from compose.bench.settling import settle
from orchestrator.process.settings import Settings
from orchestrator.storage.connecting import open_engine
from orchestrator.storage.migrate import upgrade
from schemas.ids import DerivedIds, new_batch_id

SET_ITEMS = 500
BATCH_ITEMS = 25
CONNECTIONS = 2

# Each statement takes its values from the client, as the product's own statements do. The product writes the batch's rows in the API, the
# activity and the outcome in the registration, and the updates in the aggregator, and none of them has the others' values at hand. (With
# the set kept in a temporary table it would be 1.3 times as fast: docs/performance.md.)
_ITEMS = """
    unnest(%(batches)s::uuid[], %(positions)s::int[], %(items)s::uuid[], %(mentors)s::text[], %(days)s::date[])
    AS n (batch_id, position, item_id, mentor_id, day)
"""
_ACTIVITIES = """
    unnest(%(batches)s::uuid[], %(items)s::uuid[], %(activities)s::uuid[], %(mentors)s::text[], %(days)s::date[])
    AS n (batch_id, item_id, activity_id, mentor_id, day)
"""
_OUTCOMES = """
    unnest(%(batches)s::uuid[], %(positions)s::int[], %(activities)s::uuid[]) AS n (batch_id, position, activity_id)
"""

_SET = f"""
INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items, pending,
                                content_hash, trace_id, submitted_at, changed_at)
SELECT DISTINCT batch_id, 'bench', 'coordinator', 'coordinator', 'api', 'label', 'processing', %(batch_items)s, %(batch_items)s,
       '\\x00'::bytea, '00000000000000000000000000000001', now(), now() FROM unnest(%(batches)s::uuid[]) AS n (batch_id);

INSERT INTO orchestrator.batch_item (batch_id, position, item_id, organization_id, mentor_id, activity_type, activity_date,
                                     duration_minutes, notes, override_duplicates, attempt_at)
SELECT batch_id, position, item_id, 'bench', mentor_id, 'visit', day, 60, 'A walk and a talk, as agreed.', false, now() FROM {_ITEMS};

INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,
                                   duration_minutes, notes, batch_id, item_id, overrides_duplicate, created_at)
SELECT activity_id, 'bench', mentor_id, 'coordinator', 'visit', day, 60, 'A walk and a talk, as agreed.', batch_id, item_id, false, now()
FROM {_ACTIVITIES};

INSERT INTO registration.audit (organization_id, action, activity_id, registered_by, attributed_to, submitted_by, batch_id, channel, at,
                                activity_type, activity_date, duration_minutes, item_id, attempt)
SELECT 'bench', 'registered', activity_id, 'coordinator', mentor_id, 'coordinator', batch_id, 'api', now(),
       'visit', day, 60, item_id, 1 FROM {_ACTIVITIES};

INSERT INTO orchestrator.outcome (batch_id, position, attempt, organization_id, outcome, activity_id, created_at)
SELECT batch_id, position, 1, 'bench', 'success', activity_id, now() FROM {_OUTCOMES};

UPDATE orchestrator.batch_item i SET status = 'success', activity_id = n.activity_id, changed_version = 2
FROM {_OUTCOMES} WHERE (i.batch_id, i.position) = (n.batch_id, n.position);

UPDATE orchestrator.batch SET status = 'completed', pending = 0, completed = total_items, version = version + 1, completed_at = now()
WHERE batch_id = ANY (%(batches)s::uuid[]);
"""

_Parameters = dict[str, object]


@contextmanager
def limit_database(postgres: str) -> Iterator[str]:
    """Yields a database with the product's schema on the same server, and drops it afterwards."""
    with scratch_database(postgres, "bench_limit") as url:
        upgrade(Settings(database_url=SecretStr(url)))
        yield url


def measure(url: str, items: int) -> float:
    """Returns items per second. Leaves nothing for autovacuum to do, whose CPU time would count for what is measured next."""
    sets = [_parameters(number) for number in range(max(CONNECTIONS, items // SET_ITEMS))]
    waiting = list(sets)
    lock = threading.Lock()
    ready = threading.Barrier(CONNECTIONS + 1)

    def write() -> None:
        connection = psycopg2.connect(url)
        ready.wait()
        while True:
            with lock:
                if not waiting:
                    break
                parameters = waiting.pop()
            with connection, connection.cursor() as cursor:
                cursor.execute(_SET, parameters)
        connection.close()

    threads = [threading.Thread(target=write) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    rate = len(sets) * SET_ITEMS / (time.perf_counter() - began)
    engine = open_engine(Settings(database_url=SecretStr(url)).owner_url, application_name="bulkreg bench")
    settle(engine)
    engine.dispose()
    return rate


_FIRST_DAY = date(1950, 1, 1)


def _parameters(number: int) -> _Parameters:
    batches = [new_batch_id() for _ in range(SET_ITEMS // BATCH_ITEMS)]
    ids = [DerivedIds(batch) for batch in batches]
    rows = [(index, position) for index in range(len(batches)) for position in range(BATCH_ITEMS)]
    # A day has 10,000 mentors' activities, as in the product's own load. Each measurement uses new days.
    run_day = _FIRST_DAY + timedelta(days=time.time_ns() // 1_000_000 % 20_000)
    return {
        "batch_items": BATCH_ITEMS,
        "batches": [str(batches[index]) for index, _ in rows],
        "positions": [position for _, position in rows],
        "items": [str(ids[index].item_id(position)) for index, position in rows],
        "activities": [ids[index].activity_id(position) for index, position in rows],
        "mentors": [f"mentor-{number}-{place}-{batches[0].hex[-6:]}" for place in range(SET_ITEMS)],
        "days": [run_day.isoformat()] * SET_ITEMS,
    }
