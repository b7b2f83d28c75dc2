"""One child process: started through the launcher, recorded, stopped, and never left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import psutil

from compose.embedded import launch
from compose.embedded.product import StartError

KILL_TIMEOUT_S = 10.0  # the kernel ends a killed process in milliseconds; a longer time means that its disk hangs
ORPHAN_TIMEOUT_S = 5.0  # for PostgreSQL's last checkpoint; after a kill it recovers instead
POLL_S = 0.02  # while something starts; nothing polls once it runs
LAST_LINES = 15


class ProcessError(StartError):
    """A child ended, or was not ready in time. The message names its log and shows the log's last lines."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to run, and how to end it."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the inherited variables."""
    inherits: Collection[str] | None = None
    """The variables that it inherits. None: all."""
    directory: Path | None = None
    """Its working directory. None: ours."""
    user: str = ""
    """The user that it runs as. Empty: the present one."""
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGKILL
    """The signal that it gets when the process that started it dies."""


class Child:
    """A program's process. It may be started again after it has ended.

    Start it from a thread that lives as long as the child may: Linux treats the end of that thread as the parent's death.
    """

    def __init__(self, program: Program, records: Path) -> None:
        self.program = program
        self._record = records / f"{program.name}.pid.json"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended. None: it runs. A negative number is a signal, as in `subprocess`."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Starts it, after ending a process that an earlier, killed starter may have left. Returns immediately."""
        end_recorded(self._record, self.program.orphan_signal)
        with self.program.log.open("ab") as output:
            self._process = subprocess.Popen(
                launched(self.program.command, user=self.program.user, orphan_signal=self.program.orphan_signal),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment(self.program.inherits), **self.program.environment},
                cwd=self.program.directory,
                start_new_session=True,  # so that a terminal's Ctrl-C reaches only the supervisor, which stops all in order
            )
        write_record(self._record, self._process.pid)

    def wait_ready(self, is_ready: Callable[[int], bool], deadline: float, pause: Callable[[float], None] = time.sleep) -> None:
        """Waits until `is_ready(pid)` or the deadline (`time.monotonic()`). Raises ProcessError."""
        while (pid := self.pid) is None or not is_ready(pid):
            if pid is None:
                raise ProcessError(self._complaint(f"ended with code {self.exit_code} before it was ready"))
            if time.monotonic() > deadline:
                raise ProcessError(self._complaint("was not ready in time"))
            pause(POLL_S)

    def signal_stop(self) -> None:
        """Asks it to end. Does nothing if it has ended."""
        if self._process is not None:
            self._process.send_signal(self.program.stop_signal)

    def wait(self, deadline: float) -> None:
        """Waits until it ends. Kills it at the deadline (`time.monotonic()`)."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
        self._record.unlink(missing_ok=True)

    def signal_kill(self) -> None:
        """Sends SIGKILL. Does nothing if it has ended."""
        if self._process is not None:
            self._process.kill()

    def kill(self) -> None:
        """Sends SIGKILL and waits until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILL_TIMEOUT_S)

    def _complaint(self, what: str) -> str:
        log = self.program.log
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"{self.program.name} {what}; the end of {log}:", *(f"  {line}" for line in lines)])


# The only variables of a shell that a server needs. Others (JAVA_TOOL_OPTIONS, CLASSPATH, PGDATA, a locale that does not exist) would
# affect it.
SERVER_INHERITS = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH")

# In the C locale, file names would be read as ASCII.
SERVER_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}


def environment(inherits: Collection[str] | None) -> dict[str, str]:
    """Returns those of our variables that are set. None: all variables."""
    return {name: value for name, value in os.environ.items() if inherits is None or name in inherits}


def run_to_end(
    command: Sequence[str], *, directory: Path, user: str = "", standard_input: str = "", timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Runs a server's tool in its environment, and waits for its end."""
    return subprocess.run(
        launched(command, user=user),
        input=standard_input,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=timeout_s,
        env=environment(SERVER_INHERITS) | SERVER_ENVIRONMENT,
        cwd=directory,
        check=False,
    )


def launched(command: Sequence[str], *, user: str = "", orphan_signal: int = signal.SIGKILL) -> list[str]:
    """Returns the command as the launcher runs it on behalf of this process."""
    python = [sys.executable, "-I", "-S", launch.__file__]
    return [*python, str(os.getpid()), str(int(orphan_signal)), user, *command]


def write_record(record: Path, pid: int) -> None:
    """Records a process so that it can be recognized: ids are reused, but not with the same start time."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, so there is nothing to record
        content = orjson.dumps({"pid": pid, "created": psutil.Process(pid).create_time()})
        new = record.with_suffix(".new")
        new.write_bytes(content)
        new.replace(record)


def end_recorded(record: Path, orphan_signal: signal.Signals) -> None:
    """Ends the recorded process if it lives. Its starter was killed and could not end it."""
    try:
        known = orjson.loads(record.read_bytes())
        process = psutil.Process(known["pid"])
        if process.create_time() != known["created"]:
            return
        process.send_signal(orphan_signal)
        try:
            process.wait(ORPHAN_TIMEOUT_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(KILL_TIMEOUT_S)
    except (FileNotFoundError, psutil.NoSuchProcess):
        pass
