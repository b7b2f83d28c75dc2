"""Which topics and partitions are in trouble, when each is tried again, and to which partition a key goes."""

import random

import pytest

from orchestrator.process import metrics
from orchestrator.process.actions import Action
from producers.partitions import partition_of
from producers.places import Places, backoff_s
from tests.support.log_lines import logged
from tests.support.shown import shown

LONGEST = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


@pytest.fixture(params=[0.5, 1.0])
def jitter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The shortest and the longest pause that chance can make."""
    share = float(request.param)

    def uniform(least: float, most: float) -> float:
        return least if share == 0.5 else most

    monkeypatch.setattr(random, "uniform", uniform)
    return share


def in_trouble() -> float:
    return shown(metrics.OUTBOX_PLACES_IN_TROUBLE)


def test_pauses_double_up_to_the_longest(jitter: float) -> None:
    assert [backoff_s(failures) for failures in range(8)] == pytest.approx([jitter * pause for pause in LONGEST])
    assert backoff_s(10_000) == 5.0 * jitter


def test_a_place_that_keeps_failing_is_tried_ever_more_rarely(jitter: float) -> None:
    known = Places()
    for failures, longest in enumerate(LONGEST):
        now = 100.0 * failures
        known.failed("batches/0", now, "why")
        assert known.is_failing("batches/0")
        assert known.retry_at("batches/0") == pytest.approx(now + jitter * longest)


def test_simultaneous_failures_count_as_one(caplog: pytest.LogCaptureFixture) -> None:
    known = Places()
    for _ in range(500):
        known.failed("batches/0", 100.0, "why")
    first = known.retry_at("batches/0")
    assert 100.05 <= first <= 100.1
    known.failed("batches/0", first - 0.001, "it was on its way already")
    assert known.retry_at("batches/0") == first
    known.failed("batches/0", first, "the probe")
    assert first + 0.1 <= known.retry_at("batches/0") <= first + 0.2
    with caplog.at_level("INFO", "bulkreg"):
        known.works("batches/0")
        known.works("batches/0")
    for action, error in ((Action.PLACE_IN_TROUBLE, "why"), (Action.PLACE_WORKS_AGAIN, None)):
        assert [(line["place"], line.get("error")) for line in logged(caplog, action)] == [("batches/0", error)]


def test_a_place_for_which_an_earlier_relay_held_rows_is_no_news_when_it_still_fails(caplog: pytest.LogCaptureFixture) -> None:
    known = Places()
    known.expect_held(["batches/0"])
    with caplog.at_level("INFO", "bulkreg"):
        known.failed("batches/0", 100.0, "the probe")
        known.works("batches/0")
    assert logged(caplog, Action.PLACE_IN_TROUBLE) == []
    assert [line["place"] for line in logged(caplog, Action.PLACE_WORKS_AGAIN)] == ["batches/0"]


def test_pauses_restart_after_a_place_has_worked() -> None:
    known = Places()
    for moment in range(5):
        known.failed("batches/0", 10.0 * moment, "why")
    known.works("batches/0")
    assert (known.known, known.is_failing("batches/0")) == (["batches/0"], False)
    known.failed("batches/0", 50.0, "why")
    assert 50.05 <= known.retry_at("batches/0") <= 50.1


def test_places_do_not_affect_each_other() -> None:
    known = Places()
    known.failed("batches/0", 0.0, "why")
    assert in_trouble() == 1
    known.failed("batches/1", 0.0, "why")
    assert in_trouble() == 2
    known.works("batches/1")
    known.works("batches/2")
    assert [known.is_failing(f"batches/{number}") for number in range(3)] == [True, False, False]
    assert known.known == ["batches/0", "batches/1"]
    assert in_trouble() == 1
    known.forget("batches/0")
    assert (known.known, in_trouble()) == (["batches/1"], 0)


def test_a_place_with_held_rows_is_tried_at_once_and_not_considered_healthy() -> None:
    known = Places()
    known.expect_held(["batches/0", "lifecycle"])
    assert (known.is_failing("batches/0"), known.retry_at("batches/0"), in_trouble()) == (True, float("-inf"), 2)


def test_held_rows_do_not_change_what_is_known_of_a_place() -> None:
    known = Places()
    known.failed("batches/0", 100.0, "why")
    known.failed("lifecycle", 100.0, "why")
    known.works("lifecycle")
    due = known.retry_at("batches/0")
    known.expect_held(["batches/0", "lifecycle"])
    assert (known.retry_at("batches/0"), known.is_failing("lifecycle")) == (due, False)


# Kafka's own tests have these hashes (as signed numbers). The keys have every number of bytes that is left over after whole words.
HASHES = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), HASHES.items())
@pytest.mark.parametrize("partitions", [1, 2, 12, 1 << 31])
def test_a_key_goes_to_the_partition_that_java_clients_choose(key: bytes, hashed: int, partitions: int) -> None:
    assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
