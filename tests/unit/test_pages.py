"""The pages about the code say what the code says: states, rules, invariants, tables, and tests that they name."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.batches.states import BATCH_TRANSITIONS, ITEM_TRANSITIONS, BatchStatus, ItemStatus
from orchestrator.registration.rules import DUPLICATE_ACTIVITY, INTERNAL_ERROR, REGISTRATION_UNAVAILABLE, RULES
from orchestrator.verification.checks import CHECKS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
VERSIONS = ROOT / "orchestrator" / "storage" / "migrations" / "versions"

PACKAGES = ("api", "cli", "compose", "consumers", "orchestrator", "producers", "schemas")
TEXTS = {".md", ".py", ".sql", ".toml", ".yaml", ".yml"}

# Checked in Python, beside those in SQL.
IN_PYTHON = {("item_id_not_derived", 1), ("status_differs", 3)}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a text, without headers."""
    for header, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        is_rule = line.startswith("| ---")
        if line.startswith("| ") and not is_rule and header.startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def code(text: str) -> list[str]:
    """What is in backticks."""
    return re.findall(r"`([^`]+)`", text)


def reached(title: str) -> dict[str, set[str]]:
    """By state, which states a row of the machine names. A code in backticks that is no state is the refusal of a request."""
    states = {*ItemStatus, *BatchStatus}
    return {
        code(row[0])[0]: {name for cell in row[1:] for name in code(cell) if name in states}
        for row in rows(section(page("states.md"), title).split("\n\n* ")[0])
    }


def test_items_move_as_the_page_says() -> None:
    assert reached("An item") == {state: set(targets) for state, targets in ITEM_TRANSITIONS.items()}


def test_batches_move_as_the_page_says() -> None:
    assert reached("A batch") == {state: set(targets) for state, targets in BATCH_TRANSITIONS.items()}


def test_the_rules_are_those_of_the_page_in_their_order() -> None:
    table = [row for row in rows(page("rules.md")) if row[0].isdigit()]
    assert [int(row[0]) for row in table] == list(range(1, len(RULES) + 1))
    written = [(*code(row[1]), *code(row[2]), row[3]) for row in table]
    assert written == [(rule.error.code, rule.error.field, rule.error.message) for rule in RULES]
    assert not any(rule.error.retryable for rule in RULES)


def test_the_other_errors_are_those_of_the_page() -> None:
    table = {code(row[0])[0]: (row[2], row[4]) for row in rows(page("rules.md")) if row[0].startswith("`")}
    assert table.keys() == {DUPLICATE_ACTIVITY, REGISTRATION_UNAVAILABLE.code, INTERNAL_ERROR.code}
    for error in (REGISTRATION_UNAVAILABLE, INTERNAL_ERROR):
        assert table[error.code] == (error.message, "yes" if error.retryable else "no")


def test_every_error_code_is_explained_to_clients() -> None:
    codes = {rule.error.code for rule in RULES} | {DUPLICATE_ACTIVITY, REGISTRATION_UNAVAILABLE.code, INTERNAL_ERROR.code}
    assert {code(row[0])[0] for row in rows(section(page("http.md"), "Follow")) if row[0].startswith("`")} >= codes


@pytest.mark.parametrize("number", range(1, 11))
def test_each_invariant_names_its_checks(number: int) -> None:
    [text] = re.findall(rf"^## {number}\. .*?(?=^## |\Z)", page("invariants.md"), re.MULTILINE | re.DOTALL)
    named = code(text.split("\nChecks: ")[1].split("\n\n")[0])
    checks = {(check.name, check.invariant) for check in CHECKS} | IN_PYTHON
    assert sorted(named) == sorted(name for name, invariant in checks if invariant == number)


def test_every_test_that_an_invariant_names_exists() -> None:
    named = re.findall(r"`(tests/\S+\.py)`:((?:[\s,]+`test_\w+`)+)", page("invariants.md"))
    assert len(named) >= 30
    missing = [(path, name) for path, names in named for name in code(names) if f"\ndef {name}(" not in (ROOT / path).read_text()]
    assert missing == []


def test_every_table_of_the_database_is_on_the_page() -> None:
    made = {
        name
        for path in VERSIONS.glob("*.sql")
        for name in re.findall(r"^CREATE TABLE (\w+\.\w+)", path.read_text(), re.MULTILINE)
    }
    orchestrators, registrations = section(page("architecture.md"), "Tables").split("Schema `registration`")
    listed = {f"orchestrator.{code(row[0])[0]}" for row in rows(orchestrators)}
    listed |= {f"registration.{code(row[0])[0]}" for row in rows(registrations)}
    assert listed == made


def test_no_page_outside_the_repository_is_named() -> None:
    outside = re.compile(r"specification, |\(specification|architecture, |reliability\.md|\.\./shared")
    files = [path for folder in (*PACKAGES, "docs", "tests") for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    files += [path for path in ROOT.iterdir() if path.suffix in TEXTS]
    assert len(files) > 400
    named = [str(path) for path in files if path != Path(__file__) and outside.search(path.read_text(encoding="utf-8"))]
    assert named == []
