"""The series of labels that are known beforehand are there before their first event, which `increase()` would not see otherwise."""

import pytest
from prometheus_client import REGISTRY

from compose.roles import ROLES
from consumers.loop.handler import AGGREGATOR, NOTIFIER, REGISTRATION, SPLITTER
from orchestrator.process.first_values import begin_at_zero


@pytest.mark.parametrize(
    ("role", "series", "labels"),
    [
        *[
            (role, series, {"role": role, **labels})
            for role in (SPLITTER, REGISTRATION, AGGREGATOR, NOTIFIER)
            for series, labels in (
                ("bulkreg_micro_batch_retries_total", {"why": "database"}),
                ("bulkreg_micro_batch_bisections_total", {}),
                ("bulkreg_later_events_total", {}),
                ("bulkreg_undeliverable_events_total", {"topic": "dead-letter"}),
            )
        ],
        (REGISTRATION, "bulkreg_items_decided_total", {"outcome": "success", "code": ""}),
        (AGGREGATOR, "bulkreg_batch_completion_seconds_count", {"lane": "bulk"}),
        (NOTIFIER, "bulkreg_webhook_attempts_total", {"result": "delivered"}),
        ("relay", "bulkreg_outbox_failures_total", {"why": "broker"}),
        ("relay", "bulkreg_outbox_held_total", {"topic": "batches"}),
        ("relay", "bulkreg_outbox_refused_total", {"topic": "lifecycle"}),
    ],
)
def test_a_series_is_there_before_its_first_event(role: str, series: str, labels: dict[str, str]) -> None:
    assert role in ROLES
    begin_at_zero(role)
    assert REGISTRY.get_sample_value(series, labels) is not None
