"""What the benchmark reads of processes, also of those that end meanwhile."""

import subprocess
import sys

import psutil

from compose.bench.processes import own_cpu_s
from tests.support.waiting import eventually


def test_a_child_that_has_just_ended_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "sum(range(10**6)); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        seen = psutil.Process(child.pid)
        eventually(lambda: own_cpu_s(seen) > 0)
        child.communicate(b"\n")
    assert own_cpu_s(seen) == 0.0
