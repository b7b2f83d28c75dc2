"""The exit codes (docs/cli.md) and the failures that lead to them. No other module of the command line chooses an exit code."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

# The option of the command line that helps against a refusal, where there is one.
_HINTS: Mapping[str, str] = {
    "organization_required": "Here: with --org.",
    "coordinator_unknown": "--coordinator names one.",
    "no_token": "Pass --token, or set BULKREG_TOKEN.",
}


class ExitCode(IntEnum):
    """How a command ended, for scripts."""

    DONE = 0
    SOME_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    UNWRITABLE = 4
    DEFECT = 70
    """An error of the program, with a traceback. Python's own code for that is 1, which says that some items failed."""
    INTERRUPTED = 130


class CommandError(Exception):
    """A command can't do what it was asked. The message tells people what is wrong and what helps; `details` are for programs."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, message: str, *, lines: Sequence[str] = (), details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.lines = tuple(lines)
        self.details = dict(details or {})


class BadInputError(CommandError):
    """Wrong usage or bad input: change the command or the file, and try again. Nothing was done."""


class ApiProblemError(CommandError):
    """The API returned a problem (RFC 9457): `problem` is its document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = problem
        self.status: int = problem["status"]
        self.code: str = problem.get("code", "")
        errors = problem.get("errors", ())
        hint = _HINTS.get(self.code)
        super().__init__(
            (problem.get("detail") or problem["title"]) + (f" {hint}" if hint else ""),
            lines=[f"{error['pointer']}: {error['detail']}" for error in errors]
            + [_difference(each) for each in problem.get("differences", ())],
            details=problem,
        )


class UnwritableError(CommandError):
    """The output can't be written. The command's work may be done nevertheless."""

    exit_code = ExitCode.UNWRITABLE


class UnreachableError(CommandError):
    """A service that the command needs does not respond or can't serve it. Start or repair it, then repeat the command."""

    exit_code = ExitCode.UNREACHABLE


def _difference(difference: Mapping[str, Any]) -> str:
    """Describes one way in which a plan no longer holds, with the place of its item."""
    return f"/items/{difference['position']}: planned {difference['planned']}, now {difference['now']}"
