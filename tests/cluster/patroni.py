"""Two PostgreSQL servers that Patroni and etcd manage, with synchronous replication."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import psutil
import psycopg2
import pytest

from compose.embedded.postgres import DATABASE, OWNER, UNPRIVILEGED_USER, binaries
from compose.embedded.process import launched
from tests.support.no_tls import NO_TLS
from tests.support.ports import free_port
from tests.support.waiting import eventually

NODES = ("pg-1", "pg-2")
PASSWORD = "of-a-test"
LOST_AFTER_S = 20
"""How long Patroni waits for a leader: the shortest time that it allows."""
READY_WITHIN_S = 180.0


class Managed:
    """The two servers. `folder` is readable for the user that they run as."""

    def __init__(self, folder: Path, patroni: str, etcd_port: int) -> None:
        self._folder = folder
        self._patroni = patroni
        self._etcd_port = etcd_port
        self._ports = {node: free_port() for node in NODES}
        self._rest = {node: free_port() for node in NODES}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """The URL with both servers."""
        places = ",".join(f"127.0.0.1:{port}" for port in self._ports.values())
        return f"postgresql://{OWNER}:{quote(PASSWORD)}@{places}/{DATABASE}?target_session_attrs=read-write"

    @property
    def ports(self) -> Sequence[int]:
        """The ports of both servers."""
        return tuple(self._ports.values())

    def start(self, node: str) -> None:
        """Starts Patroni, which starts the server."""
        configuration = self._folder / f"{node}.json"
        configuration.write_bytes(orjson.dumps(self._configuration(node)))
        with (self._folder / f"{node}.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                launched([self._patroni, str(configuration)], user=UNPRIVILEGED_USER if os.geteuid() == 0 else ""),
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )

    def lose(self, node: str) -> None:
        """Ends Patroni and its server at once, as if the machine had failed."""
        self._processes[node].kill()
        for process in self._servers(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._processes[node].wait()

    @contextlib.contextmanager
    def frozen(self, node: str) -> Iterator[None]:
        """Stops Patroni and its server with SIGSTOP while the block runs, as if the machine stood still."""
        family = [psutil.Process(self._processes[node].pid), *self._servers(node)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill_a_backend(self, node: str) -> bool:
        """Kills a session of a client. Returns False if there is none."""
        for process in self._servers(node):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "bulkreg_" in " ".join(process.cmdline()):
                    process.kill()
                    return True
        return False

    def stop(self) -> None:
        """Ends everything."""
        for node in self._processes:
            self.lose(node)

    def leader(self) -> str | None:
        """The node that accepts changes. None: there is none."""
        return next((node for node in NODES if self._answers(node, "primary")), None)

    def standby(self) -> str | None:
        """The node that has every commit. None: there is none."""
        return next((node for node in NODES if self._answers(node, "synchronous")), None)

    def has_synchronous_standby(self) -> bool:
        """Whether a commit waits for a second copy."""
        return self.standby() is not None

    def switch_over(self) -> bool:
        """Makes the standby the leader, as an operator does before maintenance. Returns False if Patroni sees no leader or standby."""
        leader = self.leader()
        if leader is None:
            return False
        [candidate] = set(NODES) - {leader}
        answer = httpx.post(
            f"http://127.0.0.1:{self._rest[leader]}/switchover",
            json={"leader": leader, "candidate": candidate},
            timeout=READY_WITHIN_S,
            verify=NO_TLS,
        )
        return answer.status_code == 200

    def _servers(self, node: str) -> list[psutil.Process]:
        data = str(self._folder / node)
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "postgres" and data in process.cmdline():
                    found += [process, *process.children(recursive=True)]
        return found

    def _answers(self, node: str, path: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._rest[node]}/{path}", timeout=5, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    def _configuration(self, node: str) -> dict[str, Any]:
        return {
            "scope": "bulkreg",
            "name": node,
            "restapi": {"listen": f"127.0.0.1:{self._rest[node]}", "connect_address": f"127.0.0.1:{self._rest[node]}"},
            "etcd3": {"host": f"127.0.0.1:{self._etcd_port}"},
            "bootstrap": {
                "dcs": {"ttl": LOST_AFTER_S, "loop_wait": 2, "retry_timeout": 3, "synchronous_mode": True},
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, {"auth-host": "scram-sha-256"}, {"auth-local": "trust"}],
                "pg_hba": ["host all all 127.0.0.1/32 scram-sha-256", "host replication all 127.0.0.1/32 scram-sha-256"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self._ports[node]}",
                "connect_address": f"127.0.0.1:{self._ports[node]}",
                "data_dir": str(self._folder / node),
                "bin_dir": str(binaries()),
                "authentication": {
                    "superuser": {"username": OWNER, "password": PASSWORD},
                    "replication": {"username": "replicator", "password": PASSWORD},
                },
                "parameters": {"unix_socket_directories": str(self._folder)},
                "use_pg_rewind": True,
                # Otherwise a copy waits for the next regular checkpoint, up to five minutes.
                "basebackup": {"checkpoint": "fast"},
                "remove_data_directory_on_diverged_timelines": True,
            },
        }


@contextlib.contextmanager
def managed() -> Iterator[Managed]:
    """Starts etcd and both servers, with the product's database. Skips the test if Patroni or etcd is not installed."""
    patroni, etcd = shutil.which("patroni"), shutil.which("etcd")
    if patroni is None or etcd is None:
        pytest.skip(
            "needs Patroni and etcd on the PATH (pip install 'patroni[etcd3]' psycopg2-binary; apt-get install etcd-server)"
        )
    with tempfile.TemporaryDirectory(prefix="bulkreg-patroni-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED_USER)
        client, peer = free_port(), free_port()
        with (folder / "etcd.log").open("ab") as log:
            store = subprocess.Popen(
                [
                    *(etcd, "--data-dir", str(folder / "etcd"), "--name", "only"),
                    *(f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}"),
                    *(f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                    f"--initial-cluster=only=http://127.0.0.1:{peer}",
                ],
                stdout=log,
                stderr=log,
            )
        servers = Managed(folder, patroni, client)
        try:
            for node in NODES:
                servers.start(node)
            eventually(servers.leader, within_s=READY_WITHIN_S, what="a leader")
            with contextlib.closing(psycopg2.connect(servers.url.replace(f"/{DATABASE}?", "/postgres?"))) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
            eventually(servers.has_synchronous_standby, within_s=READY_WITHIN_S, what="a synchronous standby")
            yield servers
        except BaseException:
            for log_file in folder.glob("*.log"):
                print(log_file.name, log_file.read_text(errors="replace")[-3_000:])
            raise
        finally:
            servers.stop()
            store.kill()
            store.wait()
