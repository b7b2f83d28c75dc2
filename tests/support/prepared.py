"""`bulkreg` without its imports: a process that has loaded the program forks one for each command.

A command is still a process of its own, with its own arguments, environment, folder and standard streams. Only its modules are there already.
Importing them takes longer than most commands do. Tests of the program itself, of signals and of processes that stay run `BULKREG`.
"""

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.support import prepared_client

BULKREG = (sys.executable, "-m", "cli")

# What the commands import, also those modules that only some of them need.
PACKAGES = ("cli", "compose.embedded", "consumers", "orchestrator", "producers", "schemas")


@functools.cache
def prepared_bulkreg() -> Sequence[str]:
    """Returns the command. The first call starts the process that loads the program. It ends with this process."""
    if "COVERAGE_PROCESS_START" in os.environ:
        return BULKREG  # coverage learns which test a process belongs to when the process starts
    folder = tempfile.mkdtemp(prefix="bulkreg-prepared-")  # short enough for a socket
    address = str(Path(folder) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        # Commands wait here until the program is loaded.
        listener.bind(address)
        listener.listen()
        command = [sys.executable, "-m", __name__, str(listener.fileno()), folder]
        _started.append(subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]))
    # -S: without site-packages the client starts in 15 ms.
    return (sys.executable, "-IS", prepared_client.__file__, address)


# Kept open, because the process ends when its standard input does.
_started: list[subprocess.Popen[bytes]] = []


def _main(listener: socket.socket, folder: str) -> None:
    for package in PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)
    gc.freeze()  # the garbage collector of a command skips what is loaded here
    arguments = _serve(listener)
    if arguments is None:
        shutil.rmtree(folder)
    else:
        sys.argv[1:] = arguments
        try:
            runpy.run_module("cli", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            # A normal exit destroys every loaded module, which takes twice as long as all the rest.
            os._exit(cast("int", end.code))


def _serve(listener: socket.socket) -> Sequence[str] | None:
    """Forks a process for each command, in which it returns the command's arguments. Returns None when the tests have ended."""
    running: dict[int, socket.socket] = {}
    ended, told = socket.socketpair()
    for each in (ended, told):
        each.setblocking(False)
    signal.set_wakeup_fd(told.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        sources: list[int | socket.socket] = [0, listener, ended, *running.values()]
        ready, _, _ = select.select(sources, [], [])
        if 0 in ready:
            return None
        if ended in ready:
            ended.recv(65536)
            _report_ended(running)
        for pid, client in running.items():
            if client in ready:  # it was killed
                os.kill(pid, signal.SIGKILL)
        if listener in ready:
            client, _ = listener.accept()
            request, streams = _received(client)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for each in (listener, ended, told, client, *running.values()):
                    each.close()
                return _become(request, streams)
            running[pid] = client
            for stream in streams:
                os.close(stream)


def _report_ended(running: dict[int, socket.socket]) -> None:
    for pid in list(running):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with running.pop(pid) as client, contextlib.suppress(BrokenPipeError):
                client.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _received(client: socket.socket) -> tuple[dict[str, Any], Sequence[int]]:
    received, streams, _, _ = socket.recv_fds(client, 65536, 3)
    while not received.endswith(b"\n"):
        received += client.recv(65536)
    request: dict[str, Any] = json.loads(received)
    return request, streams


def _become(request: dict[str, Any], streams: Sequence[int]) -> Sequence[str]:
    """Takes over what belongs to the command, and returns its arguments."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), line_buffering=os.isatty(1))
    errors = io.BufferedWriter(io.FileIO(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(errors, errors="backslashreplace", line_buffering=True)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    arguments: list[str] = request["arguments"]
    return arguments


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
