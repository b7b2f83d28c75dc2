"""Runs the whole product on one machine: infrastructure, set-up and roles, supervised until told to stop."""

import http.client
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from compose.embedded.gate import closed
from compose.embedded.home import LOOPBACK_ADDRESS, Home
from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import layout_of
from compose.embedded.log_files import LOOK_EVERY_S, shorten_logs
from compose.embedded.process import Child, Program
from compose.embedded.product import ROLE_GROUPS, Product
from compose.embedded.receipts_key import RECEIPTS_ORIGIN, receipts_key
from compose.embedded.stack_file import StackFile
from compose.embedded.supervisor import Signals, StopRequestedError, supervise

API_PORT = 8080  # unless it is taken

# The process of the console's identity provider, among those of the roles.
LOGIN = ("login",)

# Return free memory to the system (mallopt(3)). With eight arenas for each core, and thresholds that grow with what was freed once, the API
# kept 184 MB after some batches of 10,000. With these values it keeps 133, and is no slower. The Dockerfile sets the same.
FRUGAL_MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}

API_START_TIMEOUT_S = 60.0
API_PROBE_TIMEOUT_S = 5.0
ROLE_STOP_TIMEOUT_S = 20.0  # longer than a process takes (`STOP_WITHIN_S`); a kill loses nothing and only repeats work


class PortTakenError(Exception):
    """The requested port is in use. Choose another one, or leave it out: then a free one is found."""


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """How to run the product here."""

    port: int | None = None
    """The API's port. None: last time's, or 8080, or a free one."""
    postgres_url: str | None = None
    kafka_bootstrap_servers: str | None = None
    """Servers that run elsewhere. None: runs our own."""
    cluster: bool = False
    """Three brokers, and a PostgreSQL primary with a synchronous standby."""


