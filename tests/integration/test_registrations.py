"""The in-process registration: which rule's error is returned, which rows the rules read, who wins, and what is written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, event, text

from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.operations import submit_bulk_registration
from orchestrator.process.settings import EARLIEST_YEAR
from orchestrator.registration.external import refusal
from orchestrator.registration.in_process import _REGISTER, _REGISTER_FLAGGED, InProcessPrediction, InProcessRegistrationService
from orchestrator.registration.port import Candidate, Decision
from orchestrator.registration.rules import INTERNAL_ERROR, REGISTRATION_UNAVAILABLE, RULES
from orchestrator.storage.blame import TransientError
from schemas.envelope import Topic
from schemas.ids import DerivedIds, new_batch_id
from tests.support.pipeline import COORDINATOR, DAY, ORGANIZATION, Pipeline, item, mentors, record
from tests.support.plans import without_indexes
from tests.support.sql import execute, rows

SERVICE = InProcessRegistrationService(EARLIEST_YEAR)
AT = datetime(2026, 3, 26, 10, 11, 12, 131415, tzinfo=UTC)
FUTURE, LONG_AGO = date(2999, 1, 1), date(1989, 12, 31)
LIMIT_OF_NOTES = 2_000


def of(
    mentor: str = "mentor-1",
    *,
    kind: str = "visit",
    day: date = DAY,
    minutes: int = 60,
    notes: str | None = None,
    override: bool = False,
) -> ItemValues:
    return ItemValues(mentor, kind, day, minutes, notes, override)


@dataclass(frozen=True)
class Submitted:
    """A stored batch whose commands have not been handled."""

    batch_id: UUID

    def candidate(self, position: int) -> Candidate:
        ids = DerivedIds(self.batch_id)
        return Candidate(str(self.batch_id), position, str(ids.item_id(position)), str(ids.activity_id(position)))

    def success(self, position: int) -> Decision:
        return Decision(self.candidate(position).activity_id, None)


def submit(pipeline: Pipeline, *values: ItemValues, coordinator: str = COORDINATOR) -> Submitted:
    actor = Actor(ORGANIZATION, "the-sender", Role.SERVICE, channel="the-channel")
    batch = NewBatch(new_batch_id(), coordinator, None, False, [NewItem(each) for each in values], "1" * 32)
    pipeline.call(submit_bulk_registration, actor, batch)
    return Submitted(batch.batch_id)


def register(pipeline: Pipeline, *candidates: Candidate) -> Sequence[Decision]:
    with pipeline.engine.begin() as connection:
        return SERVICE.register(connection, candidates, AT)


def refusals(pipeline: Pipeline, *values: ItemValues, coordinator: str = COORDINATOR) -> list[tuple[str, str | None] | None]:
    """The code and field of each item's error. Checks that the preview and the registration agree."""
    with pipeline.engine.begin() as connection:
        foretold = InProcessPrediction(connection, EARLIEST_YEAR).predict(ORGANIZATION, coordinator, values)
    batch = submit(pipeline, *values, coordinator=coordinator)
    decided = register(pipeline, *(batch.candidate(position) for position in range(len(values))))
    assert [decision.error for decision in decided] == list(foretold)
    return [None if error is None else (error.code, error.field) for error in foretold]


# --- Rules ------------------------------------------------------------------------------------------------------------------------

OUT_OF_SCOPE = ("out_of_scope", "mentor_id")

# Values that break each rule of an otherwise valid item, in the order of the rules.
BROKEN: dict[tuple[str, str], dict[str, Any]] = {
    ("mentor_not_found", "mentor_id"): {"mentor": "nobody"},
    OUT_OF_SCOPE: {"mentor": "out-of-scope"},
    ("mentor_inactive", "activity_date"): {"mentor": "inactive"},
    ("activity_type_unknown", "activity_type"): {"kind": "unknown"},
    ("invalid_item", "activity_date"): {"day": FUTURE},
    ("invalid_item", "duration_minutes"): {"minutes": 0},
    ("invalid_item", "notes"): {"notes": "x" * (LIMIT_OF_NOTES + 1)},
}


