"""The measurement itself: an input that is over the budget, crashes or hangs is found, and the next input is still measured."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import budget
from tests.fuzz.__main__ import targets
from tests.fuzz.budget import Child, Used, plain
from tests.fuzz.findings import MOST_OF_A_KIND, Findings


def _do(given: tuple[str, Any]) -> Any:
    """Runs in the child."""
    what, value = given
    match what:
        case "echo":
            return value
        case "fill":
            # Every page is written to, so that it is really allocated.
            return len(b"x" * value)
        case "compute":
            began = time.process_time()
            while time.process_time() - began < value:
                pass
        case "crash":
            os.kill(os.getpid(), value)
        case "hang":
            signal.pause()
    raise KeyError(what)


@pytest.fixture(scope="module")
def child() -> Any:
    with Child(plain, _do) as child:
        yield child


def test_an_ordinary_input_has_a_result(child: Child) -> None:
    outcome = child.run(("echo", b"abc"))
    assert (outcome.answer, outcome.wrong) == (b"abc", [])


def test_memory_above_idle_is_found_and_is_gone_at_the_next_input(child: Child) -> None:
    assert "MB above the idle size" in child.run(("fill", budget.MOST_BYTES + (64 << 20))).wrong[0]
    assert child.run(("echo", 1)).used.bytes < budget.MOST_BYTES


def test_more_memory_than_allowed_is_an_error_of_the_child(child: Child) -> None:
    assert child.run(("fill", 2 * budget.ADDRESS_SPACE_BYTES)).wrong[0].startswith("raised MemoryError at test_budget.py:")


def test_cpu_time_is_found(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MOST_SECONDS", 0.05)
    assert "of processor time" in child.run(("compute", 0.5)).wrong[-1]


def test_a_crash_is_found_and_the_child_is_replaced(child: Child) -> None:
    assert child.run(("crash", signal.SIGSEGV)).wrong == ["ended the process: SIGSEGV"]
    assert child.run(("echo", 1)).answer == 1


def test_a_hang_is_found_and_the_child_is_replaced(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "HANGS_AFTER_S", 0.2)
    assert child.run(("hang", None)).wrong == ["is still busy after 0.2 s"]
    monkeypatch.undo()
    assert child.run(("echo", 1)).answer == 1


def test_an_input_exactly_at_the_budget_is_no_finding() -> None:
    assert Used(budget.MOST_SECONDS, budget.MOST_BYTES).excess() == []


def test_the_same_fault_is_kept_only_a_few_times(tmp_path: Path) -> None:
    findings = Findings(tmp_path / "inputs")
    for number in range(10):
        findings.note(f"took {number}.5 s", b"%d" % number, what="wide")
    assert len(findings.found) == len(list((tmp_path / "inputs").iterdir())) == MOST_OF_A_KIND


def test_a_module_that_is_no_target_is_not_listed() -> None:
    assert not targets().keys() & {"budget", "findings"}
