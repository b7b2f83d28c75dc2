"""What the benchmark reads of processes, also of those that end meanwhile."""

import subprocess
import sys

import psutil

from compose.bench.processes import own_cpu_s
from tests.support.waiting import eventually

# Computes until it is killed: a kernel that counts CPU time by samples misses what takes only milliseconds.
BUSY = "while True: pass"


def test_a_child_that_has_just_ended_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY]) as child:
        seen = psutil.Process(child.pid)
        try:
            eventually(lambda: own_cpu_s(seen) > 0)
        finally:
            child.kill()
    assert own_cpu_s(seen) == 0.0
