"""Measures the CPU time and the memory of the product's own processes."""

import time
from collections.abc import Mapping, Sequence

import psutil

_SERVERS = ("kafka", "postgres")
# The identity provider for development. No request that is measured needs it.
_NOT_MEASURED = ("login",)


class ProcessReplacedError(Exception):
    """A process of the product ended while it was measured, so the figures would be those of a restart. Its log says why it ended."""


class Processes:
    """The product's processes, without the servers. Several roles in one process count once."""

    def __init__(self, pids: Mapping[str, Sequence[int]]) -> None:
        """`pids` is by role, as in `stack.json`."""
        roles: dict[int, list[str]] = {}
        for role, numbers in pids.items():
            for number in () if role in _SERVERS + _NOT_MEASURED else numbers:
                roles.setdefault(number, []).append(role)
        self._processes = {", ".join(names): psutil.Process(number) for number, names in roles.items()}
        self._servers = {name: psutil.Process(number) for name in _SERVERS for number in pids.get(name, ())}

    def memory_mb(self) -> dict[str, float]:
        """Resident memory by roles, in millions of bytes: shared libraries count in each. Raises ProcessReplacedError."""
        return {name: process.memory_info().rss / 1e6 for name, process in self._living()}

    def cpu_s(self) -> float:
        """Returns the CPU time of all processes since each started. Raises ProcessReplacedError."""
        return sum(sum(process.cpu_times()[:2]) for _, process in self._living())

    def cpu_by_part_s(self) -> dict[str, float]:
        """Returns the CPU time since each started: of our processes by their roles, of Kafka, and of PostgreSQL with its backends.

        Raises ProcessReplacedError.
        """
        parts = {name: sum(process.cpu_times()[:2]) for name, process in self._living()}
        for name, server in self._servers.items():
            parts[name] = tree_cpu_s(server)
        return parts

    def idle_percent(self, duration_s: float) -> float:
        """Returns their share of one core over this time, while there is no load. Raises ProcessReplacedError."""
        before, began = self.cpu_s(), time.perf_counter()
        time.sleep(duration_s)
        return 100 * (self.cpu_s() - before) / (time.perf_counter() - began)

    def _living(self) -> list[tuple[str, psutil.Process]]:
        for name, process in self._processes.items():
            if not process.is_running():
                raise ProcessReplacedError(f"the process of {name} has ended during the measurement")
        return list(self._processes.items())


def own_cpu_s(child: psutil.Process) -> float:
    """Returns the CPU time of a server's child. 0 if it has just ended, as PostgreSQL's workers do: its time then counts for its parent."""
    try:
        return sum(child.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0


def tree_cpu_s(server: psutil.Process) -> float:
    """Returns the CPU time of a server and its children.

    A server's own time includes that of its children that have ended. A child that ends between two readings would be in neither of them,
    so they are read again until the children stayed the same.
    """
    children = server.children()
    while True:
        spent_s = sum(server.cpu_times()[:4]) + sum(map(own_cpu_s, children))
        now = server.children()
        if now == children:
            return spent_s
        children = now