@pytest.fixture
def people(pipeline: Pipeline) -> Pipeline:
    """The directory with mentors who break rules. Each breaks no earlier rule."""
    mentor = "INSERT INTO registration.mentor VALUES (:o, :m, 'M', :chapter, :active_from, NULL)"
    for name, chapter, active_from in (
        ("out-of-scope", "chapter-2", "2990-01-01"),
        ("inactive", "chapter-1", "2999-12-31"),
    ):
        execute(pipeline, mentor, o=ORGANIZATION, m=name, chapter=chapter, active_from=active_from)
    return pipeline


def test_the_first_broken_rule_is_the_error(people: Pipeline) -> None:
    """Each item breaks a rule, and all later rules that can be broken together with it."""
    codes = list(BROKEN)
    values = []
    for place in range(len(codes)):
        broken: dict[str, Any] = {}
        for code in reversed(codes[place:]):
            broken |= BROKEN[code]
        values.append(of(**broken))
    assert refusals(people, *values) == codes
    assert refusals(people, of(day=LONG_AGO, minutes=0), of(day=FUTURE, mentor="inactive"), of(kind="unknown", day=LONG_AGO)) == [
        ("invalid_item", "activity_date"),
        ("mentor_inactive", "activity_date"),
        ("activity_type_unknown", "activity_type"),
    ]


def test_limits_of_duration_and_notes(people: Pipeline) -> None:
    minutes, notes = [0, 1, 1_440, 1_441], [LIMIT_OF_NOTES - 1, LIMIT_OF_NOTES, LIMIT_OF_NOTES + 1]
    found = refusals(
        people,
        *(of(f"mentor-{place}", minutes=each) for place, each in enumerate(minutes, start=1)),
        # Characters, not bytes.
        *(of(f"mentor-{place}", notes="\N{SNOWMAN}" * each) for place, each in enumerate(notes, start=11)),
    )
    assert found[:4] == [("invalid_item", "duration_minutes"), None, None, ("invalid_item", "duration_minutes")]
    assert found[4:] == [None, None, ("invalid_item", "notes")]


def test_only_a_passing_error_is_retryable() -> None:
    assert {rule.error.retryable for rule in RULES} == {False}
    assert INTERNAL_ERROR.as_json()["retryable"] is REGISTRATION_UNAVAILABLE.as_json()["retryable"] is True


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("INSERT INTO registration.coordinator VALUES ('org-other', :c, 'C', 'admin')", OUT_OF_SCOPE),
        ("INSERT INTO registration.coordinator_scope VALUES ('org-other', :c, 'chapter-2')", OUT_OF_SCOPE),
        ("INSERT INTO registration.coordinator_scope VALUES (:o, 'coord-2', 'chapter-2')", OUT_OF_SCOPE),
        ("INSERT INTO registration.coordinator_scope VALUES (:o, :c, 'chapter-3')", OUT_OF_SCOPE),
        ("INSERT INTO registration.coordinator VALUES (:o, 'coord-2', 'C', 'admin')", OUT_OF_SCOPE),
        ("INSERT INTO registration.coordinator_scope VALUES (:o, :c, 'chapter-2')", None),
        ("UPDATE registration.coordinator SET role = 'admin'", None),
    ],
)
def test_scope_is_of_this_coordinator_in_this_organization_and_chapter(
    pipeline: Pipeline, statement: str, expected: tuple[str, str] | None
) -> None:
    execute(pipeline, "INSERT INTO registration.mentor VALUES (:o, 'far', 'M', 'chapter-2')", o=ORGANIZATION)
    execute(
        pipeline,
        statement,
        **{name: value for name, value in (("o", ORGANIZATION), ("c", COORDINATOR)) if f":{name}" in statement},
    )
    assert refusals(pipeline, of("far")) == [expected]


