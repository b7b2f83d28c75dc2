"""A TCP proxy in front of PostgreSQL. It can lose a COMMIT or its response, and cut, refuse and hold up connections."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from enum import StrEnum

from tests.support.waiting import PATIENCE_S

# The form in which psycopg2 sends them: a simple query. A COMMIT may be the last statement of several.
_QUERY = b"Q"
_COMMIT = b"COMMIT\x00"

# What a client may ask for before it logs in: an encrypted connection.
_ENCRYPTION = (80877103, 80877104)


class Lost(StrEnum):
    """What is lost on the way: the request, before the server receives it, or the server's response."""

    REQUEST = "request"
    ANSWER = "answer"


class PostgresProxy:
    """Passes everything on, except what it was told to lose. While it refuses, each new connection ends at once, as if the server were
    away, or with the words of a server that is not ready.

    `queries` counts the clients' queries. Each is a round trip, because psycopg2 waits for the response.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._armed: Lost | None = None
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._refusal: bytes | None = None
        self.losses = 0
        self.queries = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def lose_next(self, what: Lost | None) -> None:
        """Loses the next COMMIT of any connection. With None it loses nothing any more."""
        with self._lock:
            self._armed = what

    def cut(self) -> int:
        """Cuts every connection at once, and returns how many there were."""
        with self._lock:
            ends = list(self._open)
        for each in ends:
            _cut(each)
        return len(ends)

    @contextlib.contextmanager
    def refusing(self, words: bytes = b"") -> Iterator[None]:
        """Refuses new connections, with these words if there are any. Existing ones stay open."""
        self._refusal = words
        try:
            yield
        finally:
            self._refusal = None

    @contextlib.contextmanager
    def holding_up(self) -> Iterator[None]:
        """Keeps connections open and passes nothing on, like a network that loses every packet."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def close(self) -> None:
        self._flows.set()
        _cut(self._listener)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    if (words := self._refusal) is not None:
                        _refuse(client, words)
                        raise ConnectionRefusedError
                    server = socket.create_connection(self._server)
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    self._open |= {client, server}
                threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        answer_is_lost = threading.Event()
        answers = threading.Thread(target=self._answers, args=(client, server, answer_is_lost), daemon=True)
        answers.start()
        self._requests(client, server, answer_is_lost)
        answers.join()
        with self._lock:
            self._open -= {client, server}
        for each in (client, server):
            each.close()

    def _requests(self, client: socket.socket, server: socket.socket, answer_is_lost: threading.Event) -> None:
        with _cutting(client, server):
            while data := client.recv(65_536):
                self._flows.wait()
                if data.startswith(_QUERY):
                    with self._lock:
                        self.queries += 1
                lost = self._take_loss() if _COMMIT in data else None
                if lost is Lost.REQUEST:
                    return
                if lost is Lost.ANSWER:
                    answer_is_lost.set()
                server.sendall(data)

    def _answers(self, client: socket.socket, server: socket.socket, answer_is_lost: threading.Event) -> None:
        with _cutting(client, server):
            # The server has executed the query by now, because it responds.
            while (data := server.recv(65_536)) and not answer_is_lost.is_set():
                self._flows.wait()
                client.sendall(data)

    def _take_loss(self) -> Lost | None:
        with self._lock:
            lost, self._armed = self._armed, None
            self.losses += lost is not None
        return lost


@contextlib.contextmanager
def _cutting(*ends: socket.socket) -> Iterator[None]:
    with contextlib.suppress(OSError):
        yield
    for each in ends:
        _cut(each)


def _refuse(client: socket.socket, words: bytes) -> None:
    """Refuses a login as a server does that is not ready. Without words it only reads nothing."""
    if not words:
        return
    client.settimeout(PATIENCE_S)
    length, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
    while code in _ENCRYPTION:
        client.sendall(b"N")
        length, code = struct.unpack("!II", client.recv(8, socket.MSG_WAITALL))
    client.recv(length - 8, socket.MSG_WAITALL)
    fields = b"SFATAL\x00C57P03\x00M" + words + b"\x00\x00"
    client.sendall(b"E" + struct.pack("!I", 4 + len(fields)) + fields)


def _cut(end: socket.socket) -> None:
    # A bare close would leave the pair's other thread waiting in its recv, and the peer waiting, too.
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
