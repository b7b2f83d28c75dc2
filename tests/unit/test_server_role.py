"""A server that can't serve ends by itself, and can then be asked to stop like the others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from compose.roles import ServerRole


@asynccontextmanager
async def impossible() -> AsyncIterator[int]:
    raise OSError("the address is taken")
    yield 0


def test_a_server_that_could_not_start_can_be_stopped() -> None:
    role = ServerRole("api", impossible())
    with pytest.raises(OSError, match="the address is taken"):
        role.run()
    role.stop()
