"""There is one way to log: every log line of the product names a declared action, and every declared action is logged somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.process.actions import Action, log_action
from tests.support.log_lines import logged

ROOT = Path(__file__).parents[2]
PACKAGES = ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas")
DECLARED_IN = "orchestrator/process/actions.py"
# The modules besides the declaration that use the standard library's logging, and why. None of them logs.
KNOW_LOGGING = {
    DECLARED_IN,
    "orchestrator/process/logs.py",  # It sets up the handler.
    "orchestrator/process/kafka_settings.py",  # It chooses where librdkafka's lines go.
    "orchestrator/process/repeated_lines.py",  # It leaves out librdkafka's lines that repeat.
    "compose/embedded/kafka.py",  # It silences librdkafka's lines while a broker starts.
    "compose/bench/peers/procrastinate_peer.py",  # It silences a warning of another library.
    "compose/operations_page.py",  # It reads the names of the levels.
}
LOGGING_CALLS = {"debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log"}
# Fields that every line has. Another field with such a name would replace it.
RESERVED = {"timestamp", "level", "logger", "event", "action", "exception", "stack"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


MODULES = dict(modules())


def calls_of_log_action() -> Iterator[tuple[str, ast.Call]]:
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "log_action":
                yield path, node


def actions_of(call: ast.Call) -> set[str]:
    """The actions that the call names literally, as in `Action.DEAD_LETTERED`."""
    first = call.args[0] if call.args else None
    is_literal = isinstance(first, ast.Attribute) and isinstance(first.value, ast.Name) and first.value.id == "Action"
    return {first.attr} if is_literal and isinstance(first, ast.Attribute) else set()


def test_every_call_names_one_declared_action() -> None:
    wrong = [f"{path}:{call.lineno}" for path, call in calls_of_log_action() if not actions_of(call) & set(Action.__members__)]
    assert wrong == []


def test_every_declared_action_is_logged_somewhere() -> None:
    used = {name for _, call in calls_of_log_action() for name in actions_of(call)}
    assert used == set(Action.__members__)


def test_no_field_replaces_one_that_every_line_has() -> None:
    wrong = [(path, call.lineno) for path, call in calls_of_log_action() if {each.arg for each in call.keywords} & RESERVED]
    assert wrong == []


def test_the_function_is_always_called_by_its_name() -> None:
    """Its calls would not be found under another name, or if it was passed on."""
    called = {call.func for _, call in calls_of_log_action()}
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "log_action":
                assert node in called, f"{path}:{node.lineno}"
            elif isinstance(node, ast.Attribute):
                assert node.attr != "log_action", f"{path}:{node.lineno}"
            elif isinstance(node, ast.alias) and node.name == "log_action":
                assert node.asname is None, path


def test_no_other_module_has_a_logger() -> None:
    found = set()
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
            if {name.partition(".")[0] for name in names} & {"logging", "structlog", "warnings"}:
                found.add(path)
    assert found == KNOW_LOGGING


@pytest.mark.parametrize("path", sorted(KNOW_LOGGING - {DECLARED_IN}))
def test_modules_that_use_logging_do_not_log(path: str) -> None:
    calls = [node.func for node in ast.walk(MODULES[path]) if isinstance(node, ast.Call)]
    assert [ast.unparse(call) for call in calls if isinstance(call, ast.Attribute) and call.attr in LOGGING_CALLS] == []


def test_every_action_has_a_meaning() -> None:
    assert [each.label for each in Action if not each.meaning.endswith(".")] == []


def test_a_line_has_its_fields_and_shows_them_in_its_text(caplog: pytest.LogCaptureFixture) -> None:
    log_action(Action.EVENT_REFUSED, role="relay", topic="results", partition=0, row=7, error="too large\n")
    assert caplog.records[0].getMessage() == r"event_refused: role=relay topic=results partition=0 row=7 error='too large\n'"
    [line] = logged(caplog, Action.EVENT_REFUSED)
    assert {name: value for name, value in line.items() if name != "timestamp"} == {
        "level": "error",
        "logger": "bulkreg",
        "action": "event_refused",
        "role": "relay",
        "topic": "results",
        "partition": 0,
        "row": 7,
        "error": "too large\n",
    }


def test_an_action_below_the_level_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "bulkreg"):
        log_action(Action.SERVING, role="api", port=1)
        log_action(Action.SERVICE_AWAY, role="registration")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_test_looks_for_each_action() -> None:
    """An operator relies on these lines. A line that no test looks for could be left out unnoticed."""
    here = Path(__file__)
    texts = [file.read_text() for file in here.parents[1].rglob("*.py") if file != here]
    unseen = [
        action.label
        for action in Action
        if not any(re.search(rf"Action\.{action.name}\b|\"{action.label}\"", text) for text in texts)
    ]
    assert unseen == []
