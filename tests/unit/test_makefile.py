"""What `make` prints if something is missing, and that every target that a page names exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The make that runs the tests would pass its own options and variables on.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def python(folder: Path, script: str) -> str:
    """A Python interpreter with a defect."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


def refused(tmp_path: Path, interpreter: str) -> str:
    done = make(f"VENV={tmp_path}/venv", f"PYTHON={interpreter}", "run")
    assert done.returncode != 0
    assert not (tmp_path / "venv").exists()
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_missing_python_is_reported(tmp_path: Path) -> None:
    assert "Python 3.11 or newer is needed" in refused(tmp_path, "/nowhere/python3")


def test_an_old_python_is_reported(tmp_path: Path) -> None:
    assert refused(tmp_path, python(tmp_path, "exit 1")).endswith("make PYTHON=python3.12 run\n")


def test_a_python_without_ensurepip_is_reported(tmp_path: Path) -> None:
    # As Debian packages it.
    without = f'case "$2" in *ensurepip*) exit 1;; esac\nexec "{sys.executable}" "$@"'
    assert "apt-get install python3-venv" in refused(tmp_path, python(tmp_path, without))


def test_help_lists_every_target() -> None:
    listed = {line.split()[0] for line in make("help").stdout.splitlines()}
    assert listed == TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_target_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named <= TARGETS


def test_ci_runs_what_the_readme_says() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands == [
        "set -euo pipefail",
        'cd "$(dirname "$0")/.."',
        ". .ci/pgbouncer",
        ". .ci/chromium",
        "make lint",
        "make test",
    ]
