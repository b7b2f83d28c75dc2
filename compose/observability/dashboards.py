"""Generates the dashboards for Grafana. `python -m compose.observability.dashboards` writes a JSON file for each beside this module.

Grafana's own builder for Python writes the same model with ten times the code that these tables have.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"

_COLUMNS = 24
_WIDTH = 8
_HEIGHT = 7


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: its title, the unit of its axis (Grafana's name), and its expressions by legend."""

    title: str
    unit: str
    expressions: Mapping[str, str]
    about: str = ""


_SUBMISSIONS = 'method="POST", route="/api/v1/bulk-registrations"'


def _quantile(quantile: float, metric: str, by: str = "", where: str = "") -> str:
    grouping = f"le, {by}" if by else "le"
    selected = f"{metric}_bucket{{{where}}}" if where else f"{metric}_bucket"
    return f"histogram_quantile({quantile}, sum by ({grouping}) (rate({selected}[$__rate_interval])))"


def _rate(metric: str, by: str, where: str = "") -> str:
    selected = f"{metric}{{{where}}}" if where else metric
    return f"sum by ({by}) (rate({selected}[$__rate_interval]))"


DASHBOARDS: Mapping[str, tuple[str, Sequence[Panel]]] = {
    "overview": (
        "Bulkreg: overview",
        (
            Panel(
                "Submissions by status",
                "reqps",
                {"{{status}}": _rate("bulkreg_api_request_seconds_count", "status", _SUBMISSIONS)},
            ),
            Panel(
                "Submissions that fail (objective: 0.1 %)",
                "percentunit",
                {
                    "of 5 minutes": "bulkreg:submission_errors:ratio_rate5m",
                    "of an hour": "bulkreg:submission_errors:ratio_rate1h",
                },
            ),
            Panel(
                "Time to a batch's end",
                "s",
                {
                    "{{lane}}, half": _quantile(0.5, "bulkreg_batch_completion_seconds", "lane"),
                    "{{lane}}, 99 %": _quantile(0.99, "bulkreg_batch_completion_seconds", "lane"),
                },
                "Objective: 99 % of small batches within 5 s.",
            ),
            Panel("Items decided", "ops", {"{{outcome}}": _rate("bulkreg_items_decided_total", "outcome")}),
            Panel("Why items fail", "ops", {"{{code}}": _rate("bulkreg_items_decided_total", "code", 'outcome="failed"')}),
            Panel(
                "Backlog",
                "short",
                {"items": "max(bulkreg_backlog_items)", "limit": "max(bulkreg_backlog_limit_items)"},
                "Accepted items that are not done. At the limit the API refuses submissions.",
            ),
            Panel("Oldest unfinished batch", "s", {"age": "max(bulkreg_oldest_unfinished_batch_seconds)"}),
            Panel("Outbox, rows", "short", {"rows": "max(bulkreg_outbox_rows)"}),
            Panel("Outbox, oldest row", "s", {"age": "max(bulkreg_outbox_oldest_age_seconds)"}),
            Panel("Records waiting", "short", {"{{topic}}": "max by (topic) (bulkreg_queue_records)"}),
            Panel("Dead letters", "short", {"{{role}}: {{reason}}": "sum by (role, reason) (bulkreg_dead_letters_total)"}),
            Panel(
                "Invariants",
                "short",
                {
                    "breaches": "max(bulkreg_verify_breaches)",
                    "hours since the last verification": "(time() - max(bulkreg_verify_last_success_timestamp_seconds)) / 3600",
                },
            ),
        ),
    ),
    "roles": (
        "Bulkreg: roles",
        (
            Panel("Records handled", "ops", {"{{role}}": _rate("bulkreg_records_handled_total", "role")}),
            Panel("Records in a micro-batch, half", "short", {"{{role}}": _quantile(0.5, "bulkreg_micro_batch_records", "role")}),
            Panel(
                "Duration of steps, 99 %",
                "s",
                {"{{role}}: {{step}}": _quantile(0.99, "bulkreg_micro_batch_step_seconds", "role, step")},
            ),
            Panel("Age of the oldest record at its end", "s", {"{{role}}": "max by (role) (bulkreg_record_age_seconds)"}),
            Panel(
                "Loops", "s", {"{{role}} {{instance}}": "bulkreg_loop_age_seconds"}, "Since the loop last completed an iteration."
            ),
            Panel("Queues that do not move", "s", {"{{topic}}": "max by (topic) (bulkreg_queue_stands_seconds)"}),
            Panel("Retried micro-batches", "ops", {"{{role}}: {{why}}": _rate("bulkreg_micro_batch_retries_total", "role, why")}),
            Panel("Postponed records", "short", {"{{role}}": "sum by (role) (bulkreg_postponed_records)"}),
            Panel("Starts within 10 minutes", "short", {"{{role}} {{instance}}": "bulkreg_role_starts"}),
            Panel("Outbox: rows published", "ops", {"rows": "sum(rate(bulkreg_outbox_published_total[$__rate_interval]))"}),
            Panel("Outbox: slots owned", "short", {"{{instance}}": "bulkreg_outbox_slots"}),
            Panel("Outbox: oldest row of a relay's slots", "s", {"{{instance}}": "bulkreg_outbox_oldest_seconds"}),
            Panel("Outbox: failures", "ops", {"{{why}}": _rate("bulkreg_outbox_failures_total", "why")}),
            Panel(
                "Micro-batches split to find a record", "ops", {"{{role}}": _rate("bulkreg_micro_batch_bisections_total", "role")}
            ),
            Panel("Events of a later version, skipped", "short", {"{{role}}": "sum by (role) (bulkreg_later_events_total)"}),
            Panel("Undeliverable events", "short", {"{{role}}": "sum by (role) (bulkreg_undeliverable_events_total)"}),
            Panel(
                "Receipts: behind the records",
                "s",
                {"oldest record in no log": "max(bulkreg_receipts_behind_seconds)"},
                "The notary appends records within seconds.",
            ),
            Panel("Receipts: leaves in all logs", "short", {"leaves": "max(bulkreg_receipt_leaves)"}),
            Panel(
                "Receipts: hours since the last checkpoint",
                "short",
                {
                    "hours": "(time() - max(bulkreg_receipt_last_checkpoint_timestamp_seconds)) / 3600",
                    "signed": "sum(increase(bulkreg_receipt_checkpoints_signed_total[1h]))",
                    "ignored": "sum(increase(bulkreg_receipt_checkpoints_ignored_total[1h]))",
                },
                "A checkpoint is signed when a batch ends, and daily while records are added. Ignored ones are by no known key.",
            ),
            Panel(
                "Receipts: leaves appended",
                "ops",
                {"leaves": "sum(rate(bulkreg_receipt_leaves_appended_total[$__rate_interval]))"},
            ),
            Panel("Items sent again", "short", {"items": "sum(bulkreg_sweeper_resends_total)"}),
            Panel("Webhooks: attempts", "ops", {"{{result}}": _rate("bulkreg_webhook_attempts_total", "result")}),
            Panel(
                "Webhooks: failing and disabled",
                "short",
                {"failing": "max(bulkreg_webhooks_failing)", "disabled": "max(bulkreg_webhooks_disabled)"},
            ),
            Panel(
                "Forgetting: oldest open request",
                "s",
                {"oldest": "max(bulkreg_forgetting_wait_seconds)"},
                "The sweeper forgets a person in minutes, unless a batch that names the person is running.",
            ),
            Panel("Webhooks: oldest due delivery", "s", {"oldest": "max(bulkreg_webhook_overdue_seconds)"}),
            Panel("Failed steps of a sweep", "short", {"{{step}}": "sum by (step) (bulkreg_sweep_failures_total)"}),
        ),
    ),
    "api": (
        "Bulkreg: API",
        (
            Panel("Requests", "reqps", {"{{method}} {{route}}": _rate("bulkreg_api_request_seconds_count", "method, route")}),
            Panel("By status", "reqps", {"{{status}}": _rate("bulkreg_api_request_seconds_count", "status")}),
            Panel(
                "Duration of submissions",
                "s",
                {
                    "half": _quantile(0.5, "bulkreg_api_request_seconds", where=_SUBMISSIONS),
                    "99 %": _quantile(0.99, "bulkreg_api_request_seconds", where=_SUBMISSIONS),
                },
            ),
            Panel(
                "Duration, 99 %",
                "s",
                {"{{method}} {{route}}": _quantile(0.99, "bulkreg_api_request_seconds", "method, route")},
                "Long polls and streams last as long as their clients follow.",
            ),
            Panel("Refused for now", "ops", {"{{why}}": _rate("bulkreg_api_refused_total", "why")}),
            Panel("Connections in use", "short", {"{{instance}}": "bulkreg_database_pool_in_use"}),
            Panel("Memory", "bytes", {"{{instance}}": 'process_resident_memory_bytes{job="bulkreg"}'}),
            Panel("CPU", "percentunit", {"{{instance}}": 'rate(process_cpu_seconds_total{job="bulkreg"}[$__rate_interval])'}),
            Panel("Versions", "short", {"{{version}}": "count by (version) (bulkreg_build_info)"}),
        ),
    ),
    "dependencies": (
        "Bulkreg: dependencies",
        (
            Panel(
                "Commits that wait for a synchronous standby",
                "s",
                {"longest": "max(bulkreg_commit_wait_seconds)"},
                "Longer than a moment: the standby is gone, and submissions wait.",
            ),
            Panel("Places that accept no events", "short", {"{{instance}}": "bulkreg_outbox_places_in_trouble"}),
            Panel("Events held", "ops", {"{{topic}}": _rate("bulkreg_outbox_held_total", "topic")}),
            Panel("Registration service: breaker open", "short", {"{{instance}}": "bulkreg_registration_breaker_open"}),
            Panel(
                "Registration service: responses", "reqps", {"{{answer}}": _rate("bulkreg_registration_requests_total", "answer")}
            ),
            Panel(
                "Under-replicated partitions",
                "short",
                {"{{instance}}": "kafka_server_replicamanager_underreplicatedpartitions"},
                "From Kafka's JMX exporter.",
            ),
            Panel(
                "Partitions below min.insync.replicas",
                "short",
                {"{{instance}}": "kafka_server_replicamanager_underminisrpartitioncount"},
                "From Kafka's JMX exporter.",
            ),
            Panel(
                "PostgreSQL: WAL on disk",
                "bytes",
                {"{{instance}}": "pg_wal_size_bytes"},
                "From postgres_exporter 0.13 or newer.",
            ),
            Panel(
                "PostgreSQL: commits",
                "ops",
                {"{{datname}}": "sum by (datname) (rate(pg_stat_database_xact_commit[$__rate_interval]))"},
                "From postgres_exporter.",
            ),
            Panel(
                "PostgreSQL: sessions by state",
                "short",
                {"{{state}}": "sum by (state) (pg_stat_activity_count)"},
                "From postgres_exporter.",
            ),
            Panel(
                "Free disk",
                "percentunit",
                {"{{instance}} {{mountpoint}}": "node_filesystem_avail_bytes / node_filesystem_size_bytes"},
                "From node_exporter.",
            ),
        ),
    ),
}


def dashboard(name: str) -> Mapping[str, Any]:
    """A dashboard in Grafana's JSON model. Raises KeyError for an unknown name."""
    title, panels = DASHBOARDS[name]
    return {
        "uid": f"bulkreg-{name}",
        "title": title,
        "tags": ["bulkreg"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}]},
        "panels": [_panel(number, panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, panel: Panel) -> Mapping[str, Any]:
    per_row = _COLUMNS // _WIDTH
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": source,
        "gridPos": {"x": number % per_row * _WIDTH, "y": number // per_row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.expressions.items())
        ],
    }


def written() -> Iterator[tuple[Path, str]]:
    """The contents of each dashboard's file."""
    for name in DASHBOARDS:
        yield FOLDER / f"{name}.json", json.dumps(dashboard(name), indent=2) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, content in written():
        path.write_text(content)
