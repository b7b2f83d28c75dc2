"""One measurement of throughput: items per second, and the CPU time that an item took in each part of the product."""

from collections.abc import Mapping
from dataclasses import dataclass

from compose.bench.generator import Generator
from compose.bench.jobs import Closed, Open, Scattered, Seen
from compose.bench.processes import Processes

GENERATOR = "load generator"


@dataclass(frozen=True, slots=True)
class Throughput:
    """The results of one load."""

    rate: float
    """Items per second."""
    cpu_us: Mapping[str, float]
    """CPU time for an item, by process; the load generator's too."""

    @property
    def all_us(self) -> float:
        """CPU time for an item, of all parts together."""
        return sum(self.cpu_us.values())

    @property
    def cores(self) -> float:
        """How many cores these figures say were busy. More than the machine has is impossible: then the CPU times are wrong."""
        return self.rate * self.all_us / 1e6


def measure_throughput(generator: Generator, processes: Processes, job: Closed | Scattered | Open) -> tuple[Throughput, Seen]:
    """Puts a load on the product and reads its processes before and after. Raises GeneratorEndedError, ProcessReplacedError."""
    before = processes.cpu_by_part_s()
    seen = generator.load(job)
    spent = {part: after - before[part] for part, after in processes.cpu_by_part_s().items()}
    cpu_us = {part: 1e6 * s / seen.items for part, s in {**spent, GENERATOR: seen.generator_cpu_s}.items()}
    return Throughput(seen.items / seen.total_s, cpu_us), seen
