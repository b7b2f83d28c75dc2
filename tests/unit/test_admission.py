"""When submissions are refused, and when a refused client is told to try again."""

import pytest

from api.http.problems import ProblemError
from api.load.admission import Admission
from orchestrator.storage.backlog import Backlog


class Database:
    """The backlog that can be read, and a clock that the test moves."""

    def __init__(self) -> None:
        self.seen = Backlog(pending=0, folded=0)
        self.looks = 0
        self.now_s = 100.0
        self.look_takes_s = 0.0

    def look(self) -> Backlog:
        self.looks += 1
        self.now_s += self.look_takes_s
        return self.seen


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def admission(database: Database) -> Admission:
    return Admission(database.look, most_items=1_000, clock=lambda: database.now_s)


def refused_for_s(admission: Admission, items: int) -> int:
    with pytest.raises(ProblemError) as refused:
        admission.admit(items)
    assert refused.value.code == "overloaded"
    return int(refused.value.headers["Retry-After"])


def test_items_admitted_between_two_looks_count(admission: Admission, database: Database) -> None:
    for _ in range(10):
        admission.admit(100)
    refused_for_s(admission, 1)
    assert database.looks == 1
    database.now_s += 1.0
    admission.admit(1_000)
    assert database.looks == 2


def test_a_refused_client_is_told_how_long_the_excess_takes_at_the_present_speed(
    admission: Admission, database: Database
) -> None:
    admission.admit(1)
    database.now_s, database.seen = 110.0, Backlog(pending=1_500, folded=500)
    # 50 items a second, and 600 too many.
    assert refused_for_s(admission, 100) == 12
    database.now_s, database.seen = 111.0, Backlog(pending=900, folded=1_100)
    admission.admit(100)


def test_the_waiting_time_has_bounds_at_a_standstill_and_at_a_crawl(admission: Admission, database: Database) -> None:
    database.seen = Backlog(pending=1_000, folded=7)
    assert refused_for_s(admission, 1) == 30
    database.now_s += 10.0
    assert refused_for_s(admission, 1) == 30
    database.now_s, database.seen = 120.0, Backlog(pending=1_000, folded=8)
    assert refused_for_s(admission, 1_000) == 300


def test_the_speed_is_that_of_the_last_half_minute(admission: Admission, database: Database) -> None:
    admission.admit(1)
    database.now_s, database.seen = 200.0, Backlog(pending=500, folded=100_000)
    admission.admit(1)
    database.now_s, database.seen = 210.0, Backlog(pending=1_100, folded=100_100)
    assert refused_for_s(admission, 100) == 20


@pytest.mark.parametrize(("look_takes_s", "pause_s"), [(0.01, 1.0), (0.5, 5.0), (4.0, 10.0)])
def test_slow_looks_are_taken_less_often(admission: Admission, database: Database, look_takes_s: float, pause_s: float) -> None:
    database.look_takes_s = look_takes_s
    admission.admit(1)
    database.now_s = 100.0 + pause_s - 0.125
    admission.admit(1)
    assert database.looks == 1
    database.now_s = 100.0 + pause_s
    admission.admit(1)
    assert database.looks == 2


def test_a_failing_look_raises_and_the_next_call_looks_again(database: Database) -> None:
    def look() -> Backlog:
        database.looks += 1
        if database.looks == 1:
            raise OSError("away")
        return Backlog(0, 0)

    admission = Admission(look, most_items=1_000, clock=lambda: database.now_s)
    with pytest.raises(OSError, match="away"):
        admission.admit(1)
    admission.admit(1_000)
    refused_for_s(admission, 1)
