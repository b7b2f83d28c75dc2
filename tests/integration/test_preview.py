"""A preview predicts the outcomes by the same rules, and a submission can require that they still hold (docs/http.md, Preview and plan)."""

from datetime import date, timedelta
from functools import partial
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from orchestrator.batches.errors import PlanChangedError, PlanDifference
from orchestrator.batches.model import ItemValues, NewBatch, NewItem
from orchestrator.batches.operations import submit_bulk_registration
from orchestrator.process.settings import EARLIEST_YEAR
from orchestrator.registration.in_process import InProcessPrediction
from orchestrator.registration.preview import Planner, Preview
from orchestrator.storage.database import transact
from orchestrator.storage.repository import PostgresActivityRepository
from schemas.ids import new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item

PLANNER = Planner("k" * 32)


def new_batch(items: list[NewItem], coordinator: str = COORDINATOR) -> NewBatch:
    return NewBatch(new_batch_id(), coordinator, None, False, items, "1" * 32)


def prediction(connection: Connection) -> InProcessPrediction:
    return InProcessPrediction(connection, EARLIEST_YEAR)


def preview(pipeline: Pipeline, batch: NewBatch) -> Preview:
    return transact(
        pipeline.api,
        lambda connection: PLANNER.preview(PostgresActivityRepository(connection), prediction(connection), ADMIN, batch),
        organizations=[ORGANIZATION],
    )


def submit_with(pipeline: Pipeline, batch: NewBatch, plan: str) -> None:
    def work(connection: Connection) -> None:
        repository = PostgresActivityRepository(connection)
        hold_to_plan = partial(PLANNER.hold_to, plan, repository, prediction(connection), ADMIN)
        submit_bulk_registration(repository, ADMIN, batch, hold_to_plan=hold_to_plan)

    transact(pipeline.api, work, organizations=[ORGANIZATION])


def rows(pipeline: Pipeline, table: str) -> int:
    with pipeline.engine.begin() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_a_preview_writes_nothing(pipeline: Pipeline) -> None:
    told = preview(pipeline, new_batch([item("mentor-1"), item("nobody")]))
    assert [error and error.code for error in told.errors] == [None, "mentor_not_found"]
    assert rows(pipeline, "orchestrator.batch") == rows(pipeline, "orchestrator.outbox") == 0


def test_a_plan_that_still_holds_is_accepted_and_stored(pipeline: Pipeline) -> None:
    batch = new_batch([item("mentor-1"), item("nobody")])
    submit_with(pipeline, batch, preview(pipeline, batch).plan)
    pipeline.drain()
    view = pipeline.status(batch.batch_id)
    assert [(one.planned, one.plan_changed) for one in view.items] == [("success", False), ("mentor_not_found", False)]


def test_a_plan_that_no_longer_holds_is_refused_with_its_differences(pipeline: Pipeline) -> None:
    batch = new_batch([item("mentor-1"), item("mentor-2")])
    plan = preview(pipeline, batch).plan
    pipeline.submit([item("mentor-2")])
    pipeline.drain()
    with pytest.raises(PlanChangedError) as refused:
        submit_with(pipeline, batch, plan)
    assert refused.value.differences == (PlanDifference(1, "mentor-2", "success", "duplicate_activity"),)
    assert rows(pipeline, "orchestrator.batch") == 1


def test_a_change_after_acceptance_is_marked(pipeline: Pipeline) -> None:
    batch = new_batch([item("mentor-1")])
    submit_with(pipeline, batch, preview(pipeline, batch).plan)
    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE registration.mentor SET active_until = '2020-01-01' WHERE mentor_id = 'mentor-1'"))
    pipeline.drain()
    [one] = pipeline.status(batch.batch_id).items
    assert (one.status, one.plan_changed) == ("failed", True)


_worlds = count()
_today = date.today


def _dates() -> st.SearchStrategy[date]:
    return st.integers(-40, 3).map(lambda days: _today() + timedelta(days=days))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_the_preview_of_random_submissions_equals_their_outcomes(pipeline: Pipeline, data: st.DataObject) -> None:
    world = next(_worlds)
    chapters = [f"chapter-{world}-{letter}" for letter in "ab"]
    coordinator = f"coordinator-{world}"
    people = [f"mentor-{world}-{number}" for number in range(6)]
    with pipeline.engine.begin() as connection:
        connection.execute(
            text("INSERT INTO registration.coordinator VALUES (:o, :c, 'C', :role)"),
            {"o": ORGANIZATION, "c": coordinator, "role": data.draw(st.sampled_from(["coordinator", "coordinator", "admin"]))},
        )
        for chapter in data.draw(st.sets(st.sampled_from(chapters))):
            connection.execute(
                text("INSERT INTO registration.coordinator_scope VALUES (:o, :c, :chapter)"),
                {"o": ORGANIZATION, "c": coordinator, "chapter": chapter},
            )
        for person in people[:5]:
            connection.execute(
                text("INSERT INTO registration.mentor VALUES (:o, :m, 'M', :chapter, :active_from, :active_until)"),
                {
                    "o": ORGANIZATION,
                    "m": person,
                    "chapter": data.draw(st.sampled_from(chapters)),
                    "active_from": data.draw(st.none() | _dates()),
                    "active_until": data.draw(st.none() | _dates()),
                },
            )
    values = st.builds(
        ItemValues,
        mentor_id=st.sampled_from(people),
        activity_type=st.sampled_from(["visit", "visit", "visit", "unknown"]),
        activity_date=_dates(),
        duration_minutes=st.sampled_from([0, 1, 60, 1440, 1441]),
        notes=st.sampled_from([None, "short", "x" * 2000, "x" * 2001]),
        override_duplicates=st.booleans(),
    )
    for _ in range(data.draw(st.integers(1, 3))):
        drawn = data.draw(st.lists(values, min_size=1, max_size=8, unique_by=lambda value: value.identity))
        batch = new_batch([NewItem(value) for value in drawn], coordinator)
        told = preview(pipeline, batch)
        submit_with(pipeline, batch, told.plan)
        pipeline.drain()
        happened = pipeline.status(batch.batch_id).items
        assert [one.error for one in happened] == list(told.errors)
        assert not any(one.plan_changed for one in happened)
