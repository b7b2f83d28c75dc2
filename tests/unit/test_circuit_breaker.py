"""When the breaker opens, and when the service is tried again."""

import pytest

from consumers.external.breaker import BreakerPolicy, CircuitBreaker

POLICY = BreakerPolicy(failures=3, first_pause_s=1.0, max_pause_s=10.0)


def breaker(jitter: float = 1.0) -> CircuitBreaker:
    return CircuitBreaker(POLICY, lambda: jitter)


def failing(*askers: object) -> CircuitBreaker:
    made = breaker()
    for asker in askers:
        made.unanswered(asker)
    return made


@pytest.mark.parametrize(("askers", "is_open"), [("ab", False), ("abc", True), ("abcd", True), ("aaaaa", False), ("aabb", False)])
def test_it_opens_after_a_number_of_requests_in_a_row_without_a_response(askers: str, is_open: bool) -> None:
    assert failing(*askers).is_open is is_open


def test_a_response_in_between_restarts_the_count() -> None:
    made = failing("a", "b")
    made.answered()
    for asker in "ac":
        made.unanswered(asker)
    assert not made.is_open
    made.unanswered("d")
    assert made.is_open


def test_a_successful_probe_closes_it_and_restarts_the_count() -> None:
    made = failing("a", "b", "c")
    made.close()
    assert not made.is_open
    for asker in "ab":
        made.unanswered(asker)
    assert not made.is_open


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_pauses_double_up_to_the_longest_between_half_and_all_of_it(jitter: float, share: float) -> None:
    made = breaker(jitter)
    assert [made.next_pause_s() for _ in range(6)] == [share * pause for pause in (1, 2, 4, 8, 10, 10)]


def test_pauses_shrink_after_a_response_and_not_after_a_probe() -> None:
    made = breaker()
    made.next_pause_s()
    made.next_pause_s()
    made.close()
    assert made.next_pause_s() == 4
    made.answered()
    assert made.next_pause_s() == 1


def test_a_service_that_asks_for_a_wait_is_left_alone_for_that_long_once() -> None:
    made = breaker()
    made.hold(3.0)
    made.hold(2.0)
    assert made.is_open
    assert [made.next_pause_s(), made.next_pause_s(), made.next_pause_s()] == [3, 2, 4]


def test_a_wait_that_is_shorter_than_the_pause_does_not_shorten_it() -> None:
    made = breaker()
    made.hold(0.5)
    assert made.next_pause_s() == 1


def test_a_requested_wait_is_never_longer_than_the_longest_pause() -> None:
    made = breaker()
    made.hold(3_600.0)
    assert made.next_pause_s() == 10