def test_types_mentors_and_the_zone_are_those_of_the_organization(pipeline: Pipeline) -> None:
    """Whatever another organization has under the same names."""
    for statement in (
        "INSERT INTO registration.organization VALUES ('org-other', 'Other', 'Pacific/Kiritimati')",
        "INSERT INTO registration.activity_type VALUES ('org-other', 'call', 'Call')",
        "INSERT INTO registration.activity_type VALUES ('org-other', 'visit', 'Visit')",
        "INSERT INTO registration.mentor VALUES ('org-other', 'mentor-1', 'Mentor', 'chapter-9', '2990-01-01')",
        "INSERT INTO registration.coordinator VALUES ('org-other', 'coord-1', 'Coordinator', 'coordinator')",
        "UPDATE registration.organization SET time_zone = 'Pacific/Pago_Pago' WHERE organization_id = 'org-standard'",
    ):
        execute(pipeline, statement)
    [today_there] = rows(pipeline, "SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date AS day")
    assert refusals(pipeline, of(kind="call"), of(), of(day=today_there["day"])) == [
        ("activity_type_unknown", "activity_type"),
        None,
        ("invalid_item", "activity_date"),
    ]


def test_an_organization_without_a_row_is_in_norway(pipeline: Pipeline) -> None:
    """Norway's date is compared with UTC's at a moment when they differ."""
    execute(pipeline, "DELETE FROM registration.organization")
    [here] = rows(pipeline, "SELECT (now() AT TIME ZONE 'Europe/Oslo')::date AS day")
    day: date = here["day"]
    assert refusals(pipeline, of("mentor-1", day=day), of("mentor-1", day=day + timedelta(days=2))) == [
        None,
        ("invalid_item", "activity_date"),
    ]


# --- Duplicates -------------------------------------------------------------------------------------------------------------------


def test_the_named_rival_is_the_conflicting_activity(pipeline: Pipeline) -> None:
    """Not an activity that differs in one column of the key, or that is flagged or revoked."""
    wanted = of(minutes=30)
    execute(pipeline, "INSERT INTO registration.activity_type VALUES (:o, 'call', 'Call')", o=ORGANIZATION)
    others = submit(pipeline, of("mentor-2"), of(kind="call"), of(day=DAY - timedelta(days=1)), wanted)
    assert register(pipeline, *map(others.candidate, range(4))) == [others.success(position) for position in range(4)]
    execute(pipeline, "UPDATE registration.activity SET revoked_at = now() WHERE item_id = :id", id=others.candidate(3).item_id)
    rival = submit(pipeline, wanted)
    assert register(pipeline, rival.candidate(0)) == [rival.success(0)], "a revoked activity must not conflict"
    flagged = submit(pipeline, of(override=True))
    assert register(pipeline, flagged.candidate(0)) == [flagged.success(0)]
    execute(
        pipeline,
        """INSERT INTO registration.activity
           SELECT gen_random_uuid(), 'org-other', attributed_to, registered_by, activity_type, activity_date, duration_minutes, notes,
                  batch_id, gen_random_uuid(), false, created_at FROM registration.activity WHERE item_id = :id""",
        id=rival.candidate(0).item_id,
    )
    late = submit(pipeline, wanted)
    [refused] = register(pipeline, late.candidate(0))
    assert refused.error is not None
    assert refused.error.as_json() == {
        "code": "duplicate_activity",
        "message": refused.error.message,
        "retryable": False,
        "conflicting_activity_id": rival.candidate(0).activity_id,
    }
    with pipeline.engine.begin() as connection:
        prediction = InProcessPrediction(connection, EARLIEST_YEAR)
        assert list(prediction.predict(ORGANIZATION, COORDINATOR, [wanted, of(override=True), of("mentor-3")])) == [
            refused.error,
            None,
            None,
        ]


