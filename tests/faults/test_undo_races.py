"""Row 58 of the fault catalogue: a revocation, and another change of the same records at the same time."""

import itertools
from collections.abc import Set
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches import operations
from orchestrator.batches.model import NewItem, RetryRequest
from orchestrator.process.settings import Settings
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.faults.every_interleaving import run_every_interleaving
from tests.support.pipeline import ADMIN, Pipeline, item
from tests.support.revoking import revoke, revoke_one

_days = (date(2021, 1, 1) + timedelta(days=number) for number in itertools.count())

# Among the living activities of one key, exactly one is not marked as an override.
_WRONG_KEYS = text("""
    SELECT attributed_to, count(*) FILTER (WHERE NOT overrides_duplicate) FROM registration.activity
    WHERE activity_date = :day AND revoked_at IS NULL
    GROUP BY attributed_to HAVING count(*) FILTER (WHERE NOT overrides_duplicate) <> 1
""")
_REVOKED = text("SELECT count(*) FROM registration.activity WHERE batch_id = :batch_id AND revoked_at IS NOT NULL")


class Scene:
    """A batch of three items, one of which failed; an optional batch that overrides it; and two whose commands wait for registration."""

    def __init__(self, pipeline: Pipeline, *, is_overridden: bool) -> None:
        self.pipeline, self.day = pipeline, next(_days)
        self.batch_id = pipeline.submit(self._items())
        pipeline.drain()
        if is_overridden:
            pipeline.submit(self._items(overriding=True))
            pipeline.drain()
        self.plain, self._plain_commands = self._waiting(overriding=False)
        self.overriding, self._overriding_commands = self._waiting(overriding=True)
        self.answers: list[int] = []
        """How many activities of the first batch each call reported as revoked."""

    def _items(self, *, overriding: bool = False) -> list[NewItem]:
        items = [item(name, day=self.day) for name in ("mentor-1", "nobody", "mentor-2")]
        return [NewItem(each.values._replace(override_duplicates=overriding)) for each in items]

    def _waiting(self, *, overriding: bool) -> tuple[UUID, list[OutgoingEvent]]:
        batch_id = self.pipeline.submit(self._items(overriding=overriding))
        self.pipeline.relay()
        self.pipeline.handle(self.pipeline.splitter, self.pipeline.take(Topic.BATCHES))
        return batch_id, self.pipeline.take(Topic.COMMANDS)

    def revoke(self) -> None:
        self.answers.append(revoke(self.pipeline, self.batch_id, actor=ADMIN).revoked)

    def revoke_one(self) -> None:
        activity_id = UUID(DerivedIds(self.batch_id).activity_id(2))
        self.answers.append(int(not revoke_one(self.pipeline, activity_id, actor=ADMIN).was_revoked_before))

    def register(self) -> None:
        self.pipeline.handle(self.pipeline.registration, self._plain_commands)

    def override(self) -> None:
        self.pipeline.handle(self.pipeline.registration, self._overriding_commands)

    def retry(self) -> None:
        self.pipeline.call(operations.retry_failed_items, ADMIN, self.batch_id, RetryRequest())

    def delete(self) -> None:
        self.pipeline.call(operations.delete_batch, ADMIN, self.batch_id)

    def judge(self, watcher: Connection, done: Set[str], story: str) -> None:
        """What each caller was told agrees with what is visible after everything has been processed."""
        self.pipeline.drain()
        assert watcher.execute(_WRONG_KEYS, {"day": self.day}).all() == [], story
        revoked = watcher.execute(_REVOKED, {"batch_id": self.batch_id}).scalar_one()
        assert revoked == sum(self.answers), f"{story}: {revoked} are revoked, but the calls reported {self.answers}"
        if "revoke" in done:
            assert revoked == 2, f"{story}: some activities are not revoked"
        if "delete" not in done:
            view = self.pipeline.status(self.batch_id)
            assert (view.batch.revoked, view.batch.counts.completed) == (revoked, 2), story
            assert [each.attempt for each in view.items] == [1, 2 if "retry" in done else 1, 1], story
        if "override" in done:
            assert self.pipeline.status(self.overriding).batch.counts.completed == 2, story


@pytest.mark.parametrize("rival", ["revoke", "revoke_one", "register", "override", "retry", "delete"])
def test_row_58_another_change_before_each_statement_of_a_revocation_and_the_reverse(
    pipeline: Pipeline, settings: Settings, engine: Engine, rival: str
) -> None:
    run_every_interleaving(
        pipeline, settings, engine, ("revoke", rival), lambda _: Scene(pipeline, is_overridden=rival != "override"), least=5
    )
