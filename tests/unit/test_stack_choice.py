"""A stack that can't be started is reported once, and clearly, before any worker starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.stack import EXTERNAL, check_choice

ROOT = Path(__file__).parents[2]


def test_a_parallel_run_without_a_docker_engine_says_so() -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BULKREG_", "PYTEST_", "DOCKER_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "tests/unit/test_lanes.py"],
        cwd=ROOT,
        env=inherited | {"BULKREG_TEST_STACK": "containers", "DOCKER_HOST": "unix:///nowhere"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "ERROR: BULKREG_TEST_STACK=containers needs a Docker engine, and none answers: " in done.stderr
    assert "gw0" not in done.stdout + done.stderr


def test_external_servers_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EXTERNAL:
        monkeypatch.setenv(name, "somewhere")
    check_choice("external")
    monkeypatch.delenv(EXTERNAL[1])
    with pytest.raises(pytest.UsageError, match=r"needs BULKREG_KAFKA_BOOTSTRAP_SERVERS$"):
        check_choice("external")


def test_an_unknown_stack_is_refused() -> None:
    with pytest.raises(pytest.UsageError, match="embedded, containers or external, not 'imaginary'"):
        check_choice("imaginary")
