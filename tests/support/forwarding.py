"""Forwards loopback ports to servers on other addresses, because the product sends unencrypted data only to loopback.

`python -m tests.support.forwarding HOST:PORT…` prints a port for each, and forwards until its standard input ends.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial

_CHUNK_BYTES = 65_536


@contextlib.contextmanager
def forwarded(*addresses: str) -> Iterator[Sequence[str]]:
    """Yields loopback addresses that lead to the given ones."""
    # A process, so that the tests' own threads do not wait for it.
    command = [sys.executable, "-m", __name__, *addresses]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield [f"127.0.0.1:{process.stdout.readline().strip()}" for _ in addresses]
        finally:
            process.stdin.close()


async def _forward(address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    host, _, port = address.rpartition(":")
    try:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
    except OSError:  # as if this port were closed, too
        writer.close()
        return
    await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # one end has closed the connection
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _serve(addresses: Sequence[str]) -> None:
    for address in addresses:
        server = await asyncio.start_server(partial(_forward, address), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
