"""The load generator as the benchmark uses it: a process that keeps running, so that no measurement includes a start."""

import subprocess
import sys
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, Self

import orjson

from compose.bench.jobs import CancelRunning, Job, Load, Seen, SeenCancel, most_items
from compose.bench.target import BenchTarget, Days

_STOP_TIMEOUT_S = 10


class GeneratorEndedError(Exception):
    """The load generator ended in the middle of a job. It wrote the reason to standard error."""


class Generator:
    """Runs one job after another. A context manager: the process lives as long as the block."""

    def __init__(self, target: BenchTarget, days: Days) -> None:
        self._target = target
        self._days = days

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compose.bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._write({"api": self._target.api, "token": self._target.token})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate(timeout=_STOP_TIMEOUT_S)

    def load(self, job: Load) -> Seen:
        """Puts a load on the product. Raises GeneratorEndedError."""
        return Seen(**self._do(job))

    def cancel(self, job: CancelRunning) -> SeenCancel:
        """Cancels a running batch. Raises GeneratorEndedError."""
        return SeenCancel(**self._do(job))

    def _do(self, job: Job) -> dict[str, Any]:
        self._write({"kind": type(job).__name__, "job": asdict(job), "first_day": self._days.take(most_items(job)).isoformat()})
        line = _end(self._process.stdout).readline()
        if not line:
            raise GeneratorEndedError("the load generator ended before it had done its job; what it wrote above says why")
        answer: dict[str, Any] = orjson.loads(line)
        return answer

    def _write(self, document: dict[str, Any]) -> None:
        pipe = _end(self._process.stdin)
        pipe.write(orjson.dumps(document) + b"\n")
        pipe.flush()


def _end(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None, "both pipes are asked for when the process is started"
    return pipe
