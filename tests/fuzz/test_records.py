"""The fuzz target runs, and finds nothing in its first inputs."""

from pathlib import Path

import pytest

from orchestrator.process.settings import Settings
from tests.fuzz.records import fuzz


@pytest.mark.usefixtures("topics")
def test_the_first_inputs_find_nothing(settings: Settings, tmp_path: Path) -> None:
    assert fuzz(settings, seconds=3.0, seed=1, folder=tmp_path) == []
