"""Row 70 of the fault catalogue: notes are erased while something copies them."""

import itertools
from collections.abc import Set
from datetime import date, timedelta

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches import operations
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.process.settings import Settings
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.faults.every_interleaving import run_every_interleaving
from tests.support.erasing import erase
from tests.support.pipeline import ADMIN, Pipeline, item
from tests.support.revoking import revoke

_days = (date(2022, 1, 1) + timedelta(days=number) for number in itertools.count())

_HELD = text("""
    SELECT notes FROM orchestrator.batch_item WHERE batch_id = :batch_id AND notes IS NOT NULL
    UNION ALL SELECT notes FROM registration.activity WHERE batch_id = :batch_id AND notes IS NOT NULL
    UNION ALL SELECT submitted ->> 'notes' FROM orchestrator.item_history WHERE batch_id = :batch_id AND submitted ->> 'notes' IS NOT NULL
    UNION ALL SELECT correction ->> 'notes' FROM orchestrator.item_history WHERE batch_id = :batch_id AND correction ->> 'notes' IS NOT NULL
""")
_OLD = "seen at the hospital"


class Scene:
    """A batch whose first item waits for registration, and whose second item failed."""

    def __init__(self, pipeline: Pipeline, kind: str) -> None:
        self.pipeline, self.position = pipeline, 1 if kind == "retry" else 0
        day = next(_days)
        self.batch_id = pipeline.submit([item("mentor-1", day=day, notes=_OLD), item("nobody", day=day, notes=_OLD)])
        pipeline.relay()
        pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
        self._commands: list[OutgoingEvent] = []
        waiting = pipeline.take(Topic.COMMANDS)
        if kind == "register":
            self._commands, waiting = waiting, []
        pipeline.handle(pipeline.registration, waiting)
        if kind in ("retry", "revoke"):
            pipeline.handle(pipeline.aggregator, pipeline.take(Topic.RESULTS))

    def erase(self) -> None:
        erase(self.pipeline, self.batch_id, self.position, actor=ADMIN)

    def register(self) -> None:
        self.pipeline.handle(self.pipeline.registration, self._commands)

    def fold(self) -> None:
        self.pipeline.handle(self.pipeline.aggregator, self.pipeline.take(Topic.RESULTS))

    def retry(self) -> None:
        correction = CorrectedItem(DerivedIds(self.batch_id).item_id(1), {"mentor_id": "mentor-2"})
        self.pipeline.call(operations.retry_failed_items, ADMIN, self.batch_id, RetryRequest(corrections=[correction]))

    def revoke(self) -> None:
        revoke(self.pipeline, self.batch_id, actor=ADMIN)

    def judge(self, watcher: Connection, _done: Set[str], story: str) -> None:
        self.pipeline.drain()
        erase(self.pipeline, self.batch_id, 1 - self.position, actor=ADMIN)
        held = watcher.execute(_HELD, {"batch_id": self.batch_id}).scalars().all()
        assert held == [], f"{story}: {held}"


@pytest.mark.parametrize("rival", ["register", "fold", "retry", "revoke"])
def test_row_70_no_interleaving_keeps_a_copy_of_erased_notes(
    pipeline: Pipeline, settings: Settings, engine: Engine, rival: str
) -> None:
    run_every_interleaving(pipeline, settings, engine, ("erase", rival), lambda _: Scene(pipeline, rival), least=2)
