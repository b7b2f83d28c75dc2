"""The program's standard streams. Writing to them never fails in the middle of a command; at its end the command knows what was not
written.

A full disk, a pipe without a reader, a stream that was closed before the start, or an encoding without the character must not make a
command look failed that has done its work. Only `finished` reports it, with an exit code of its own.
"""

import errno
import io
import os
import select
import sys
from typing import TextIO, cast

from cli.terminal.failures import ExitCode


class NobodyReadsError(Exception):
    """Standard output can't be written any more, so work that only prints further output ends."""


class Outlet(io.RawIOBase):
    """A stream of bytes to a file descriptor. `refusal` is why a write failed. After a failure nothing more is written."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.refusal: OSError | None = None

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor, for callers that examine what it leads to."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it leads to a terminal."""
        return os.isatty(self._descriptor)

    def write(self, content: "bytes | bytearray | memoryview", /) -> int:  # type: ignore[override]
        """Accepts all bytes, whether they can be written or not."""
        with memoryview(content) as view:
            rest = view.cast("B")
            while rest and self.refusal is None:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # another program has put the terminal into non-blocking mode
                    select.select([], [self._descriptor], [])
                except OSError as error:
                    self.refusal = error
            return view.nbytes


def guard() -> None:
    """Replaces standard output and error of this process. Call it before anything is written."""
    if sys.stdin is None:
        _reopen(0, os.O_RDONLY)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
    if sys.stdout is None:
        # Writing to it fails, as writing to the closed one would; and no file that is opened later gets its number.
        _reopen(1, os.O_RDONLY)
    if sys.stderr is None:
        _reopen(2, os.O_WRONLY)
    sys.stdout = _guarded(1, sys.stdout)
    sys.stderr = _guarded(2, sys.stderr)


def refusal() -> OSError | None:
    """Returns why standard output could not be written so far. None: all was written."""
    outlet = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return outlet.refusal if isinstance(outlet, Outlet) else None


def stop_unread() -> None:
    """Raises NobodyReadsError if standard output can't be written any more."""
    sys.stdout.flush()
    if refusal() is not None:
        raise NobodyReadsError


def finished(exit_code: int) -> int:
    """Flushes all output and returns the exit code of the program: 4 if the output is incomplete."""
    sys.stdout.flush()
    error = refusal()
    if error is None:
        return exit_code
    if error.errno != errno.EPIPE:  # no message for a reader that wanted only the first lines
        print(f"Standard output can't be written: {error.strerror}.", file=sys.stderr)
    sys.stderr.flush()
    return ExitCode.UNWRITABLE if exit_code in (ExitCode.DONE, ExitCode.SOME_FAILED) else exit_code


def _reopen(descriptor: int, flags: int) -> None:
    opened = os.open(os.devnull, flags)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


def _guarded(descriptor: int, stream: TextIO | None) -> io.TextIOWrapper:
    outlet = Outlet(descriptor)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # Standard error, and a terminal, are read while the program runs.
    is_read_by_line = descriptor == 2 or outlet.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(cast("io.RawIOBase", outlet)),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=is_read_by_line,
    )
