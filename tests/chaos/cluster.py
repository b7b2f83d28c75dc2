"""The product under test: `bulkreg up` in a home of its own. Its single servers: PostgreSQL behind a proxy and on a small disk."""

import contextlib
import http.client
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from compose.embedded.home import LOOPBACK_ADDRESS, Home
from compose.embedded.postgres import PostgresServer
from compose.embedded.product import ROLE_GROUPS
from orchestrator.process.settings import Settings
from tests.chaos.disk import Disk, small_disk
from tests.chaos.work import LEAVERS, MENTORS
from tests.faults.proxy import PostgresProxy
from tests.support.pipeline import ORGANIZATION, standard_directory
from tests.support.product import Product, running_product
from tests.support.waiting import eventually

ROLES = tuple("-".join(group) for group in ROLE_GROUPS)
"""Our processes, by the roles that they run."""

POSTGRES, KAFKA = "postgres", "kafka"
NOT_CUT = (
    "Kafka's connections were not cut one by one: the broker tells its clients the address to come back to, which leads past any proxy. "
    "It was killed and stopped instead."
)
NO_DISK = "The disk was not filled: mounting a small one takes rights that this run did not have."
HEALED_WITHIN_S = 300.0


class Cluster:
    """The product as the clients, the nemesis and the judge use it, on whatever servers."""

    servers: Sequence[str] = ()
    """The servers whose memory is watched, by the names that `process` knows."""

    def __init__(self, product: Product) -> None:
        self.product = product
        stack = product.stack
        self.api: str = stack["api"]
        self.token: str = stack["token"]
        self.postgres_url: str = stack["postgres"]
        """Of the owner. It leads through no proxy."""
        self.settings = Settings(database_url=SecretStr(self.postgres_url), kafka_bootstrap_servers=stack["kafka"])
        self.supervisor: int = stack["pids"]["supervisor"][0]

    @property
    def not_reached(self) -> Sequence[str]:
        """What this run can't break, in sentences."""
        return ()

    def process(self, name: str) -> psutil.Process | None:
        """The process of a role group, or a server. None between its end and its next start."""
        pids: Mapping[str, Sequence[int]] = self.product.stack["pids"]
        try:
            return psutil.Process(pids[name.split("-")[0]][0])
        except (KeyError, psutil.NoSuchProcess):
            return None

    def send(self, name: str, number: signal.Signals) -> bool:
        """Sends a signal. Returns whether there was a process."""
        process = self.process(name)
        with contextlib.suppress(psutil.NoSuchProcess):
            if process is not None:
                process.send_signal(number)
                return True
        return False

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[bool]:
        """Sends SIGSTOP to a process and its children, and SIGCONT at the end. Yields whether there was one."""
        process = self.process(name)
        stopped: list[psutil.Process] = []
        try:
            with contextlib.suppress(psutil.NoSuchProcess):
                # The parent first, or it would start others in place of those that don't respond.
                for each in [] if process is None else [process, *process.children(recursive=True)]:
                    stopped.append(each)
                    each.suspend()
            yield bool(stopped)
        finally:
            for each in stopped:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.resume()

    def wait_until_healed(self) -> None:
        """Returns when every process runs and the API serves. Raises AssertionError if that takes too long."""
        eventually(self._is_whole, within_s=HEALED_WITHIN_S, what="every process up again")

    def _is_whole(self) -> bool:
        try:
            return all(self.process(name) for name in (*ROLES, *self.servers)) and _serves(self.api)
        finally:
            time.sleep(0.1)


class SingleServers(Cluster):
    """The product on one PostgreSQL and one broker, which its supervisor starts again."""

    servers = (POSTGRES, KAFKA)

    def __init__(self, product: Product, proxy: PostgresProxy, disk: Disk | None) -> None:
        super().__init__(product)
        self.proxy = proxy
        self.disk = disk

    @property
    def not_reached(self) -> Sequence[str]:
        return (NOT_CUT,) if self.disk is not None else (NOT_CUT, NO_DISK)

    def backends(self) -> Sequence[psutil.Process]:
        """The database's processes that serve our clients."""
        postmaster = self.process(POSTGRES)
        with contextlib.suppress(psutil.NoSuchProcess):
            if postmaster is not None:
                return [child for child in postmaster.children() if _serves_a_client(child)]
        return []


@contextlib.contextmanager
def single_servers(home: Path, environment: Mapping[str, str]) -> Iterator[SingleServers]:
    """The product, running with a directory, until the block ends. `environment` has its settings."""
    settings = _prepared(home)
    proxy = PostgresProxy(LOOPBACK_ADDRESS, settings.owner_url.port or 0)
    addresses = {
        f"BULKREG_{name}_DATABASE_URL": url.set(port=proxy.port).render_as_string(hide_password=False).replace("+psycopg2", "")
        for name, url in (("WORKER", settings.worker_url), ("API", settings.api_url))
    }
    with (
        contextlib.closing(proxy),
        small_disk(home / PostgresServer.name) as disk,
        running_product(home, {**environment, **addresses}) as product,
    ):
        employ(settings)
        yield SingleServers(product, proxy, disk)


def employ(settings: Settings) -> None:
    """Imports the directory: mentors, and people who leave."""
    engine = create_engine(settings.owner_url)
    standard_directory(engine, mentor_count=MENTORS)
    people = "SELECT :org, 'leaver-' || n, 'Anna Goodbye' || n, 'chapter-1' FROM generate_series(1, :leavers) AS n"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO registration.mentor {people}"), {"org": ORGANIZATION, "leavers": LEAVERS})
    engine.dispose()


def _prepared(home: Path) -> Settings:
    """Creates the database cluster of a home, and returns where it will be. Keeps no `Home` open, because an open one keeps its ports from
    others."""
    place = Home(home)
    place.create()
    place.port("api")  # Not the usual port. While our server is dead, another program might take that port, and get our requests.
    postgres = PostgresServer(place)
    postgres.prepare()
    return Settings(database_url=SecretStr(postgres.url))


def _serves_a_client(process: psutil.Process) -> bool:
    """Decides by the process title: `postgres: bulkreg_worker bulkreg 127.0.0.1(41234) idle`."""
    try:
        return "bulkreg_" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def _serves(api: str) -> bool:
    where = urlsplit(api)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