def test_beside_an_item_are_the_living_activities_of_its_key_by_their_ids(pipeline: Pipeline) -> None:
    execute(pipeline, "INSERT INTO registration.activity_type VALUES (:o, 'call', 'Call')", o=ORGANIZATION)
    living = submit(pipeline, *(of(override=True) for _ in range(5)))
    others = submit(pipeline, of("mentor-2"), of(kind="call"), of(day=DAY - timedelta(days=1)))
    for batch, count in ((living, 5), (others, 3)):
        for position in range(count):
            assert register(pipeline, batch.candidate(position)) == [batch.success(position)]
    with pipeline.engine.begin() as connection:
        copied = """INSERT INTO registration.activity
                    SELECT gen_random_uuid(), :o, attributed_to, registered_by, activity_type, activity_date, duration_minutes, notes, batch_id,
                           gen_random_uuid(), overrides_duplicate, created_at, CAST(:revoked AS timestamptz) FROM registration.activity"""
        connection.execute(text(copied), {"o": "org-other", "revoked": None})
        connection.execute(text(copied), {"o": ORGANIZATION, "revoked": "2026-03-25T12:00:00Z"})
        # The first by their ids lie behind the others.
        for position in (3, 1, 4, 2, 0):
            moved = text("UPDATE registration.activity SET notes = notes WHERE item_id = :id")
            connection.execute(moved, {"id": living.candidate(position).item_id})
        without_indexes(connection)
        prediction = InProcessPrediction(connection, EARLIEST_YEAR)
        found = prediction.beside(ORGANIZATION, [of("mentor-3"), of(), of("mentor-2"), of()])
    ids = sorted(living.candidate(position).activity_id for position in range(5))
    assert [list(each) for each in found] == [[], ids, [others.candidate(0).activity_id], ids]


def test_of_two_simultaneous_items_the_first_wins(pipeline: Pipeline) -> None:
    older, newer = submit(pipeline, of()), submit(pipeline, of())
    won, lost = register(pipeline, newer.candidate(0), older.candidate(0))
    assert won == newer.success(0)
    assert lost.error is not None
    assert lost.error.conflicting_activity_id == newer.candidate(0).activity_id


def test_of_many_simultaneous_items_the_first_of_each_key_wins(pipeline: Pipeline) -> None:
    batches = [submit(pipeline, *(of(f"mentor-{number}") for number in range(1, 4))) for _ in range(20)]
    candidates = [batch.candidate(position) for batch in batches for position in range(3)]
    Random(1).shuffle(candidates)
    first = {each.position: each.activity_id for each in reversed(candidates)}
    decided = register(pipeline, *candidates)
    assert {decision.activity_id for decision in decided if decision.error is None} == set(first.values())


def test_each_decision_belongs_to_its_candidate(people: Pipeline) -> None:
    before = submit(people, *(of(f"mentor-{number}") for number in range(1, 5)))
    register(people, *map(before.candidate, range(4)))
    batch = submit(
        people,
        of("mentor-1"),
        of("mentor-2", override=True),
        of("nobody"),
        of("mentor-5"),
        of("mentor-3"),
        of("inactive"),
        of("mentor-4", override=True),
        of("mentor-6"),
    )
    decided = register(people, before.candidate(3), *map(batch.candidate, range(8)), before.candidate(0))
    codes = [decision.error and (decision.error.code, decision.error.conflicting_activity_id) for decision in decided]
    assert codes == [
        None,
        ("duplicate_activity", before.candidate(0).activity_id),
        None,
        ("mentor_not_found", None),
        None,
        ("duplicate_activity", before.candidate(2).activity_id),
        ("mentor_inactive", None),
        None,
        None,
        None,
    ]
    assert [decision.activity_id for decision in decided] == [
        before.candidate(3).activity_id,
        None,
        batch.candidate(1).activity_id,
        None,
        batch.candidate(3).activity_id,
        None,
        None,
        batch.candidate(6).activity_id,
        batch.candidate(7).activity_id,
        before.candidate(0).activity_id,
    ]
    made = {str(row["activity_id"]): row["overrides_duplicate"] for row in rows(people, "SELECT * FROM registration.activity")}
    own = {batch.candidate(position).activity_id: position in (1, 6) for position in (1, 3, 6, 7)}
    assert made == {before.candidate(position).activity_id: False for position in range(4)} | own


