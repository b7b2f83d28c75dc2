"""The home: the directory that holds one stack's data, secrets, logs and addresses, used by one supervisor at a time."""

import contextlib
import fcntl
import os
import random
import secrets
import socket
import stat
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import orjson

from compose.embedded.product import StartError
from orchestrator.process.ports import LAST_PORT

LOOPBACK_ADDRESS = "127.0.0.1"

# Below the range from which Linux and macOS take the ports of outgoing connections (32768, 49152), so that none of those can occupy
# a component's port while it restarts. Above what well-known servers use.
PORTS = range(15_000, 32_000)
PORT_TRIES = 200

CLAIM_TIMEOUT_S = 0.5  # a process that only checks who holds the home holds it for a moment


class HomeInUseError(Exception):
    """Another process uses this home. `pid` says which. Stop it with `down`, or choose another home."""

    def __init__(self, home: Path, pid: int | None) -> None:
        super().__init__(f"{home} is in use by process {pid or 'unknown'}")
        self.pid = pid


class HomeError(StartError):
    """This home can't store anything. The message says why."""


class Home:
    """The paths of a home, and what it keeps from one start to the next."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.expanduser().resolve()
        except (OSError, RuntimeError) as error:  # a name that is too long; a loop of links, or a user that does not exist
            raise HomeError(f"{path} can't be a home: {error}") from error
        self.logs = self.path / "logs"
        self.records = self.path / "run"
        self.stack_file = self.path / "stack.json"
        self._lock_file = self.path / "lock"
        self._ports_file = self.path / "ports.json"
        self._reserved: set[int] = set()

    def create(self) -> None:
        """Creates the directories. Only their owner may enter, because they hold passwords and people's data. Raises HomeError."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for directory in (self.logs, self.records):
                directory.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise HomeError(f"{self.path} can't be a home: {error.strerror}; name another folder with --home") from error

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Holds the home for this process. The kernel releases it however the process ends. Raises HomeInUseError."""
        self.create()
        deadline = time.monotonic() + CLAIM_TIMEOUT_S
        with self._lock_file.open("a+") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise HomeInUseError(self.path, _pid_in(lock)) from None
                    time.sleep(CLAIM_TIMEOUT_S / 10)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def holder(self) -> int | None:
        """Returns the id of the process that holds the home, or None. Raises HomeError."""
        try:
            lock = self._lock_file.open("r")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HomeError(f"{self.path} can't be read: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid_in(lock)
            return None

    def secret(self, name: str) -> str:
        """Returns a random secret of 256 bits. The first call creates it, readable only by its owner; later calls return the same."""
        path = self.path / name
        if not path.exists():
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            new.touch(mode=0o600)
            new.write_text(secrets.token_urlsafe(32))
            new.replace(path)
        return path.read_text()

    def port(self, name: str, *, preferred: int | None = None) -> int:
        """Returns a free loopback port for a component: the same as last time if it is free now. Raises StartError when none is."""
        known = self._known_ports()
        candidates = [known.get(name), preferred, *random.SystemRandom().sample(PORTS, PORT_TRIES)]
        taken = {port for other, port in known.items() if other != name}
        for port in candidates:
            if port is not None and port not in taken and self.reserve(port):
                new = self._ports_file.with_suffix(".new")
                new.write_bytes(orjson.dumps(known | {name: port}))
                new.replace(self._ports_file)
                return port
        message = f"none of {PORT_TRIES} ports between {PORTS.start} and {PORTS.stop} is free"
        raise StartError(message)

    def _known_ports(self) -> dict[str, int]:
        """The ports of last time. They are only preferred, so a damaged file (of a full disk) counts as none."""
        try:
            found = orjson.loads(self._ports_file.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        ports = found.items() if isinstance(found, dict) else ()
        return {name: port for name, port in ports if type(port) is int and 0 < port <= LAST_PORT}

    def reserve(self, port: int) -> bool:
        """Whether a server of this home can have the port. While this object lives, no other home gets it.

        Being free is not enough: a port that is free now is still free when another stack checks, some seconds before either listens [seen:
        two that started together took 8080, and the first one's API responded for the second]. Raises StartError if the reservation can't
        be written.
        """
        if not is_free(port):
            return False
        if port not in self._reserved:
            reservation = _open_reservation(port)
            try:
                # The kernel releases the lock when this process ends, however it ends.
                fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(reservation)
                return False
            weakref.finalize(self, os.close, reservation)
            self._reserved.add(port)
        return True


def _open_reservation(port: int) -> int:
    """Opens the file that the owner of the port locks. Raises StartError."""
    # Everybody may write to the temporary folder and can guess the name. So an existing file may belong to somebody else, or be a link.
    directory = Path(tempfile.gettempdir()) / f"bulkreg-ports-{os.getuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            message = f"{directory} is no directory of ours; remove it, or set TMPDIR to another folder"
            raise StartError(message)
        return os.open(directory / str(port), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, mode=0o600)
    except OSError as error:
        message = (
            f"can't reserve port {port} in {directory}: {error.strerror}; remove that directory, or set TMPDIR to another folder"
        )
        raise StartError(message) from error


def is_free(port: int) -> bool:
    """Whether a server could listen there on loopback now. Lingering connections of the last one don't count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK_ADDRESS, port))
        except OSError:
            return False
        return True


def _pid_in(lock: IO[str]) -> int | None:
    lock.seek(0)
    text = lock.read()
    return int(text) if text.isdecimal() else None