class Stack:
    """One run of the product in a home."""

    def __init__(self, home: Home, product: Product, options: StackOptions, report: Callable[[str], None]) -> None:
        self._home = home
        self._product = product
        self._options = options
        self._report = report
        self._roles: dict[tuple[str, ...], Child] = {}

    def run(self, on_ready: Callable[[StackFile], None]) -> signal.Signals:
        """Starts everything, calls `on_ready`, and keeps it running until a signal arrives. Returns the signal. Main thread only.

        Raises HomeInUseError, PortTakenError, and StartError when something does not start.
        """
        with self._home.claimed():
            self._home.stack_file.unlink(missing_ok=True)
            port = self._api_port()
            self._signals = Signals(self._kill_all)
            self._infrastructure = Infrastructure(
                self._home,
                postgres_url=self._options.postgres_url,
                kafka_bootstrap_servers=self._options.kafka_bootstrap_servers,
                layout=layout_of(self._home, cluster=self._options.cluster),
                pause=self._signals.wait,
            )
            with self._signals:
                return self._run(port, on_ready)

    def _run(self, port: int, on_ready: Callable[[StackFile], None]) -> signal.Signals:
        try:
            self._start(port)
            self._publish()
            on_ready(self._file())
            children = [*self._infrastructure.children.values(), *self._roles.values()]
            supervise(
                children,
                self._signals,
                changed=self._publish,
                report=self._report,
                tidy=lambda: shorten_logs(self._home.logs),
                tidy_every_s=LOOK_EVERY_S,
            )
        except StopRequestedError as request:
            self._withdraw()
            self._report("Stopping; a second Ctrl-C leaves at once")
            return request.signal
        finally:
            self._stop()

    def _api_port(self) -> int:
        if self._options.port is None:
            return self._home.port("api", preferred=API_PORT)
        if not self._home.reserve(self._options.port):
            message = f"port {self._options.port} is in use"
            raise PortTakenError(message)
        return self._options.port

    def _start(self, port: int) -> None:
        began_s = time.monotonic()
        self._api_url = f"http://{LOOPBACK_ADDRESS}:{port}"
        gate = self._home.records / "gate"
        # The roles load their code while the servers start.
        with closed(gate):
            try:
                self._start_roles(port, gate)
                endpoints = self._infrastructure.start(lambda: self._prepare_database(began_s))
                self._product.prepare_kafka(endpoints)
            except BaseException:
                # They wait at the gate, or have not reached it, and have done nothing yet. None may pass it now.
                for child in self._roles.values():
                    child.kill()
                raise
        self._report(f"Kafka and the topics are ready after {time.monotonic() - began_s:.1f} s")
        self._roles["api",].wait_ready(
            lambda pid: listens(pid, port) and answers(port, "/readyz"),
            time.monotonic() + API_START_TIMEOUT_S,
            self._signals.wait,
        )
        self._report(f"Ready after {time.monotonic() - began_s:.1f} s")

    def _prepare_database(self, began_s: float) -> None:
        endpoints = self._infrastructure.endpoints
        self._product.prepare_database(endpoints)
        self._tokens = self._product.tokens(endpoints, self._home.secret("jwt-key"))
        self._report(f"PostgreSQL and the schema are ready after {time.monotonic() - began_s:.1f} s")

    def _start_roles(self, port: int, gate: Path) -> None:
        endpoints = self._infrastructure.endpoints
        login_port = self._home.port("login")
        environment = {
            "BULKREG_DATABASE_URL": endpoints.postgres_url,
            "BULKREG_KAFKA_BOOTSTRAP_SERVERS": endpoints.kafka_bootstrap_servers,
            "BULKREG_API_HOST": LOOPBACK_ADDRESS,
            "BULKREG_API_PORT": str(port),
            "BULKREG_JWT_HS256_KEY": self._home.secret("jwt-key"),
            "BULKREG_WEBHOOK_KEYS": self._home.secret("webhook-key"),
            "BULKREG_FORGETTING_KEY": self._home.secret("forgetting-key"),
            "BULKREG_PUBLIC_URL": self._api_url,
            "BULKREG_OIDC_ISSUER": f"http://{LOOPBACK_ADDRESS}:{login_port}",
            "BULKREG_OIDC_CLIENT_ID": "console",
            "BULKREG_OIDC_CLIENT_SECRET": self._home.secret("login-secret"),
            "BULKREG_RECEIPTS_ORIGIN": RECEIPTS_ORIGIN,
            "BULKREG_RECEIPTS_SIGNING_KEY": receipts_key(self._home).secret_text(),
            "BULKREG_LOG_DIRECTORY": str(self._home.logs),
            **FRUGAL_MALLOC,
        }
        if endpoints.topic_copies is not None:
            environment["BULKREG_TOPIC_REPLICATION_FACTOR"] = str(endpoints.topic_copies)
        commands = {LOGIN: self._product.login, **{roles: self._product.command(roles, gate) for roles in ROLE_GROUPS}}
        for roles, command in commands.items():
            name = "-".join(roles)
            program = Program(
                name=name,
                command=command,
                log=self._home.logs / f"{name}.log",
                environment=environment,
            )
            self._roles[roles] = Child(program, self._home.records)
            self._roles[roles].start()

    def _publish(self) -> None:
        self._file().write(self._home.stack_file)

    def _file(self) -> StackFile:
        pids = {role: [child.pid] for roles, child in self._roles.items() for role in roles if child.pid is not None}
        servers = {name: [pid] for name, pid in self._infrastructure.pids.items()}
        endpoints = self._infrastructure.endpoints
        # The first organization may have been added since: a directory import writes its administrator's token into the file.
        written = StackFile.read(self._home)
        return StackFile(
            api=self._api_url,
            console=f"{self._api_url}/console/",
            kafka=endpoints.kafka_bootstrap_servers,
            postgres=endpoints.postgres_url,
            topic_copies=endpoints.topic_copies,
            token=self._tokens.service,
            admin_token=self._tokens.admin or (written.admin_token if written else None),
            pids={"supervisor": [os.getpid()]} | servers | pids,
        )

    def _withdraw(self) -> None:
        """Removes the file with the addresses, because nothing runs any more."""
        self._home.stack_file.unlink(missing_ok=True)

    def _stop(self) -> None:
        self._withdraw()
        for child in self._roles.values():
            child.signal_stop()
        deadline = time.monotonic() + ROLE_STOP_TIMEOUT_S
        for child in self._roles.values():
            child.wait(deadline)
        self._infrastructure.stop()

    def _kill_all(self) -> None:
        self._withdraw()
        for child in (*self._roles.values(), *self._infrastructure.children.values()):
            child.signal_kill()


def listens(pid: int, port: int) -> bool:
    """Whether this very process serves the port, and not another that was there first."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)


def answers(port: int, path: str) -> bool:
    """Whether a server on loopback returns 200 there."""
    connection = http.client.HTTPConnection(LOOPBACK_ADDRESS, port, timeout=API_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
