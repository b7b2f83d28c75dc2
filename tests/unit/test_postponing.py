"""Which records are set aside, and which wait for as long as it takes."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from consumers.loop.decoding import Entry
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.postponing import Failure, PostponedUnits, Unit
from orchestrator.storage.blame import TransientError
from schemas.envelope import Topic

AFTER_S = 100.0
PARTITION = PartitionOffsets(Topic.COMMANDS, "commands", 0)


@dataclass
class Clock:
    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Role:
    """A loop's postponed units, and a clock."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.units = PostponedUnits(set_aside_after_s=AFTER_S, most_records=10, clock=self.clock)

    def fail(self, entries: list[Entry], error: Exception, tried: Unit | None = None) -> None:
        self.units.failed(Failure(entries, error), tried, took_s=0.1)

    def next(self) -> Unit:
        """The next unit that is due, after moving the clock to its time."""
        self.clock.now += self.units.due_in_s() or 0.0
        unit = self.units.take()
        assert unit is not None
        return unit

    def until_verdict(self, error: Exception, *, passing: int = 0) -> list[int]:
        """Lets every try fail for three times the patience, while `passing` others succeed after each. Returns which records were set
        aside."""
        given_up = []
        end = self.clock.now + 3 * AFTER_S
        while self.units and self.clock.now < end:
            unit = self.next()
            if self.units.may_be_set_aside(unit):
                given_up.append(unit.entries[0].offset)
            else:
                self.fail(list(unit.entries), error, unit)
            self.clock.now += 1
            if passing:
                self.units.passed(passing)
        return given_up


def entries(count: int, batch: str = "a") -> list[Entry]:
    data = SimpleNamespace(batch_id=batch)
    return [
        Entry(None, PARTITION, offset, 0, None, cast("None", SimpleNamespace(data=data)), None)  # type: ignore[arg-type]
        for offset in range(count)
    ]


def database_error(code: str) -> DBAPIError:
    return DBAPIError("SELECT", None, type("Coded", (psycopg2.DatabaseError,), {"pgcode": code})("refused"))


LASTING = [database_error("57014"), database_error("42501"), TransientError("a broken invariant")]


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_a_record_that_fails_while_others_succeed_is_set_aside_after_the_patience(error: Exception) -> None:
    role = Role()
    role.fail(entries(1), error)
    began = role.clock.now
    assert role.until_verdict(error, passing=1) == [0]
    assert AFTER_S <= role.clock.now - began <= 2 * AFTER_S


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_no_record_is_blamed_while_everything_fails(error: Exception) -> None:
    role = Role()
    role.fail(entries(8), error)
    assert role.until_verdict(error) == []
    assert role.units.records == 8
    assert role.units.is_outage


def test_the_only_record_is_set_aside() -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    assert role.until_verdict(LASTING[0]) == [0]


def test_many_failing_records_are_not_blamed_because_a_few_succeed() -> None:
    """A repeated command needs no right to insert, so its success does not show that the database is healthy."""
    role = Role()
    role.fail(entries(8), LASTING[1])
    role.units.passed(7)
    assert role.until_verdict(LASTING[1]) == []


def test_a_lock_is_waited_for_whatever_succeeds() -> None:
    role = Role()
    role.fail(entries(3), database_error("55P03"))
    assert role.until_verdict(database_error("55P03"), passing=10) == []
    assert role.units.records == 3


def test_another_error_restarts_the_patience() -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    role.units.passed(5)
    role.clock.now += AFTER_S
    unit = role.next()
    assert role.units.may_be_set_aside(unit)
    role.fail(list(unit.entries), LASTING[1], unit)
    role.units.passed(5)
    assert not role.units.may_be_set_aside(role.next())


def test_a_unit_is_tried_in_halves_first_by_batch() -> None:
    role = Role()
    role.fail([*entries(2, "a"), *entries(2, "b")], LASTING[0])
    first, second = role.next(), role.next()
    assert [[e.record.data.batch_id for e in unit.entries] for unit in (first, second)] == [["a", "a"], ["b", "b"]]  # type: ignore[union-attr]
    role.fail(list(first.entries), LASTING[0], first)
    assert [len(role.next().entries) for _ in range(2)] == [1, 1]


def test_pauses_grow_and_all_units_are_due_when_an_outage_is_over() -> None:
    role = Role()
    role.fail(entries(2), LASTING[0])
    for _ in range(20):
        unit = role.next()
        role.fail(list(unit.entries), LASTING[0], unit)
    assert (role.units.due_in_s() or 0) > 10
    role.units.passed(1)
    assert role.units.due_in_s() == 0
    assert not role.units.is_outage


def test_no_more_records_are_taken_when_too_many_wait() -> None:
    role = Role()
    role.fail(entries(10), LASTING[0])
    assert role.units.is_full


def test_records_of_a_revoked_partition_are_dropped() -> None:
    role = Role()
    role.fail(entries(3), LASTING[0])
    role.units.drop({PARTITION})
    assert not role.units


