"""The directory of an organization reads the same whatever others have, also to a role from which row level security hides nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches.model import Actor, ItemError, ItemValues, Role
from orchestrator.directory.reading import DirectoryReader, MentorFilter, Page, Place
from tests.support.pipeline import DAY
from tests.support.plans import without_indexes

OURS = "b-ours"
TABLES = ("organization", "mentor", "coordinator", "coordinator_scope", "activity_type", "chapter", "activity")

# Each organization has names and chapters of its own, and the same ids of people, types and one chapter.
FILL = """
    INSERT INTO registration.organization VALUES (:o, 'Organization ' || :o, :zone, :closed);
    INSERT INTO registration.mentor VALUES (:o, 'm-1', 'First ' || :o, :o || '-north'), (:o, 'm-2', 'Second ' || :o, 'south');
    INSERT INTO registration.coordinator VALUES (:o, 'k-1', 'Boss ' || :o, :role), (:o, 'k-2', 'Other ' || :o, 'coordinator');
    INSERT INTO registration.coordinator_scope VALUES (:o, 'k-1', :o || '-scope'), (:o, 'k-2', :o || '-north'), (:o, 'k-2', :o || '-east');
    INSERT INTO registration.activity_type VALUES (:o, 'visit', 'Visit ' || :o, 60, :minimum);
    INSERT INTO registration.chapter VALUES (:o, 'south', 'South ' || :o), (:o, :o || '-named', 'Named ' || :o)
"""
ACTIVITY = """
    INSERT INTO registration.activity (activity_id, organization_id, attributed_to, registered_by, activity_type, activity_date,
                                       duration_minutes, batch_id, item_id, created_at, chapter_id)
    VALUES (:id, :o, 'm-1', 'k-2', 'visit', :day, 60, gen_random_uuid(), gen_random_uuid(), '2026-03-25T12:00:00Z', 'south')
