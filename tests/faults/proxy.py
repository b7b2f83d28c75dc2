"""A TCP proxy before PostgreSQL: loses a COMMIT or the answer to one, cuts, refuses and holds up connections."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from enum import StrEnum

# As psycopg2 sends it: a simple query.
_QUERY = b"Q"
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Lost(StrEnum):
    """What the client never gets to know: that the server did not hear it, or that it did."""

    REQUEST = "request"
    ANSWER = "answer"


class PostgresProxy:
    """Passes everything on, but for what it was told to lose. A server that is away is to its client a connection that ends at once.

    `queries` counts what clients have sent, each a round trip to psycopg2, which waits for the answer.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._armed: Lost | None = None
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self.losses = 0
        self.queries = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def lose_next(self, what: Lost | None) -> None:
        """The next COMMIT of any connection; None takes it back."""
        with self._lock:
            self._armed = what

    def cut(self) -> int:
        """Ends every connection in the middle of whatever it does; how many ends there were."""
        with self._lock:
            ends = list(self._open)
        for each in ends:
            _cut(each)
        return len(ends)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Lets nobody in, while those who are connected stay."""
        self._refuses = True
        try:
            yield
        finally:
            self._refuses = False

    @contextlib.contextmanager
    def holding_up(self) -> Iterator[None]:
        """Connections stay open and nothing comes through, as when a network loses every packet."""
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
                    if self._refuses:
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
            # The server has answered, so what it was asked for is done.
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


def _cut(end: socket.socket) -> None:
    # A bare close would leave the other thread of the pair in its recv, and the peer waiting.
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
