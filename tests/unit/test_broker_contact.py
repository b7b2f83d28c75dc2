"""What a client's statistics say about brokers that do not respond."""

from collections.abc import Mapping
from typing import Any

import pytest

from consumers.loop.contact import SILENT_AFTER_S, WAITS_S, BrokerContact

WELL = {"state": "UP", "rxidle": 100_000, "waitresp_cnt": 1, "toppars": {"commands-0": {}}}
SILENT = {**WELL, "rxidle": int(WAITS_S * 1e6)}
"""Packets are dropped: the connection is still there."""
IDLE = {"state": "UP", "rxidle": -1, "waitresp_cnt": 0, "toppars": {}}
"""Nothing was asked."""
PAUSED = {**WELL, "rxidle": 60_000_000, "waitresp_cnt": 0}
"""All of its partitions are paused, so nothing is asked."""
GONE = {**WELL, "state": "TRY_CONNECT"}


def report(*brokers: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    named = {str(number): {"nodeid": number, **broker} for number, broker in enumerate(brokers, start=1)}
    return named | {"GroupCoordinator": {"nodeid": -1, **WELL}}


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        ([WELL, GONE], True),
        ([WELL, SILENT], True),
        ([IDLE], True),
        ([PAUSED], True),
        ([GONE], False),
        ([SILENT, SILENT], False),
        ([SILENT, IDLE], False),  # what is asked gets no response, and nothing is known of the other
        ([], False),
    ],
)
def test_row_73_a_broker_responds(brokers: list[Mapping[str, Any]], *, expected: bool) -> None:
    contact = BrokerContact()
    contact.report(report(*brokers))
    assert contact.any is expected


@pytest.mark.parametrize("trouble", [SILENT, GONE])
def test_row_72_a_broker_whose_partitions_are_read_is_missed(trouble: Mapping[str, Any]) -> None:
    now = 0.0
    contact = BrokerContact(clock=lambda: now)
    contact.report(report(WELL, trouble))
    assert contact.complaint is None, "another leader may take over"
    now = SILENT_AFTER_S
    contact.report(report(WELL, trouble))
    assert contact.complaint == "no response from the brokers 2: what is in their partitions waits"
    contact.report(report(WELL, WELL))
    assert contact.complaint is None
    now += SILENT_AFTER_S
    contact.report(report(WELL, trouble))
    assert contact.complaint is None, "it has responded in between"


def test_a_broker_that_leads_nothing_of_ours_is_not_missed() -> None:
    now = 0.0
    contact = BrokerContact(clock=lambda: now)
    for now in (0.0, SILENT_AFTER_S):  # noqa: B007 - the clock reads it
        contact.report(report(WELL, {**GONE, "toppars": {}}))
    assert contact.complaint is None
