"""What the benchmark reads about processes, including those that end meanwhile."""

import subprocess
import sys

import psutil

from compose.bench.processes import own_cpu_s
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
