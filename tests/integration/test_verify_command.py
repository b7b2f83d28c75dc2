"""`bulkreg verify` and `bulkreg doctor`: their output for people and for programs, and their exit codes."""

import json
from typing import Any

import pytest
from sqlalchemy import text

from compose import doctor
from compose.findings import Finding, State
from orchestrator.process.settings import Settings
from tests.support.command_line import bulkreg
from tests.support.pipeline import Pipeline, item, mentors


def test_the_checks_and_the_breaches_are_printed(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody")])
    pipeline.drain()
    checked = {"batches": 1, "items": 3, "outcomes": 3, "activities": 2}
    ran = bulkreg(settings, "verify", "--json")
    assert (ran.exit_code, json.loads(ran.stdout)) == (0, {"breaches": [], "checked": checked})
    shown = bulkreg(settings, "verify")
    assert shown.exit_code == 0
    assert "1 batches, 3 items, 3 outcomes, 2 activities checked. All invariants hold." in shown.stdout

    with pipeline.engine.begin() as connection:
        connection.execute(text("UPDATE registration.activity SET duration_minutes = 61 WHERE attributed_to = 'mentor-2'"))
        connection.execute(text("UPDATE orchestrator.batch SET completed_at = NULL"))
        item_id = connection.execute(
            text("SELECT item_id::text FROM orchestrator.batch_item WHERE mentor_id = 'mentor-2'")
        ).scalar_one()
    ran = bulkreg(settings, "verify", "--json")
    told: dict[str, Any] = json.loads(ran.stdout)
    assert (ran.exit_code, told["checked"]) == (1, checked)
    assert [(each["invariant"], each["batch_id"], each["item_id"]) for each in told["breaches"]] == [
        (1, str(batch_id), item_id),
        # The audit has the duration from the registration.
        (1, str(batch_id), item_id),
        (4, str(batch_id), None),
    ]
    assert told["breaches"][0]["detail"].startswith("activity_differs_from_item: ")
    shown = bulkreg(settings, "verify")
    assert shown.exit_code == 1
    assert "Breaches: 2 of invariant 1, 1 of invariant 4." in shown.stdout
    assert str(batch_id) in shown.stdout


OK, ADVICE = Finding("a", State.OK, "well"), Finding("b", State.ADVICE, "could be better", "do better")
UNSAFE, UNREACHABLE = Finding("c", State.UNSAFE, "open", "close it"), Finding("d", State.UNREACHABLE, "away", "start it")


@pytest.mark.parametrize(
    ("findings", "code"),
    [([OK], 0), ([OK, ADVICE], 0), ([OK, UNSAFE, ADVICE], 1), ([UNREACHABLE, OK], 3), ([UNSAFE, UNREACHABLE], 3)],
)
def test_the_exit_code_is_that_of_the_worst_finding(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, findings: list[Finding], code: int
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda *_: iter(findings))
    shown, ran = bulkreg(settings, "doctor"), bulkreg(settings, "doctor", "--json")
    assert (shown.exit_code, ran.exit_code) == (code, code)
    assert [each["subject"] for each in json.loads(ran.stdout)["findings"]] == [finding.subject for finding in findings]
    for finding in findings:
        assert f"{finding.subject}: {finding.detail}" in shown.stdout
        assert finding.fix is None or f"→ {finding.fix}" in shown.stdout
