"""What a caller may conclude when the server goes away during a call."""

import asyncio
import socket

import aiohttp
import pytest

from tests.chaos.calls import Api
from tests.chaos.history import Ending

NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


async def _ask_a_server_that_dies(method: str) -> tuple[Ending, int]:
    """The outcome of a request on a used connection. The server and its listener stop after reading it. Returns how many it read, too."""
    read = 0
    server: asyncio.Server

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal read
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NO_CONTENT)
        await reader.readuntil(b"\r\n\r\n")
        read += 1
        server.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as session:
        api = Api(session, [])
        assert (await api.ask(method, "/a")).outcome is Ending.OK
        return (await api.ask(method, "/a")).outcome, read


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_request_that_was_sent_to_a_dying_server_is_unknown(method: str) -> None:
    assert asyncio.run(_ask_a_server_that_dies(method)) == (Ending.UNKNOWN, 1)


@pytest.mark.parametrize(("method", "outcome"), [("DELETE", Ending.UNKNOWN), ("POST", Ending.FAILED)])
def test_without_a_connection_only_a_post_is_known_to_have_failed(method: str, outcome: Ending) -> None:
    async def ask(port: int) -> Ending:
        async with aiohttp.ClientSession(base_url=f"http://127.0.0.1:{port}") as session:
            return (await Api(session, []).ask(method, "/a")).outcome

    with socket.socket() as bound_but_not_listening:
        bound_but_not_listening.bind(("127.0.0.1", 0))
        assert asyncio.run(ask(bound_but_not_listening.getsockname()[1])) is outcome