def test_a_redelivered_command_keeps_its_activity_whatever_the_rules_say_now(pipeline: Pipeline) -> None:
    """It keeps its id, too. The candidate's id differs if another version derives it differently."""
    batch = submit(pipeline, of(), of("mentor-2"))
    register(pipeline, batch.candidate(0), batch.candidate(1))
    again = [batch.candidate(place)._replace(activity_id=str(new_batch_id())) for place in (0, 1)]
    assert register(pipeline, *again) == [batch.success(0), batch.success(1)]
    execute(pipeline, "UPDATE registration.mentor SET active_until = '2020-01-01' WHERE mentor_id = 'mentor-2'")
    assert register(pipeline, *again) == [batch.success(0), batch.success(1)]
    assert len(rows(pipeline, "SELECT FROM registration.activity")) == len(rows(pipeline, "SELECT FROM registration.audit")) == 2


@pytest.mark.parametrize("override", [False, True])
def test_a_rival_that_vanishes_while_it_is_looked_up_causes_another_try(pipeline: Pipeline, override: bool) -> None:
    rival = submit(pipeline, of())
    register(pipeline, rival.candidate(0))
    batch = submit(pipeline, of(override=override), of("mentor-2"))
    revoked: list[str] = []

    def revoke(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "rival_activity_id" in statement and not revoked:
            revoked.append(statement)
            execute(pipeline, "UPDATE registration.activity SET revoked_at = now()")

    event.listen(pipeline.engine, "before_cursor_execute", revoke)
    try:
        with pytest.raises(TransientError, match="appeared and vanished"):
            register(pipeline, batch.candidate(0), batch.candidate(1))
    finally:
        event.remove(pipeline.engine, "before_cursor_execute", revoke)
    assert len(revoked) == 1
    assert len(rows(pipeline, "SELECT FROM registration.activity")) == 1, "the whole transaction must be rolled back"
    assert register(pipeline, batch.candidate(0), batch.candidate(1)) == [batch.success(0), batch.success(1)]


# --- What is written --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_flagged", [False, True], ids=["plain", "flagged"])
def test_an_activity_has_the_values_of_its_item(pipeline: Pipeline, is_flagged: bool) -> None:
    execute(pipeline, "INSERT INTO registration.mentor VALUES ('org-other', 'mentor-1', 'A namesake', 'chapter-9')")
    if is_flagged:
        register(pipeline, submit(pipeline, of()).candidate(0))
    batch = submit(pipeline, of("mentor-9"), of(minutes=75, notes="a note", override=True))
    register(pipeline, batch.candidate(1))
    [activity] = rows(pipeline, f"SELECT * FROM registration.activity WHERE batch_id = '{batch.batch_id}'")
    assert activity == {
        "activity_id": UUID(batch.candidate(1).activity_id),
        "organization_id": ORGANIZATION,
        "attributed_to": "mentor-1",
        "registered_by": COORDINATOR,
        "activity_type": "visit",
        "activity_date": DAY,
        "duration_minutes": 75,
        "notes": "a note",
        "batch_id": batch.batch_id,
        "item_id": UUID(batch.candidate(1).item_id),
        "overrides_duplicate": is_flagged,
        "created_at": AT,
        "revoked_at": None,
        "revoked_by": None,
        "revocation_reason": None,
        "chapter_id": "chapter-1",
    }
    audits = rows(pipeline, f"SELECT * FROM registration.audit WHERE batch_id = '{batch.batch_id}'")
    assert [(one["activity_id"], one["at"]) for one in audits] == [(activity["activity_id"], AT)]


def written(pipeline: Pipeline, since: int = 0) -> list[str]:
    """The activities in the order in which they were inserted, which is that of their places in a new table, behind the first `since`."""
    query = f"SELECT activity_id::text AS id FROM registration.activity ORDER BY ctid OFFSET {since}"
    return [row["id"] for row in rows(pipeline, query)]


@pytest.mark.parametrize("statement", [_REGISTER.sql, str(_REGISTER_FLAGGED)], ids=["plain", "flagged"])
def test_an_audit_row_is_not_searched_for_among_all_items_of_the_micro_batch(pipeline: Pipeline, statement: str) -> None:
    """PostgreSQL expects two items. For 500, a nested loop made 250,000 comparisons."""
    values = {"batch_ids": [], "positions": [], "activity_ids": [], "at": AT, "earliest_year": EARLIEST_YEAR}
    with pipeline.engine.begin() as connection:
        plan = "\n".join(connection.scalars(text(f"EXPLAIN {statement}"), values))
    [audit] = re.findall(r"^  CTE audited\n(.*?)^  (?:CTE|->|SubPlan)", plan + "\n  CTE", re.DOTALL | re.MULTILINE)
    assert "Filter: ((ANY (item_id = (hashed SubPlan" in audit, plan
    assert "Join" not in audit, plan


def test_activities_are_inserted_in_the_order_of_their_key(pipeline: Pipeline) -> None:
    """So two transactions that insert the same keys never deadlock."""
    execute(pipeline, "INSERT INTO registration.activity_type VALUES (:o, 'call', 'Call')", o=ORGANIZATION)
    days = [DAY - timedelta(days=number) for number in range(2)]
    values = [of(mentor, kind=kind, day=day) for mentor in ("mentor-1", "mentor-2") for kind in ("visit", "call") for day in days]
    batch = submit(pipeline, *values)
    ordered = sorted(range(len(values)), key=lambda position: values[position].identity)
    expected = [batch.candidate(position).activity_id for position in ordered]
    register(pipeline, *map(batch.candidate, range(len(values))))
    assert written(pipeline) == expected
    assert ordered not in (list(range(len(values))), list(reversed(range(len(values)))))


def test_flagged_activities_are_inserted_in_the_order_of_their_items(pipeline: Pipeline) -> None:
    before = submit(pipeline, *(values.values for values in mentors(4)))
    register(pipeline, *map(before.candidate, range(4)))
    batches = [submit(pipeline, *(of(f"mentor-{number}", override=True) for number in range(1, 5))) for _ in range(2)]
    candidates = [batch.candidate(position) for position in (2, 0, 3, 1) for batch in reversed(batches)]
    assert register(pipeline, *candidates) == [Decision(each.activity_id, None) for each in candidates]
    in_order = sorted(candidates, key=lambda each: UUID(each.item_id))
    assert written(pipeline, since=4) == [each.activity_id for each in in_order]
    assert in_order != candidates


# --- An external service's errors ---------------------------------------------------------------------------------------------------


def test_an_external_refusal_is_translated_into_our_words() -> None:
    for rule in RULES:
        said = refusal(rule.error.code, rule.error.field, None)
        assert (said.code, said.field, said.retryable) == (rule.error.code, rule.error.field, False)
        # One of these codes exists for several fields. Each of the others means the same for every field.
        assert refusal(rule.error.code, "made up", None).code == rule.error.code
    assert refusal("mentor_inactive", None, None).field == "activity_date"
    assert refusal("mentor_not_found", "activity_type", None).field == "mentor_id"
    rival = str(new_batch_id())
    duplicate = refusal("duplicate_activity", None, rival)
    assert (duplicate.code, duplicate.conflicting_activity_id, duplicate.retryable) == ("duplicate_activity", rival, False)
    assert "conflicting_activity_id" not in refusal("duplicate_activity", "mentor_id", None).as_json()
    unknown = refusal("quota_exceeded", "mentor_id", rival)
    assert (unknown.code, unknown.field, unknown.conflicting_activity_id, unknown.retryable) == (
        "invalid_item",
        None,
        None,
        False,
    )


def test_a_repeated_command_is_decided_once_and_announced_each_time(pipeline: Pipeline) -> None:
    """One micro-batch has a decided command, a new one twice, and another new one between them."""
    pipeline.submit([item("mentor-1"), item("mentor-2"), item("nobody")])
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    decided, twice, other = sorted(pipeline.take(Topic.COMMANDS), key=lambda each: record(each).data.position)  # type: ignore[attr-defined]
    [first] = pipeline.handle(pipeline.registration, [decided]).events
    results = pipeline.handle(pipeline.registration, [twice, decided, other, twice, decided]).events
    assert [orjson.loads(each.value)["position"] for each in results] == [1, 0, 2, 1, 0]
    assert [results[1], results[4], results[3]] == [first, first, results[0]]
    with pipeline.engine.connect() as connection:
        counts = [
            connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
            for table in ("orchestrator.outcome", "registration.activity", "registration.audit")
        ]
    assert counts == [3, 2, 2]