def test_dropping_a_partitions_records_leaves_the_others_of_the_unit() -> None:
    other = PartitionOffsets(Topic.COMMANDS, "commands", 1)
    mixed = entries(2)
    mixed[0].partition = other
    role = Role()
    role.fail(mixed, database_error("55P03"))
    role.units.drop({PARTITION})
    assert role.units.records == 1
    assert [each.partition for each in role.next().entries] == [other]


def test_the_unit_that_is_due_first_is_taken_when_it_is_due() -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    late = role.next()
    role.fail(list(late.entries), LASTING[0], late)
    assert role.units.due_in_s() == pytest.approx(0.5)
    role.fail(entries(2), database_error("55P03"))
    assert role.units.due_in_s() == 0.0, "the role must not wait for the later unit"
    assert len(role.next().entries) == 2, "the unit that has not failed before must come first"
    due_in = role.units.due_in_s() or 0.0
    role.clock.now += due_in - 0.001
    assert role.units.take() is None
    role.clock.now += 0.001
    assert role.units.take() is not None
    assert role.units.take() is None
    assert role.units.due_in_s() is None


def test_pauses_double_and_are_longer_after_a_long_try() -> None:
    def pauses(took_s: float) -> list[float]:
        role, found = Role(), []
        role.fail(entries(1), LASTING[0])
        for _ in range(9):
            unit = role.next()
            role.units.failed(Failure(list(unit.entries), LASTING[0]), unit, took_s=took_s)
            found.append(role.units.due_in_s() or 0.0)
        return found

    assert pauses(0.0) == pytest.approx([0.5, 1, 2, 4, 8, 16, 32, 60, 60])
    assert pauses(3.0) == pytest.approx([9, 9, 9, 9, 9, 16, 32, 60, 60]), "others must get three times as long as the try took"


def test_the_halves_of_a_unit_are_tried_at_once() -> None:
    role = Role()
    role.fail(entries(4), LASTING[0])
    assert [len(role.next().entries) for _ in range(2)] == [2, 2]
    assert role.clock.now == 1_000.0


@pytest.mark.parametrize(("waited_s", "may_be"), [(AFTER_S - 0.001, False), (AFTER_S, True)])
def test_nothing_is_set_aside_before_the_patience_is_over(waited_s: float, may_be: bool) -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    unit = role.next()
    role.clock.now += waited_s
    assert role.units.may_be_set_aside(unit) is may_be


@pytest.mark.parametrize(("others", "passing", "may_be"), [(3, 3, False), (3, 4, True), (0, 0, True), (0, 1, True)])
def test_more_records_must_succeed_than_wait(others: int, passing: int, may_be: bool) -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    unit = role.next()
    if others:
        role.fail(entries(others), database_error("55P03"))
    role.clock.now += AFTER_S
    role.units.passed(passing)
    assert role.units.may_be_set_aside(unit) is may_be


def test_several_records_are_never_to_blame_together() -> None:
    role = Role()
    role.units.failed(Failure(entries(2), LASTING[0]), None, took_s=0.1)
    pair = Unit(entries(2), role.next().blame, "kind", 0.0, 0)
    role.units.passed(100)
    assert not role.units.may_be_set_aside(pair)


@pytest.mark.parametrize(("count", "is_full"), [(9, False), (10, True), (11, True)])
def test_the_limit_counts_records_and_not_units(count: int, is_full: bool) -> None:
    role = Role()
    role.fail(entries(count), LASTING[0])
    assert (role.units.records, role.units.is_full) == (count, is_full)


def test_an_outage_is_over_after_a_success_since_the_last_failure() -> None:
    role = Role()
    assert not role.units.is_outage
    role.fail(entries(1), LASTING[0])
    assert role.units.is_outage
    role.units.passed(1)
    assert not role.units.is_outage
    role.fail(entries(1, "b"), LASTING[0])
    assert role.units.is_outage, "a new unit fails, and nothing has succeeded since"


def test_a_unit_that_waits_while_others_succeed_is_not_hurried() -> None:
    role = Role()
    role.fail(entries(1), LASTING[0])
    role.units.passed(1)
    unit = role.next()
    role.fail(list(unit.entries), LASTING[0], unit)
    role.units.passed(1)
    assert role.units.due_in_s() == 0.5


def test_a_divided_unit_keeps_its_patience_and_one_with_another_error_does_not() -> None:
    role = Role()
    role.fail(entries(4), LASTING[0])
    first = role.next()
    role.clock.now += 50
    role.units.passed(7)
    role.fail(list(first.entries), LASTING[0], first)
    parts = [unit for unit in (role.next(), role.next(), role.next()) if len(unit.entries) == 1]
    assert {(unit.since_s, unit.passed_before) for unit in parts} == {(1_000.0, 0)}
    role.fail(list(parts[0].entries), LASTING[1], parts[0])
    again = role.next()
    assert (again.since_s, again.passed_before) == (1_050.0, 7)


def test_a_lock_belongs_to_a_batch_and_batches_are_tried_separately() -> None:
    role = Role()
    locked = database_error("55P03")
    role.fail([*entries(2, "a"), *entries(2, "b"), *entries(2, "c")], locked)
    sizes = [len(role.next().entries) for _ in range(2)]
    assert sorted(sizes) == [2, 4]
    role.fail(entries(5), locked)
    assert len(role.next().entries) == 5
