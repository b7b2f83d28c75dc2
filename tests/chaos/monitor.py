"""Memory, descriptors and threads of every process over time, and which of them grow."""

import contextlib
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

from tests.chaos.cluster import POSTGRES, ROLES, Cluster

FILLS_FOR_S = 30.0
"""A process that has started fills its caches and pools first. A life shorter than three times this says nothing about growth."""

MOST = {"memory_mb": 256, "descriptors": 512, "threads": 128}
"""What no process of a role may take at any age: more than half as much again as was ever seen (158 MB, 53 threads)."""

GROWN_BY, GROWN_MB, GROWN_NUMBER = 1.25, 24.0, 12
"""Growth above this share and this amount is a leak. Filling pools and a long burst cause less."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment. PostgreSQL's children count as its threads, because each serves one connection."""

    at_s: float
    name: str
    pid: int
    age_s: float
    memory_mb: float
    descriptors: int
    threads: int


class Monitor:
    """Samples all the time, in a thread of its own."""

    def __init__(self, cluster: Cluster, *, every_s: float) -> None:
        self._cluster = cluster
        self._every_s = every_s
        self.samples: list[Sample] = []
        self.births: dict[int, float] = {}
        """When each process began that was ever seen, including the servers' children."""

    def run(self, is_over: threading.Event) -> None:
        """Samples until the end."""
        while not is_over.wait(self._every_s):
            self.look()

    def look(self) -> None:
        """One sample of each running process."""
        for name in (*ROLES, *self._cluster.servers):
            process = self._cluster.process(name)
            with contextlib.suppress(psutil.NoSuchProcess):
                if process is not None:
                    self.samples.append(self._sample(name, process))

    def left_behind(self) -> Sequence[int]:
        """Which of the processes that were ever seen still live."""
        return [pid for pid, birth in self.births.items() if _born_at(pid) == birth]

    def _sample(self, name: str, process: psutil.Process) -> Sample:
        children = process.children(recursive=True)
        for each in (process, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                self.births.setdefault(each.pid, each.create_time())
        return Sample(
            time.monotonic(),
            name,
            process.pid,
            time.time() - process.create_time(),
            process.memory_info().rss / 1e6,
            process.num_fds(),
            len(children) if name == POSTGRES else process.num_threads(),
        )


def growths(samples: Iterable[Sample], fills_for_s: float = FILLS_FOR_S) -> Iterator[tuple[str, str, float, float]]:
    """Process, quantity, and its medians at the beginning and the end of each life that was long enough."""
    lives: Mapping[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.age_s >= fills_for_s:
            lives[sample.name, sample.pid].append(sample)
    for (name, _), life in lives.items():
        if life[-1].at_s - life[0].at_s >= 2 * fills_for_s and len(life) >= 6:
            third = len(life) // 3
            for what in MOST:
                first, last = (statistics.median(getattr(s, what) for s in part) for part in (life[:third], life[-third:]))
                yield name, what, first, last


def leaks(samples: Sequence[Sample], fills_for_s: float = FILLS_FOR_S) -> Iterator[str]:
    """What grew more than it would if it came to rest, and what one of our processes took too much of, however short it lived."""
    for name, what, first, last in growths(samples, fills_for_s):
        allowed = GROWN_MB if what == "memory_mb" else GROWN_NUMBER
        if last > GROWN_BY * first and last - first > allowed:
            yield f"{what} of {name} grew from {first:.0f} to {last:.0f}"
    for name in ROLES:
        for what, limit in MOST.items():
            most = max((getattr(sample, what) for sample in samples if sample.name == name), default=0)
            if most > limit:
                yield f"{what} of {name} reached {most:.0f}, more than {limit}"


def _born_at(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