"""


def activity_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012}"


def everything(connection: Connection) -> dict[str, Any]:
    """What the readers of our organization get, and its coordinator, who has a scope."""
    reader = DirectoryReader(connection)
    found: dict[str, Any] = {}
    errors = [ItemError("duplicate_activity", "", retryable=False, conflicting_activity_id=activity_id(n)) for n in range(3)]
    values = [ItemValues("m-1", "visit", DAY, 60, None), ItemValues("m-2", "none", DAY, 60, None)]
    for actor in (Actor(OURS, "k-1", Role.ADMIN), Actor(OURS, "k-2", Role.COORDINATOR)):
        found[actor.subject] = (
            reader.organization(OURS, actor.subject),
            reader.mentors(actor, MentorFilter(), Place()),
            reader.chapters(actor, None, Place()),
            reader.activity_types(actor, Place()),
            reader.names(actor, values, errors),
        )
    admin = Actor(OURS, "k-1", Role.ADMIN)
    for coordinator_id in ("k-1", "k-2"):
        found[f"scope of {coordinator_id}"] = (
            reader.mentors(admin, MentorFilter(coordinator_id=coordinator_id), Place()),
            reader.chapters(admin, coordinator_id, Place()),
        )
    found["searched"] = reader.mentors(admin, MentorFilter(q="first"), Place()), reader.coordinators(admin, "other", Place())
    found["others"] = reader.coordinators(admin, None, Place()), reader.minimum_minutes(OURS, ["visit"])
    return found


def test_what_other_organizations_have_makes_no_difference(engine: Engine) -> None:
    settings: dict[str, dict[str, Any]] = {
        "a-before": {"zone": "Pacific/Kiritimati", "closed": "2026-01-31", "role": "admin", "minimum": 10},
        OURS: {"zone": "Europe/Oslo", "closed": None, "role": "coordinator", "minimum": None},
        "c-behind": {"zone": "Pacific/Pago_Pago", "closed": "2026-02-28", "role": "closed", "minimum": 20},
    }
    with engine.connect() as connection:
        for number, (organization, values) in enumerate(settings.items()):
            for statement in FILL.split(";\n"):
                used = {name: value for name, value in (values | {"o": organization}).items() if f":{name}" in statement}
                connection.execute(text(statement), used)
            connection.execute(text(ACTIVITY), {"id": activity_id(number), "o": organization, "day": DAY})
        beside_others = everything(connection)
        for table in TABLES:
            connection.execute(text(f"DELETE FROM registration.{table} WHERE organization_id <> :o"), {"o": OURS})
        alone = everything(connection)
    assert beside_others == alone
    mentors = alone["k-1"][1].rows
    assert [(one.mentor_id, one.name) for one in mentors] == [("m-1", f"First {OURS}"), ("m-2", f"Second {OURS}")]
    assert [one.chapter_id for one in alone["k-2"][2].rows] == [f"{OURS}-east", f"{OURS}-north"]
    assert list(alone["k-1"][4].registrations) == [activity_id(1)]


def test_only_what_is_asked_for_is_read(engine: Engine) -> None:
    """The callers ignore other names, so only the time would show that more are read: it grows with the organization."""
    with engine.connect() as connection:
        for statement in (
            "mentor VALUES (:o, 'm-1', 'First', 'south'), (:o, 'm-2', 'Second', 'south')",
            "activity_type VALUES (:o, 'visit', 'Visit', 60, 10), (:o, 'walk', 'Walk', 60, 20)",
        ):
            connection.execute(text(f"INSERT INTO registration.{statement}"), {"o": OURS})
        for number in (1, 2):
            connection.execute(text(ACTIVITY), {"id": activity_id(number), "o": OURS, "day": DAY.replace(day=number)})
        reader = DirectoryReader(connection)
        errors = [ItemError("duplicate_activity", "", retryable=False, conflicting_activity_id=activity_id(1))]
        names = reader.names(Actor(OURS, "k-1", Role.ADMIN), [ItemValues("m-1", "visit", DAY, 60, None)], errors)
        assert (names.mentors, names.activity_types) == ({"m-1": "First"}, {"visit": "Visit"})
        assert list(names.registrations) == [activity_id(1)]
        assert reader.minimum_minutes(OURS, ["visit"]) == {"visit": 10}


# Each listing with the ids that it has, wherever their rows lie. Chapters come from mentors, scopes and names.
SHUFFLED = (3, 0, 4, 2, 1)
LISTINGS: dict[str, Callable[[DirectoryReader, Actor, Place], Page[Any]]] = {
    "mentor_id": lambda reader, actor, place: reader.mentors(actor, MentorFilter(), place),
    "chapter_id": lambda reader, actor, place: reader.chapters(actor, None, place),
    "activity_type": lambda reader, actor, place: reader.activity_types(actor, place),
    "coordinator_id": lambda reader, actor, place: reader.coordinators(actor, None, place),
}


@pytest.mark.parametrize("id_of", LISTINGS)
def test_pages_are_in_the_order_of_their_ids_wherever_the_rows_lie(engine: Engine, id_of: str) -> None:
    """Neither an index nor the way in which duplicates are removed puts them in order."""
    inserts = (
        "mentor (organization_id, mentor_id, name, chapter_id) VALUES (:o, 'id-' || :n, 'x', 'id-' || :n)",
        "activity_type (organization_id, activity_type, name) VALUES (:o, 'id-' || :n, 'x')",
        "coordinator (organization_id, coordinator_id, name, role) VALUES (:o, 'id-' || :n, 'x', 'admin')",
    )
    actor = Actor(OURS, "id-0", Role.ADMIN)
    with engine.connect() as connection:
        for number in SHUFFLED:
            for insert in inserts:
                connection.execute(text(f"INSERT INTO registration.{insert}"), {"o": OURS, "n": str(number)})
        without_indexes(connection)
        connection.execute(text("SET LOCAL enable_sort = off"))
        reader = DirectoryReader(connection)
        for limit in range(1, len(SHUFFLED) + 2):
            shown: list[str] = []
            place: Place | None = Place(limit=limit)
            while place is not None:
                page = LISTINGS[id_of](reader, actor, place)
                assert len(page.rows) <= limit
                shown += [getattr(row, id_of) for row in page.rows]
                assert len(shown) <= len(SHUFFLED), shown
                place = None if page.next_after is None else Place(page.next_after, limit)
            assert shown == [f"id-{number}" for number in range(len(SHUFFLED))]
