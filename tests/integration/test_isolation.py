"""One batch makes a step of a sweep fail, and the others are not affected; and errors for which no batch is to blame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from consumers.upkeep import isolation as module
from consumers.upkeep.isolation import Isolation
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from tests.support.log_lines import logged
from tests.support.shown import shown

_TRANSACTION = text("SELECT CAST(pg_current_xact_id() AS text)")


@dataclass(frozen=True)
class Found:
    batch_id: str
    number: int = 0


def database_error(code: str) -> DBAPIError:
    return DBAPIError("SELECT", None, type("Coded", (psycopg2.DatabaseError,), {"pgcode": code})("refused"))


@pytest.fixture(autouse=True)
def _tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the transactions that retry for seconds before a sweep learns of an error, because these tests are not about that."""

    def transact(engine: Engine, work: Callable[[Connection], object]) -> object:
        with engine.begin() as connection:
            return work(connection)

    monkeypatch.setattr(module, "transact", transact)


class Sweep:
    """Finds everything that is not set aside, and works on it. Fails if a batch is bad."""

    def __init__(self, engine: Engine, found: Sequence[Found]) -> None:
        self.found = list(found)
        self.bad: dict[str, Exception] = {}
        self.may_work: Callable[[Connection], bool] = lambda _: True
        self.transactions: list[list[Found]] = []
        """What was worked on together, including failed tries."""
        self._step = Isolation(engine, "test", self.find, self.work, may_work=lambda connection: self.may_work(connection))

    def find(self, connection: Connection, aside: Sequence[str]) -> Sequence[Found]:
        self._finder = connection.execute(_TRANSACTION).scalar_one()
        return [each for each in self.found if each.batch_id not in aside]

    def work(self, connection: Connection, found: Sequence[Found]) -> Sequence[Found]:
        self.transactions.append(list(found))
        if len(self.transactions) == 1:
            assert connection.execute(_TRANSACTION).scalar_one() == self._finder, "finding and working must share a transaction"
        for each in found:
            if each.batch_id in self.bad:
                raise self.bad[each.batch_id]
        return list(found)

    def round(self) -> tuple[int, list[Found]]:
        found, done = self._step.round()
        return found, [each for part in done for each in part]


OF_A_BATCH, LOCKED, LASTING, PASSING = (database_error(code) for code in ("23514", "55P03", "42501", "57P01"))


def batches(count: int) -> list[Found]:
    return [Found(f"{number:03}") for number in range(count)]


def test_healthy_batches_are_done_in_one_transaction(engine: Engine) -> None:
    sweep = Sweep(engine, batches(5))
    assert sweep.round() == (5, batches(5))
    assert sweep.transactions == [batches(5)]


def test_no_work_is_done_if_nothing_is_found(engine: Engine) -> None:
    sweep = Sweep(engine, [])
    assert sweep.round() == (0, [])
    assert sweep.transactions == []


@pytest.mark.parametrize("error", [OF_A_BATCH, LOCKED, LASTING, KeyError("a bug")], ids=["data", "lock", "right", "bug"])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_a_failing_batch_is_set_aside_and_the_others_are_done(
    engine: Engine, bad: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch's items stay in one transaction."""
    found = [Found(each.batch_id, number) for number in range(2) for each in batches(5)]
    sweep = Sweep(engine, found)
    sweep.bad = {f"{bad:03}": error}
    aside = metrics.SWEEP_SET_ASIDE.labels("test")
    before = shown(aside)
    others = [each for each in found if each.batch_id != f"{bad:03}"]
    count, done = sweep.round()
    assert (count, sorted(done, key=found.index)) == (10, others)
    assert shown(aside) == before + 1
    [line] = logged(caplog, Action.BATCH_SET_ASIDE)
    assert (line["role"], line["batch"], line["step"]) == ("sweeper", f"{bad:03}", "test")
    for part in sweep.transactions:
        numbers = {each.batch_id: [other.number for other in part if other.batch_id == each.batch_id] for each in part}
        assert set(map(tuple, numbers.values())) == {(0, 1)}
    assert sweep.round() == (8, others), "it must be left out until the next sweep"
    assert shown(aside) == before + 1


def test_a_passing_error_is_no_batchs_fault(engine: Engine) -> None:
    sweep = Sweep(engine, batches(3))
    sweep.bad = {"001": PASSING}
    with pytest.raises(DBAPIError):
        sweep.round()
    assert sweep.transactions == [batches(3)]
    sweep.bad = {"001": OF_A_BATCH, "002": PASSING}
    with pytest.raises(DBAPIError) as caught:
        sweep.round()
    assert caught.value is PASSING


@pytest.mark.parametrize(("count", "is_raised"), [(20, False), (21, True)])
def test_an_error_of_many_batches_is_no_batchs_fault(engine: Engine, count: int, is_raised: bool) -> None:
    sweep = Sweep(engine, batches(25))
    sweep.bad = dict.fromkeys([each.batch_id for each in batches(count)], LASTING)
    if is_raised:
        with pytest.raises(DBAPIError):
            sweep.round()
    else:
        assert sweep.round() == (25, batches(25)[20:])
        sweep.bad = {"020": LASTING}
        assert sweep.round() == (5, batches(25)[21:]), "each round must count from zero"


def test_any_number_of_batches_may_fail_by_their_own_fault(engine: Engine) -> None:
    sweep = Sweep(engine, batches(25))
    sweep.bad = dict.fromkeys([each.batch_id for each in batches(24)], OF_A_BATCH)
    assert sweep.round() == (25, batches(25)[24:])


def test_an_error_of_the_search_is_no_batchs_fault(engine: Engine) -> None:
    def find(_: Connection, aside: Sequence[str]) -> Sequence[Found]:
        raise LASTING

    def work(_: Connection, found: Sequence[Found]) -> None:
        raise AssertionError

    with pytest.raises(DBAPIError):
        Isolation(engine, "test", find, work).round()


def test_nothing_is_done_while_another_process_sweeps(engine: Engine) -> None:
    sweep = Sweep(engine, batches(4))
    sweep.may_work = lambda _: False
    assert sweep.round() == (0, [])
    sweep.may_work = lambda _: not sweep.transactions
    sweep.bad = {"001": OF_A_BATCH}
    assert sweep.round() == (4, [])
    assert sweep.transactions == [batches(4)], "another process began to sweep after the first transaction had failed"
