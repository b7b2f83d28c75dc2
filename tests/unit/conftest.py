"""Fixtures of the domain's tests."""

import pytest

from tests.support.memory_flow import MemoryFlow


@pytest.fixture
def flow() -> MemoryFlow:
    """The flow of batches in memory, with one coordinator and the mentors of the standard directory."""
    return MemoryFlow()
