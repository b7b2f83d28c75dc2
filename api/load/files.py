"""Uploaded files are read in processes of their own, a few at a time (`orchestrator/files/readings.py`)."""

import asyncio
import contextlib
import os
import sys

from api.http.problems import ProblemError, overloaded
from orchestrator.process.actions import Action, log_action

MAX_FILE_BYTES = 10 * 1024 * 1024

_AT_ONCE = 2

# A workbook of 10,000 rows takes 0.6 s of CPU, and the largest that is read 1.5 s. On a busy machine both take several times as long.
_MAX_READING_S = 10.0
_MAX_WAITING_S = 10.0

# Each that waits holds its file in memory.
_MOST_WAITING = 8


class FileReaders:
    """Reads files. Belongs to the event loop."""

    def __init__(self, *, max_reading_s: float = _MAX_READING_S, max_waiting_s: float = _MAX_WAITING_S) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._max_reading_s = max_reading_s
        self._max_waiting_s = max_waiting_s
        self._waiting = 0

    async def read(self, kind: str, raw: bytes, *, max_items: int) -> bytes:
        """The document about the file, as JSON. Raises ProblemError `overloaded`, `file_too_costly`."""
        await self._wait()
        try:
            return await self._read(kind, raw, max_items)
        finally:
            self._places.release()

    async def _wait(self) -> None:
        busy = overloaded("Other files are being read. Repeat the request after Retry-After.")
        if self._waiting >= _MOST_WAITING:
            raise busy
        self._waiting += 1
        try:
            async with asyncio.timeout(self._max_waiting_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise busy from error
        finally:
            self._waiting -= 1

    async def _read(self, kind: str, raw: bytes, max_items: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "orchestrator.files.readings",
            kind,
            str(max_items),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # An error could quote the file.
            stderr=asyncio.subprocess.DEVNULL,
            # No settings, which hold secrets: the file is a stranger's.
            env={"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "LC_ALL": "C.UTF-8"},
        )
        try:
            async with asyncio.timeout(self._max_reading_s):
                document, _ = await process.communicate(raw)
        except TimeoutError as error:
            raise _too_costly() from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            log_action(Action.FILE_READER_FAILED, role="api", exit_code=process.returncode)
            raise _too_costly()
        return document


def _too_costly() -> ProblemError:
    return ProblemError(
        "file_too_costly", "Reading the file takes too much time or memory. Split it, or save it as CSV, and send that."
    )
