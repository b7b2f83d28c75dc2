"""PgBouncer in front of a test's database."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from orchestrator.process.settings import Settings
from tests.support.ports import free_port
from tests.support.waiting import eventually

# Debian's package installs it in a folder that is not on an ordinary user's PATH.
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


class Pooler:
    """A PgBouncer that may be killed and started again."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        self._command = command
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it. Returns when it listens."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: _listens(self._port), what="PgBouncer")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends the signal. Returns when it has ended."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()


@contextlib.contextmanager
def pooled(settings: Settings, **options: str) -> Iterator[Settings]:
    """Yields the settings of the same deployment behind a pooler with these options. Skips the test if PgBouncer is not installed."""
    with running_pooler(settings, **options) as (through, _):
        yield through


@contextlib.contextmanager
def running_pooler(settings: Settings, **options: str) -> Iterator[tuple[Settings, Pooler]]:
    """As `pooled`, with the pooler itself.

    CI installs PgBouncer and sets BULKREG_TEST_PGBOUNCER=required. There, a missing PgBouncer fails the test.
    """
    program = shutil.which("pgbouncer", path=_PLACES)
    if program is None:
        if os.environ.get("BULKREG_TEST_PGBOUNCER") == "required":
            pytest.fail("PgBouncer is not installed, and BULKREG_TEST_PGBOUNCER=required: apt-get install pgbouncer")
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    urls = {
        "database_url": settings.owner_url,
        "worker_database_url": settings.worker_url,
        "api_database_url": settings.api_url,
    }
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    with tempfile.TemporaryDirectory(prefix="bulkreg-pooler-") as folder:
        port = free_port()
        pooler = Pooler(_command(program, Path(folder), port, settings, options), port)
        pooler.start()
        try:
            yield Settings.model_validate(given | {name: _through(url, port) for name, url in urls.items()}), pooler
        finally:
            pooler.end()


def _command(program: str, folder: Path, port: int, settings: Settings, options: Mapping[str, str]) -> Sequence[str]:
    """Writes the configuration and returns the command line."""
    users, configuration = folder / "users.txt", folder / "pgbouncer.ini"
    urls = (settings.owner_url, settings.worker_url, settings.api_url)
    users.write_text("".join(f'"{url.username}" "{url.password}"\n' for url in urls))
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "trust",
        "auth_file": str(users),
        "logfile": str(folder / "pgbouncer.log"),
        **options,
    }
    server = f"* = host={settings.owner_url.host} port={settings.owner_url.port or 5432}"
    parts = ["[databases]", server, "[pgbouncer]", *(f"{name} = {value}" for name, value in lines.items())]
    configuration.write_text("\n".join(parts) + "\n")
    as_user = []
    if os.geteuid() == 0:  # PgBouncer refuses to run as root
        as_user = ["-u", "nobody"]
        for path in (folder, users, configuration):
            shutil.chown(path, "nobody")
    return [program, *as_user, str(configuration)]


def _through(url: URL, port: int) -> SecretStr:
    return SecretStr(url.set(drivername="postgresql", port=port).render_as_string(hide_password=False))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
