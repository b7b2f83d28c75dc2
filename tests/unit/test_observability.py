"""The rules and dashboards of compose/observability: they name existing metrics, each alarm has a runbook and a case, and promtool accepts
them."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from compose.observability.dashboards import DASHBOARDS, written
from orchestrator.process import metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "compose" / "observability"
RULES: Mapping[str, Any] = yaml.safe_load((FOLDER / "rules.yaml").read_text())
CASES: Mapping[str, Any] = yaml.safe_load((FOLDER / "rules.test.yaml").read_text())
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()

ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALARMS = [rule for rule in ALL_RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}

PANELS = {f"{name}: {panel.title}": panel for name, (_, panels) in DASHBOARDS.items() for panel in panels}


def served() -> set[str]:
    """The names under which the product serves its metrics."""
    names = set()
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            suffixes = (
                ["_total"]
                if isinstance(metric, Counter)
                else ["_bucket", "_count", "_sum"]
                if isinstance(metric, Histogram)
                else [""]
            )
            names |= {family.name + suffix for suffix in suffixes}
    return names


def named(expression: str) -> set[str]:
    """The product's metrics that an expression names."""
    return set(re.findall(r"\bbulkreg_\w+", expression))


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_names_only_metrics_that_are_served(rule: Mapping[str, Any]) -> None:
    assert named(rule["expr"]) - served() == set()
    assert set(re.findall(r"\bbulkreg:[\w:]+", rule["expr"])) <= RECORDED


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_names_only_metrics_that_are_served(title: str) -> None:
    for expression in PANELS[title].expressions.values():
        assert named(expression) - served() == set()
        assert set(re.findall(r"\bbulkreg:[\w:]+", expression)) <= RECORDED


def test_each_metric_is_in_a_rule_or_on_a_dashboard() -> None:
    """A metric that nobody can see has only a cost."""
    looked_at = set().union(*(named(rule["expr"]) for rule in ALL_RULES))
    looked_at |= set().union(*(named(each) for panel in PANELS.values() for each in panel.expressions.values()))
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in served()}
    assert families - {re.sub(r"_(bucket|count|sum)$", "", name) for name in looked_at} == set()


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm["alert"])
def test_an_alarm_has_a_severity_a_sentence_a_runbook_and_a_case(alarm: Mapping[str, Any]) -> None:
    name = alarm["alert"]
    assert alarm["labels"]["severity"] in ("page", "ticket")
    assert alarm["annotations"]["summary"]
    assert alarm["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n" in RUNBOOKS
    cases = [case for test in CASES["tests"] for case in test["alert_rule_test"] if case["alertname"] == name]
    assert any(case["exp_alerts"] for case in cases), "the alarm has no case that raises it"


def test_every_runbook_is_about_an_existing_alarm() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE) == [alarm["alert"] for alarm in ALARMS]


def test_the_dashboards_are_generated_from_the_tables() -> None:
    for path, content in written():
        assert path.read_text() == content, f"run `make docs`: {path.name} is not up to date"


@pytest.mark.parametrize(
    "command",
    [("check", "rules", "rules.yaml"), ("test", "rules", "rules.test.yaml"), ("check", "config", "prometheus.yaml")],
    ids=" ".join,
)
def test_promtool_accepts_the_files(command: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    ran = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
