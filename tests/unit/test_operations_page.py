"""docs/operations.md agrees with the code, and every page is in the index of docs/."""

import re
from pathlib import Path

import pytest
import typer

from cli.main import app
from compose.embedded import kafka_jars
from compose.operations_page import PAGE, actions_table, metrics_table, settings_table, written
from compose.roles import ROLES

DOCS = PAGE.parent
INDEX = (DOCS / "README.md").read_text()
TEXT = PAGE.read_text()
LINK = re.compile(r"\]\(([^)#:]+)\)")


def test_the_tables_are_generated_from_the_code() -> None:
    assert written(TEXT) == TEXT, "the tables are outdated; run: make docs"
    assert settings_table() in TEXT
    assert metrics_table() in TEXT
    assert actions_table() in TEXT


def test_an_outdated_table_is_written_again() -> None:
    changed = TEXT.replace("| `BULKREG_MAX_ITEMS` | `10000` |", "| `BULKREG_MAX_ITEMS` | `20000` |")
    assert changed != TEXT
    assert written(changed) == TEXT


def test_every_setting_says_what_it_is() -> None:
    assert re.findall(r"^\| `(BULKREG_\w+)` .* \| *\|$", TEXT, re.MULTILINE) == []


def test_every_role_is_described() -> None:
    assert re.findall(r"^\| `(\w+)` \| .* \| .* \|$", TEXT.split("## Install")[0], re.MULTILINE) == list(ROLES)


def test_every_named_variable_is_read() -> None:
    named = set(re.findall(r"`(BULKREG_\w+)", TEXT))
    settings = set(re.findall(r"^\| `(BULKREG_\w+)`", TEXT, re.MULTILINE))
    # A variable of the embedded servers: where a downloaded Kafka is kept.
    assert named - settings == {kafka_jars.CACHE_VARIABLE}


@pytest.mark.parametrize("words", sorted({tuple(each.split()) for each in re.findall(r"`bulkreg ([a-z -]+[a-z])", TEXT)}))
def test_every_named_command_exists(words: tuple[str, ...]) -> None:
    command: object = typer.main.get_command(app)
    for word in words:
        commands = getattr(command, "commands", None)
        if commands is None:
            break  # Its arguments follow.
        assert word in commands, f"bulkreg {' '.join(words)}"
        command = commands[word]


@pytest.mark.parametrize("page", [*DOCS.rglob("*.md"), DOCS.parent / "README.md"], ids=lambda page: page.name)
def test_every_link_has_a_target(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_index() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    assert pages <= set(LINK.findall(INDEX))
