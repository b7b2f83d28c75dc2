"""What the benchmark reads about processes, including those that end meanwhile."""

import subprocess
import sys
from unittest.mock import create_autospec

import psutil

from compose.bench.processes import own_cpu_s, tree_cpu_s
from tests.support.waiting import eventually

# Computes until it is killed, because a kernel that samples CPU time misses a few milliseconds.
BUSY = "while True: pass"


def test_a_child_that_has_just_ended_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        seen = psutil.Process(child.pid)
        try:
            eventually(lambda: own_cpu_s(seen) > 0)
        finally:
            child.kill()
    assert own_cpu_s(seen) == 0.0


def test_a_child_that_ends_while_its_server_is_read_is_counted_once() -> None:
    child, server = create_autospec(psutil.Process, instance=True), create_autospec(psutil.Process, instance=True)
    child.cpu_times.side_effect = psutil.NoSuchProcess(1)
    server.children.side_effect = [[child], [], []]
    server.cpu_times.side_effect = [(1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 5.0, 0.0)]  # own, then of children that have ended
    assert tree_cpu_s(server) == 6.0
