"""What the tests of the domain stand on."""

import pytest

from tests.support.memory_flow import MemoryFlow


@pytest.fixture
def flow() -> MemoryFlow:
    """The flow of batches in memory, with one coordinator and the mentors of the standard directory."""
    return MemoryFlow()
