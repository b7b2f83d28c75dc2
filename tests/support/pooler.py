"""PgBouncer in front of a test's database."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import URL

from orchestrator.process.settings import Settings
from tests.support.ports import free_port
from tests.support.waiting import eventually

# As Debian's package installs it, which is on no ordinary user's PATH.
_PLACES = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


@contextlib.contextmanager
def pooled(settings: Settings, **options: str) -> Iterator[Settings]:
    """The settings of the same deployment behind a pooler with these options. Skips the test where PgBouncer is not installed.

    CI installs it, and sets BULKREG_TEST_PGBOUNCER=required: there its absence fails the test.
    """
    program = shutil.which("pgbouncer", path=_PLACES)
    if program is None:
        if os.environ.get("BULKREG_TEST_PGBOUNCER") == "required":
            pytest.fail("PgBouncer is not installed, and BULKREG_TEST_PGBOUNCER=required: apt-get install pgbouncer")
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    with (
        tempfile.TemporaryDirectory(prefix="bulkreg-pooler-") as folder,
        _running(program, Path(folder), settings, options) as port,
    ):
        urls = {
            "database_url": settings.owner_url,
            "worker_database_url": settings.worker_url,
            "api_database_url": settings.api_url,
        }
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        yield Settings.model_validate(given | {name: _through(url, port) for name, url in urls.items()})


@contextlib.contextmanager
def _running(program: str, folder: Path, settings: Settings, options: Mapping[str, str]) -> Iterator[int]:
    """Its port."""
    port = free_port()
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
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ["-u", "nobody"]
        for path in (folder, users, configuration):
            shutil.chown(path, "nobody")
    process = subprocess.Popen([program, *as_user, str(configuration)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: _listens(port), within_s=10, what="PgBouncer")
        yield port
    finally:
        process.terminate()
        process.wait()


def _through(url: URL, port: int) -> SecretStr:
    return SecretStr(url.set(drivername="postgresql", port=port).render_as_string(hide_password=False))


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
