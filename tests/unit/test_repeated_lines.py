"""Lines of the log that repeat the same trouble."""

import logging
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Consumer

from orchestrator.process.kafka_settings import connection_config, kafka_logger
from orchestrator.process.repeated_lines import QUIET_S, RepeatedLines
from orchestrator.process.settings import Settings
from tests.support.waiting import eventually

REFUSED = "127.0.0.1:1/bootstrap: Connection refused (after 0ms in state CONNECT)"
REFUSED_LATER = "127.0.0.1:1/bootstrap: Connection refused (after 9ms in state CONNECT, 3 identical error(s) suppressed)"
OTHER = "127.0.0.1:2/bootstrap: Connection refused (after 0ms in state CONNECT)"


class Log:
    """A log that leaves out what repeats, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._lines = RepeatedLines(lambda: self.now)

    def passes(self, text: str) -> str | None:
        """The line that is written, if any."""
        line = logging.LogRecord("kafka", logging.ERROR, "", 0, text, (), None)
        return line.getMessage() if self._lines.filter(line) else None


def test_a_line_that_repeats_comes_once_a_minute_and_says_how_many_were_left_out() -> None:
    log = Log()
    assert [log.passes(text) for text in (REFUSED, REFUSED_LATER, OTHER, REFUSED)] == [REFUSED, None, OTHER, None]
    log.now += QUIET_S - 0.5
    assert log.passes(REFUSED) is None
    log.now += 0.5
    assert log.passes(REFUSED_LATER) == f"{REFUSED_LATER}; 3 more lines like this were left out"
    assert log.passes(OTHER) == OTHER
    assert log.passes(REFUSED) is None
    log.now += QUIET_S
    assert log.passes(REFUSED) == f"{REFUSED}; 1 more lines like this were left out"


def test_trouble_that_is_over_is_forgotten() -> None:
    log = Log()
    assert log.passes(REFUSED) == REFUSED
    assert log.passes(REFUSED) is None
    log.now += 2 * QUIET_S
    assert log.passes(OTHER) == OTHER
    # Another outage: what was left out of the first one is no news.
    assert log.passes(REFUSED) == REFUSED


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What librdkafka says of two addresses at which nobody listens."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("of a test"), Keep()
    logger.addHandler(handler)
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1,127.0.0.1:2")
    consumer = Consumer({**connection_config(settings), "group.id": "nobody"}, logger=logger)
    consumer.subscribe(["none"])

    def has_repeated() -> bool:
        consumer.poll(0.1)
        return all(sum(address in line for line in said) > 3 for address in ("127.0.0.1:1/", "127.0.0.1:2/"))

    eventually(has_repeated)
    yield said
    consumer.close()
    logger.removeHandler(handler)


def test_what_librdkafka_repeats_while_no_broker_is_there_comes_once_for_each_address(lines: Sequence[str]) -> None:
    log = Log()
    passed = [text for text in lines if "FAIL" in text and log.passes(text)]
    assert len(passed) == 2, passed


def test_each_client_has_such_a_log_and_only_one_filter() -> None:
    for _ in range(2):
        [lines] = kafka_logger(Settings(), "a client of this test").filters
        assert isinstance(lines, RepeatedLines)
