"""The pages about the code agree with it: states, rules, invariants, tables, tests. Everything that they refer to exists."""

import ast
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

# Checked in Python, beside the checks in SQL.
IN_PYTHON = {("item_id_not_derived", 1), ("status_differs", 3)}


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """The text below a heading, up to the next heading of its level."""
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a text, without headers."""
    for header, line in zip(["", *text.splitlines()], text.splitlines(), strict=False):
        is_rule = line.startswith("| ---")
        if line.startswith("| ") and not is_rule and header.startswith("|"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def code(text: str) -> list[str]:
    """The texts in backticks."""
    return re.findall(r"`([^`]+)`", text)


def reached(title: str) -> dict[str, set[str]]:
    """By state, the states that a row of the machine names. A code in backticks that is no state is the refusal of a request."""
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


@pytest.mark.parametrize("number", range(1, 12))
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


# --- What a page or a docstring refers to -----------------------------------------------------------------------------------------

PAGES = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
FOLDERS = (*PACKAGES, "docs", "locks", "tests", r"\.ci")
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*[\w/]")
# Files that a reader creates by following the page.
MADE_LATER = {"compose/docker/.env", "orchestrator/storage/migrations/versions/NNNN_name.py"}
NAMED_THERE = re.compile(r"((?:`\w+`(?:, )?)+) (?:\(|in )`([\w/]+\.py)`|^\| `([\w/]+\.py)` \| (`\w+`) \|", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]*)#([^)\s]+)\)")
SECTION = re.compile(r"(docs/[\w/-]+\.md), ([A-Z][\w ,-]+?)[);]")


def headings(text: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", text, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings(text)}


def defined(path: Path) -> set[str]:
    """A module's functions, classes and assigned names, including methods."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_on_a_page_exists(page: Path) -> None:
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert sorted(path for path in named if path not in MADE_LATER and not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_is_defined_where_the_page_says(page: Path) -> None:
    missing = []
    for names, path, path_of_row, name_of_row in NAMED_THERE.findall(page.read_text(encoding="utf-8")):
        module = ROOT / (path or path_of_row)
        missing += [f"{name} in {module.relative_to(ROOT)}" for name in code(names or name_of_row) if name not in defined(module)]
    assert missing == []


@pytest.mark.parametrize(
    "page", [*DOCS.rglob("*.md"), *(page for page in PAGES if page.parent == ROOT)], ids=lambda page: page.name
)
def test_every_anchor_of_a_link_is_a_heading(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [(target, anchor) for target, anchor in LINK.findall(text)]
    wrong = [
        f"{target}#{anchor}"
        for target, anchor in links
        if anchor not in anchors((page.parent / target).read_text() if target else text)
    ]
    assert wrong == []


def test_every_page_and_section_that_the_code_names_exists() -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for folder in (*PACKAGES, "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in TEXTS
    }
    pages = {(path, name) for path, text in texts.items() for name in re.findall(r"docs/[\w/-]+\.md", text)}
    assert len(pages) > 60
    assert [f"{path}: {name}" for path, name in sorted(pages) if not (ROOT / name).exists()] == []
    sections = {(path, *found) for path, text in texts.items() for found in SECTION.findall(text)}
    assert [
        f"{path}: {name}, {title}" for path, name, title in sorted(sections) if title not in headings((ROOT / name).read_text())
    ] == []
