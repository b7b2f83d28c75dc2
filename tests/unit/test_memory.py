"""Free memory between used pages is returned to the system on request, and the garbage collector leaves imports alone."""

import platform
import subprocess
import sys

import pytest

from tests.support.waiting import PATIENCE_S

# In a new process. One that has run other tests has free memory already, and would allocate none for this.
PROGRAM = """
import psutil
from orchestrator.process.memory import give_free_memory_back

resident = psutil.Process().memory_info
before = resident().rss
made = [bytes(1024) for _ in range(100_000)]
taken = resident().rss - before
stays = made[::1000]  # some stay, so nowhere is much free in one piece
del made
give_free_memory_back()
print(taken, resident().rss - before, len(stays))
"""


def test_free_pages_between_used_ones_are_returned() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    taken, kept, stays = map(int, said.split())
    assert stays == 100
    assert taken > 80e6
    assert kept < taken / 4 or platform.libc_ver()[0] != "glibc", f"{kept} of {taken} bytes"


REPEATED = """
import threading
import psutil
from orchestrator.process.memory import free_memory_until

resident = psutil.Process().memory_info
before = resident().rss
made = [bytes(1024) for _ in range(100_000)]
taken = resident().rss - before
stays = made[::1000]
del made

ended = threading.Event()

def watch():
    while resident().rss - before > taken / 4:
        pass
    ended.set()

threading.Thread(target=watch, daemon=True).start()
free_memory_until(ended, every_s=0.01)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides by itself when to return free memory")
def test_a_process_returns_free_pages_again_and_again() -> None:
    subprocess.run([sys.executable, "-c", REPEATED], check=True, timeout=PATIENCE_S)


COLLECTOR = """
import gc
from orchestrator.process import memory

memory.postpone_collector()
print(gc.isenabled())
memory.relieve_collector()
print(gc.isenabled(), gc.get_freeze_count() > 1_000)
"""


def test_the_collector_runs_once_the_imports_are_done() -> None:
    said = subprocess.run([sys.executable, "-c", COLLECTOR], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["False", "True", "True"]


CYCLES = """
import threading
import weakref
from orchestrator.process import memory

class Error(Exception):
    pass

def fail():
    error = Error()
    error.itself = error
    return weakref.ref(error, lambda _: ended.set())

ended = threading.Event()
memory.relieve_collector()
kept = fail()
memory.free_memory_until(ended, every_s=0.01)
"""


def test_cycles_are_freed_although_the_collector_runs_rarely() -> None:
    subprocess.run([sys.executable, "-c", CYCLES], check=True, timeout=PATIENCE_S)
