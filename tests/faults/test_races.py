"""Rows 21, 28, 30 and 32 of the fault catalogue: events that come late, twice, at the same time, or in the wrong order."""

import ast
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches import operations
from orchestrator.batches.errors import OperationError
from orchestrator.batches.model import RetryRequest, StatusView
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.verification.verify import verify
from schemas.envelope import OutgoingEvent, Topic
from tests.faults.every_interleaving import interleave, looking
from tests.faults.roles import assert_exactly_once, count, expanded
from tests.simulation.interleaving import mark_statements
from tests.support.pipeline import ADMIN, Pipeline, item, mentors, record
from tests.support.upstream import submitted, upstream_item
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


# --- Row 21 -----------------------------------------------------------------------------------------------------------------


def test_row_21_late_message_after_the_dedup_rows_are_gone(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """As after a restore, the items are pending again and have no outcomes. Their activities show that they were registered, even if the
    rules would refuse the mentors now."""
    batch_id = pipeline.submit(mentors(5))
    commands = expanded(pipeline, batch_id)
    results = pipeline.handle(pipeline.registration, commands).events
    pipeline.drain()
    before = [one.activity_id for one in pipeline.status(batch_id).items]
    with engine.begin() as connection:
        for statement in (
            "DELETE FROM orchestrator.outcome",
            "UPDATE orchestrator.batch_item SET status = 'pending', activity_id = NULL",
            "UPDATE orchestrator.batch SET status = 'processing', pending = 5, completed = 0, completed_at = NULL",
            "UPDATE registration.mentor SET active_until = '2020-01-01' WHERE mentor_id = 'mentor-2'",
        ):
            connection.execute(text(statement))
    pipeline.forget_what_was_published()
    again = pipeline.handle(pipeline.registration, commands).events
    pipeline.drain()
    assert [dict(e.headers)["ce_id"] for e in again] == [dict(e.headers)["ce_id"] for e in results]
    assert [one.activity_id for one in pipeline.status(batch_id).items] == before
    assert_exactly_once(engine, settings, activities=5)


# --- Row 28 -----------------------------------------------------------------------------------------------------------------


def test_row_28_two_aggregators_fold_the_same_shuffled_results(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    shuffle = random.Random(28)
    # A result that arrives before its batch is put aside, and has no effect when the batch arrives.
    early = uuid4()
    event = submitted(early, [upstream_item(n, f"mentor-{61 + n}") for n in range(3)])
    batches = [pipeline.submit([*mentors(10, first=1 + 10 * number), item("nobody")]) for number in range(5)]
    commands = expanded(pipeline, batches[0])
    results = list(pipeline.handle(pipeline.registration, commands).events)
    before = [OutgoingEvent(Topic.RESULTS, each.key, each.headers, renamed(each, batches[0], early)) for each in results[:3]]
    pipeline.handle(pipeline.aggregator, before)
    assert pipeline.refused == [("aggregator", "no_such_outcome")] * 3
    pipeline.queues[Topic.BATCHES].append(event)
    piles = [shuffle.sample(results, len(results)) + shuffle.sample(results, 20) for _ in range(2)]
    meet = threading.Barrier(2)

    def fold(pile: list[OutgoingEvent]) -> None:
        for first in range(0, len(pile), 15):
            records = [record(each, offset) for offset, each in enumerate(pile[first : first + 15])]
            meet.wait(PATIENCE_S)
            transact(pipeline.engine, partial(pipeline.aggregator.handle, records=records))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(fold, piles))
    for batch_id in batches:
        batch = pipeline.status(batch_id).batch
        assert (batch.status, batch.counts.completed, batch.counts.failed) == ("partial", 10, 1)
    pipeline.relay()
    assert len(pipeline.take(Topic.LIFECYCLE)) == len(batches), "each batch must have one completion event"
    pipeline.drain()
    assert pipeline.status(early).batch.counts.completed == 3
    assert_exactly_once(engine, settings, activities=53)


def renamed(event: OutgoingEvent, batch_id: UUID, other: UUID) -> bytes:
    """The value of a result of another batch."""
    return event.value.replace(str(batch_id).encode(), str(other).encode())


# --- Row 30 -----------------------------------------------------------------------------------------------------------------

_days = (date(2020, 1, 1) + timedelta(days=number) for number in itertools.count())


class Scene:
    """A batch of three items, one of which fails, and the changes that people and consumers make to it."""

    def __init__(self, pipeline: Pipeline, *, registered: bool) -> None:
        day = next(_days)
        self.pipeline = pipeline
        self.batch_id = pipeline.submit([item("mentor-1", day=day), item("nobody", day=day), item("mentor-2", day=day)])
        self.commands = expanded(pipeline, self.batch_id)
        self.results: list[OutgoingEvent] = []
        if registered:
            self.results = list(pipeline.handle(pipeline.registration, self.commands).events)
            pipeline.take(Topic.RESULTS)

    def register(self) -> None:
        self.pipeline.handle(self.pipeline.registration, self.commands)

    def fold(self) -> None:
        self.pipeline.handle(self.pipeline.aggregator, self.results)

    def cancel(self) -> None:
        self.pipeline.call(operations.cancel_batch, ADMIN, self.batch_id, None)

    def retry(self) -> None:
        self.pipeline.call(operations.retry_failed_items, ADMIN, self.batch_id, RetryRequest())

    def delete(self) -> None:
        self.pipeline.call(operations.delete_batch, ADMIN, self.batch_id)

    def seen(self) -> StatusView | None:
        """What a reader sees after everything has been processed."""
        self.pipeline.drain()
        try:
            return self.pipeline.status(self.batch_id)
        except OperationError:
            return None

    def judge(self, _watcher: Connection, done: Set[str], story: str) -> None:
        """A change that was reported as done is visible at the end."""
        view = self.seen()
        activities = count(self.pipeline.engine, f"registration.activity WHERE batch_id = '{self.batch_id}'")
        if "delete" in done:
            assert view is None, f"{story}: the deleted batch is visible again"
            assert activities == 2, f"{story}: the delete changed activities"
            return
        assert view is not None, story
        assert view.batch.counts.pending == 0, story
        assert activities == view.batch.counts.completed, f"{story}: an item was cancelled and registered"
        if "cancel" in done:
            assert view.batch.status == "cancelled", story
        elif "retry" in done:
            assert [one.attempt for one in view.items] == [1, 2, 1], story


RACES = [
    ("register", "cancel"),
    ("fold", "cancel"),
    ("fold", "retry"),
    ("retry", "cancel"),
    ("retry", "delete"),
    ("fold", "delete"),
]


def test_row_30_one_stops_before_each_of_its_statements_and_the_other_comes_between(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    """Every interleaving with one change of turns: the other runs completely, or as far as a lock lets it."""
    mark_statements(pipeline.engine)
    mark_statements(pipeline.api)
    with looking(engine) as watcher:
        for one, other in [*RACES, *((other, one) for one, other in RACES)]:
            stops = interleave(partial(scene_for, pipeline, one, other), one, other, watcher)
            assert stops >= 3, f"{one} was not interrupted by {other}"
    assert verify(engine, settings).breaches == []


def scene_for(pipeline: Pipeline, one: str, other: str, _watcher: Connection) -> Scene:
    scene = Scene(pipeline, registered="register" not in (one, other))
    if "delete" in (one, other):
        scene.fold()
    return scene


# --- Row 32 -----------------------------------------------------------------------------------------------------------------

# These use the machine's clock for cached tokens, metrics, the first bits of a new batch's id, the times of spans, and what is signed for
# another machine to check at once. Nothing depends on them but the order of ids.
CLOCKS_OF_OUR_OWN = {
    ("api/access/tokens.py", "time.time"),
    ("api/access/tickets.py", "time.time"),
    ("api/access/authentication.py", "time.time"),
    ("api/console/client_key.py", "time.time"),
    ("api/endpoints/events.py", "time.time"),
    ("consumers/notifying/sending.py", "datetime.now"),
    ("orchestrator/process/tracing.py", "time.time_ns"),
    ("consumers/loop/processing.py", "time.time"),
    ("schemas/ids.py", "time.time_ns"),
}
WALL_CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.localtime",
    "time.gmtime",
    "datetime.now",
    "datetime.utcnow",
    "date.today",
    "datetime.today",
}


def test_row_32_the_time_comes_from_the_database() -> None:
    asked = {
        (str(file.relative_to(ROOT)), name)
        for folder in ("schemas", "orchestrator", "producers", "consumers", "api")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in WALL_CLOCKS
    }
    assert asked - CLOCKS_OF_OUR_OWN == set()


def jumping(now: Callable[[], int]) -> Iterator[int]:
    """A clock that is years ahead, then years behind, then right."""
    for years in itertools.cycle((3, -3, 0)):
        yield now() + years * 365 * 86_400 * 10**9


def test_row_32_a_clock_that_jumps_changes_no_order(
    pipeline: Pipeline, settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = jumping(time.time_ns)
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    monkeypatch.setattr(time, "time", lambda: next(clock) / 1e9)
    batches = []
    for number in range(6):
        batches.append(pipeline.submit(mentors(5, first=1 + 5 * number)))
        pipeline.drain()
    with engine.begin() as connection:
        out_of_order = text("""
            SELECT count(*) FROM orchestrator.batch b JOIN orchestrator.outcome o USING (batch_id) JOIN registration.activity a USING (batch_id)
            WHERE NOT (b.submitted_at <= o.created_at AND o.created_at <= b.completed_at AND a.created_at <= b.completed_at
                       AND b.completed_at <= clock_timestamp() AND b.submitted_at > clock_timestamp() - interval '1 hour')
        """)
        assert connection.execute(out_of_order).scalar_one() == 0
        in_order = connection.scalars(text("SELECT batch_id FROM orchestrator.batch ORDER BY submitted_at"))
        assert list(in_order) == batches
    assert_exactly_once(engine, settings, activities=30)
