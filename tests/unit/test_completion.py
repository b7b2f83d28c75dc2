"""The lines that docs/cli.md gives for the start-up file of each shell make the Tab key work."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (bash|zsh|fish) \|.*\| `([^`]+)` \|$", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
START_UP = {shell: line.replace(r"\|", "|") for shell, line in ROWS}

DEAD_LETTERS = ["list", "show", "redrive"]


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """The environment of a shell in which `bulkreg` is a program."""
    program = tmp_path / "bulkreg"
    program.write_text(f"#!{sys.executable}\nfrom cli.main import run\nrun()\n")
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def bash(script: str, environment: Mapping[str, str], **more: str) -> str:
    done = subprocess.run(
        ["bash", "-c", script], env={**environment, **more}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("direc", ["directory"]),
        ("dead-letters ", DEAD_LETTERS),
        ("status --wat", ["--watch"]),
        ("list --status can", ["cancelled"]),
    ],
)
def test_bash_completes(environment: Mapping[str, str], typed: str, offered: list[str]) -> None:
    words = ["bulkreg", *typed.split(" ")]
    tab = f"""
        {START_UP["bash"]}
        set -- $(complete -p bulkreg)
        while [ "$1" != -F ]; do shift; done
        COMP_WORDS=({" ".join(repr(word) for word in words)}) COMP_CWORD={len(words) - 1}
        "$2" bulkreg
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert bash(tab, environment).split() == offered


def test_zsh_gets_the_function_and_the_program_completes(environment: Mapping[str, str]) -> None:
    assert START_UP["zsh"].startswith("eval ")
    script = bash(START_UP["zsh"].replace("eval ", "printf %s "), environment)
    assert script.splitlines()[-1] == "compdef _bulkreg_completion bulkreg"
    [asked] = re.findall(r"env _TYPER_COMPLETE_ARGS=\S+ (_BULKREG_COMPLETE=\w+ bulkreg)", script)
    answer = bash(f"env {asked}", environment, _TYPER_COMPLETE_ARGS="bulkreg dead-letters ")
    assert answer.startswith("_arguments ")
    assert re.findall(r'^.*?"(\w+)":', answer, re.MULTILINE) == DEAD_LETTERS


def test_fish_gets_the_command_and_the_program_completes(environment: Mapping[str, str]) -> None:
    script = bash(START_UP["fish"].replace("| source", "| cat"), environment)
    assert script.startswith("complete --command bulkreg ")
    [asked] = re.findall(r"env (_BULKREG_COMPLETE=\w+ _TYPER_COMPLETE_FISH_ACTION=get-args) _TYPER_COMPLETE_ARGS=", script)
    answer = bash(f"env {asked} bulkreg", environment, _TYPER_COMPLETE_ARGS="bulkreg dead-letters ")
    assert [line.split("\t")[0] for line in answer.splitlines()] == DEAD_LETTERS
