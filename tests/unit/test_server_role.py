"""A server that can't serve ends by itself, and is then asked to stop like all others."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from compose.roles import ServerRole


@asynccontextmanager
async def impossible() -> AsyncIterator[int]:
    raise OSError("the address is taken")
    yield 0


def test_what_could_not_serve_can_be_stopped() -> None:
    role = ServerRole("api", impossible())
    with pytest.raises(OSError, match="the address is taken"):
        role.run()
    role.stop()
