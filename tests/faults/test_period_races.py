"""Row 63 of the fault catalogue: a period is closed while its records are registered, retried, revoked; and a crash in between."""

import itertools
from collections.abc import Set
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches import operations
from orchestrator.batches.model import NewItem, RetryRequest
from orchestrator.process.settings import Settings
from orchestrator.verification.verify import verify
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.faults.every_interleaving import looking, run_every_interleaving
from tests.simulation.interleaving import Crash, Run, mark_statements
from tests.support.closing import close
from tests.support.pipeline import ADMIN, Pipeline, item
from tests.support.revoking import revoke, revoke_one

_days = (date(2021, 1, 1) + timedelta(days=number) for number in itertools.count())

_RECORDS = text("SELECT activity_id, revoked_at FROM registration.activity WHERE activity_date = :day ORDER BY activity_id")


class Scene:
    """A batch with two records and a failed item, and one whose commands wait for registration. The day of both is open."""

    def __init__(self, pipeline: Pipeline, watcher: Connection, *, overriding: bool = False) -> None:
        self.pipeline, self.watcher, self.day = pipeline, watcher, next(_days)
        close(pipeline, None)
        self.batch_id = pipeline.submit(self._items("mentor-1", "nobody", "mentor-2"))
        pipeline.drain()
        second = self._items("mentor-1", "mentor-2", overriding=True) if overriding else self._items("mentor-3", "mentor-4")
        self._commands = self._waiting(second)
        self.at_closing: list[Any] | None = None
        """The records of the period when the call that closed it returned."""

    def _items(self, *names: str, overriding: bool = False) -> list[NewItem]:
        items = [item(name, day=self.day) for name in names]
        return [NewItem(each.values._replace(override_duplicates=overriding)) for each in items]

    def _waiting(self, items: list[NewItem]) -> list[OutgoingEvent]:
        self.pipeline.submit(items)
        self.pipeline.relay()
        self.pipeline.handle(self.pipeline.splitter, self.pipeline.take(Topic.BATCHES))
        return self.pipeline.take(Topic.COMMANDS)

    def records(self) -> list[Any]:
        return list(self.watcher.execute(_RECORDS, {"day": self.day}).all())

    def close(self) -> None:
        close(self.pipeline, self.day)
        self.at_closing = self.records()

    def register(self) -> None:
        self.pipeline.handle(self.pipeline.registration, self._commands)

    override = register

    def forge(self) -> None:
        """Somebody has written the commands, and they name another organization than their batch has."""
        self._commands = [each._replace(value=each.value.replace(b"org-standard", b"org-another")) for each in self._commands]
        self.register()

    def retry(self) -> None:
        self.pipeline.call(operations.retry_failed_items, ADMIN, self.batch_id, RetryRequest())

    def revoke(self) -> None:
        revoke(self.pipeline, self.batch_id, actor=ADMIN)

    def revoke_one(self) -> None:
        revoke_one(self.pipeline, UUID(DerivedIds(self.batch_id).activity_id(2)), actor=ADMIN)

    def judge(self, _watcher: Connection, _done: Set[str], story: str) -> None:
        assert self.at_closing is not None, f"{story}: the period was not closed"
        self.pipeline.drain()
        assert self.records() == self.at_closing, story


@pytest.mark.parametrize(
    "rival",
    [
        "register",
        "override",
        "forge",
        "revoke",
        pytest.param("revoke_one", marks=pytest.mark.full),
        pytest.param("retry", marks=pytest.mark.full),
        pytest.param("close", marks=pytest.mark.full),
    ],
)
def test_row_63_once_a_period_is_closed_nothing_in_it_changes(
    pipeline: Pipeline, settings: Settings, engine: Engine, rival: str
) -> None:
    run_every_interleaving(
        pipeline,
        settings,
        engine,
        ("close", rival),
        lambda watcher: Scene(pipeline, watcher, overriding=rival == "override"),
        least=3,
    )


def test_row_63_a_crash_while_the_period_is_closed_leaves_it_open_or_closed_with_its_history_and_its_event(
    pipeline: Pipeline, settings: Settings, engine: Engine
) -> None:
    mark_statements(pipeline.api)
    with looking(engine) as watcher:
        for stop_at in itertools.count():
            scene = Scene(pipeline, watcher)
            pipeline.take(Topic.LIFECYCLE)
            run = Run("close", scene.close, stop_at=stop_at, crash=True)
            run.inline()
            scene.register()
            pipeline.drain()
            told = len(pipeline.take(Topic.LIFECYCLE))
            assert isinstance(run.error, Crash | None)
            is_closed = scene.at_closing is not None
            last = watcher.execute(text("SELECT closed_through FROM registration.organization")).scalar_one()
            assert (last == scene.day) is is_closed, run.stopped_at
            assert len(scene.records()) == (2 if is_closed else 4), run.stopped_at
            # The two of the completed batch, and the period's own.
            assert told == 1 + is_closed, run.stopped_at
            if not run.stopped_at:
                break
    assert verify(engine, settings).breaches == []
