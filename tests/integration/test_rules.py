"""The registration rules at their edges (docs/rules.md), and what an auditor reads about a registration."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import pytest

from orchestrator.batches.model import Actor, ItemError, NewBatch, NewItem, Role
from orchestrator.batches.operations import submit_bulk_registration
from orchestrator.process.settings import EARLIEST_YEAR
from orchestrator.registration.in_process import InProcessPrediction
from schemas.ids import new_batch_id
from tests.support.pipeline import ADMIN, COORDINATOR, ORGANIZATION, Pipeline, item, mentors
from tests.support.sql import execute, rows

EAST, WEST = "Pacific/Kiritimati", "Pacific/Pago_Pago"
"""The two ends of the earth's time zones, 25 hours apart, so their dates always differ."""

ACTIVE_FROM, ACTIVE_UNTIL = date(2026, 3, 10), date(2026, 3, 20)
ONE_DAY = timedelta(days=1)


def answers(pipeline: Pipeline, *items: NewItem) -> list[ItemError | None]:
    """The result of each item. None means success."""
    batch_id = pipeline.submit(items)
    pipeline.drain()
    return [each.error for each in pipeline.status(batch_id).items]


def tomorrow(zone: str) -> date:
    """A date in the future there, even if midnight comes while the test runs."""
    return (datetime.now(ZoneInfo(zone)) + timedelta(hours=1)).date() + ONE_DAY


def today(zone: str) -> date:
    return datetime.now(ZoneInfo(zone)).date()


@pytest.mark.parametrize(
    ("zone", "day", "is_future"),
    [
        (EAST, partial(today, EAST), False),
        (EAST, partial(tomorrow, EAST), True),
        (WEST, partial(today, WEST), False),
        (WEST, partial(today, EAST), True),
    ],
    ids=["today in the east", "tomorrow in the east", "today in the west", "today in the east, in the west"],
)
def test_today_is_in_the_organizations_time_zone(pipeline: Pipeline, zone: str, day: Callable[[], date], is_future: bool) -> None:
    execute(pipeline, "UPDATE registration.organization SET time_zone = :zone", zone=zone)
    [error] = answers(pipeline, item("mentor-1", day=day()))
    assert (error and (error.code, error.field)) == (("invalid_item", "activity_date") if is_future else None)


@pytest.mark.parametrize("year", [EARLIEST_YEAR, 1950])
def test_a_date_before_the_earliest_year_is_refused(pipeline: Pipeline, year: int) -> None:
    days = [date(year, 1, 1) - ONE_DAY, date(year, 1, 1), date(1, 1, 1)]
    items = [item("mentor-1", day=day) for day in days]
    with pipeline.engine.begin() as connection:
        foretold = InProcessPrediction(connection, year).predict(ORGANIZATION, COORDINATOR, [each.values for each in items])
    assert [error and (error.code, error.field) for error in foretold] == [
        ("invalid_item", "activity_date"),
        None,
        ("invalid_item", "activity_date"),
    ]
    if year == EARLIEST_YEAR:
        assert [error and error.message for error in answers(pipeline, *items)] == [error and error.message for error in foretold]


def test_a_mentor_of_another_organization_does_not_exist(pipeline: Pipeline) -> None:
    execute(pipeline, "INSERT INTO registration.organization VALUES ('other', 'Other', 'Europe/Oslo')")
    # With the same chapter, so that only the organization differs.
    execute(pipeline, "INSERT INTO registration.mentor VALUES ('other', 'theirs', 'Mentor', 'chapter-1')")
    theirs, nobodys = answers(pipeline, item("theirs"), item("nobody"))
    assert theirs is not None
    assert theirs.code == "mentor_not_found"
    assert theirs == nobodys


def test_a_mentor_is_active_on_the_first_and_on_the_last_day(pipeline: Pipeline) -> None:
    execute(
        pipeline,
        "UPDATE registration.mentor SET active_from = :first, active_until = :last WHERE mentor_id = 'mentor-1'",
        first=ACTIVE_FROM,
        last=ACTIVE_UNTIL,
    )
    days = (ACTIVE_FROM - ONE_DAY, ACTIVE_FROM, ACTIVE_UNTIL, ACTIVE_UNTIL + ONE_DAY)
    errors = answers(pipeline, *(item("mentor-1", day=day) for day in days))
    assert [error and error.code for error in errors] == ["mentor_inactive", None, None, "mentor_inactive"]


@pytest.mark.parametrize("is_duplicate", [False, True], ids=["plain", "overriding"])
def test_the_audit_has_who_for_whom_when_in_which_batch_and_through_which_channel(pipeline: Pipeline, is_duplicate: bool) -> None:
    if is_duplicate:
        pipeline.submit(mentors(1))
        pipeline.drain()
    values = item("mentor-1").values._replace(override_duplicates=is_duplicate)
    actor = Actor(ORGANIZATION, "the-boss", Role.ADMIN, channel="the-channel")
    batch = NewBatch(new_batch_id(), COORDINATOR, None, is_duplicate, [NewItem(values)], "1" * 32)
    pipeline.call(submit_bulk_registration, actor, batch)
    pipeline.drain()
    [registered] = pipeline.status(batch.batch_id, actor=ADMIN).items
    audit = rows(pipeline, "SELECT * FROM registration.audit ORDER BY audit_id DESC LIMIT 1")[0]
    activity = rows(pipeline, f"SELECT * FROM registration.activity WHERE batch_id = '{batch.batch_id}'")[0]
    assert {name: audit[name] for name in audit.keys() - {"audit_id"}} == {
        "organization_id": ORGANIZATION,
        "action": "registered",
        "activity_id": registered.activity_id,
        "registered_by": COORDINATOR,
        "attributed_to": "mentor-1",
        "submitted_by": "the-boss",
        "batch_id": batch.batch_id,
        "channel": "the-channel",
        "at": activity["created_at"],
        "reason": None,
        "activity_type": activity["activity_type"],
        "activity_date": activity["activity_date"],
        "duration_minutes": activity["duration_minutes"],
        "item_id": registered.item_id,
        "attempt": 1,
    }
    assert (activity["registered_by"], activity["attributed_to"]) == (COORDINATOR, "mentor-1")
    assert activity["overrides_duplicate"] is is_duplicate
