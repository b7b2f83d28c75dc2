"""Receivers of webhooks that misbehave in every way: a raw server on loopback, in a thread. The path says what it does with a request."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.waiting import PATIENCE_S

REASONS = MappingProxyType({200: "OK", 204: "No Content", 302: "Found", 410: "Gone", 500: "Internal Server Error"})


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A running receiver. `/200` and other numbers respond with that status, the other paths are methods of `_Behaviour`."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    """Bytes of bodies without an end."""
    released: threading.Event = field(default_factory=threading.Event)
    """Lets `/hang` respond."""
    statuses: dict[str, int] = field(default_factory=dict)
    """Other statuses for a path."""

    def of(self, path: str) -> list[Received]:
        """The requests for a path."""
        return [request for request in self.requests if request.path == path]

    def url(self, path: str) -> str:
        """An address here, without TLS."""
        return f"http://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def running_receiver(certificate: Path | None = None) -> Iterator[Receiver]:
    """Serves until the block ends; with TLS if there is a certificate with its key."""
    receiver, started = Receiver(), threading.Event()
    stop: list[asyncio.Event] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        tls = None
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
        ended = asyncio.Event()
        stop.append(ended)
        loops.append(asyncio.get_running_loop())
        open_connections: set[asyncio.StreamWriter] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            receiver.connections += 1
            open_connections.add(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await _serve(receiver, reader, writer, ended)
            open_connections.discard(writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        receiver.port = server.sockets[0].getsockname()[1]
        started.set()
        await ended.wait()
        server.close()
        for writer in open_connections:
            writer.transport.abort()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="receiver")
    thread.start()
    assert started.wait(PATIENCE_S)
    try:
        yield receiver
    finally:
        receiver.released.set()  # a request that hangs would keep its thread
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join()


async def _serve(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ended: asyncio.Event) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    path = head[0].split(" ")[1]
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    receiver.requests.append(Received(path, headers, body))
    match path.rpartition("/")[2]:
        case "hang":
            await asyncio.to_thread(receiver.released.wait)
            await _respond(writer, 200, b"late")
        case "reset":
            writer.transport.abort()
        case "redirect":
            location = b"Location: http://169.254.169.254/latest/meta-data\r\n"
            writer.write(b"HTTP/1.1 302 Found\r\n" + location + b"Content-Length: 0\r\n\r\n")
            await writer.drain()
        case "redirect-here":
            writer.write(
                f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {receiver.url('/200')}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            await writer.drain()
        case "endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            async for piece in _without_end(ended):
                writer.write(piece)
                await writer.drain()
                receiver.sent += len(piece)
        case "endless-headers":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            async for piece in _without_end(ended):
                writer.write(b"X: " + piece[:1000] + b"\r\n")
                await writer.drain()
                receiver.sent += 1000
        case "trickle":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not ended.is_set():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        case "bomb":
            # Says that it is compressed, which nobody asked for.
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00")
            await writer.drain()
        case "cookie":
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
        case "letters":
            await _respond(writer, 200, "\N{WAVING HAND SIGN}".encode() * 1_200)
        case "lines":
            await _respond(writer, 200, b"one\n\ttwo\r\x1b[1m\xff")
        case number:
            status = receiver.statuses.get(path, int(number))
            await _respond(writer, status, b"" if status == 204 else f"told {status}\0".encode())


async def _respond(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(f"HTTP/1.1 {status} {REASONS.get(status, 'Something')}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def _without_end(ended: asyncio.Event) -> AsyncIterator[bytes]:
    while not ended.is_set():
        yield b"x" * 16_384


def self_signed(folder: Path, *, address: str = "127.0.0.1") -> Path:
    """Writes a certificate for an address, with its key, that only those trust who have it. Returns the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{address}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file
