"""Turns a function into a command: shared groups of options, coroutines, and failures that become exit codes."""

import asyncio
import errno
import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer

from cli.terminal.failures import BadInputError, CommandError, ExitCode, UnreachableError
from cli.terminal.output import Output, printable
from cli.terminal.streams import NobodyReadsError
from orchestrator.files.mistakes import BadFileError

# What a write to an open file fails with. Such an error does not name the file.
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


class Audience(StrEnum):
    """The users of a command. The help lists the commands of each audience together."""

    COORDINATORS = "Submitting, for coordinators"
    OPERATORS = "Running it, for operators"
    DEVELOPERS = "On this machine, for developers"


def command(
    app: typer.Typer, name: str, *, example: str, audience: Audience | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as a command of `app`. (The commands of a group have the group's audience.)

    A parameter whose type is a dataclass is a group of options. Each of its fields becomes an option of the command, and the function gets
    the object. Every command has the group `Output`. The function returns None or its exit code.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        parameters = inspect.signature(function, eval_str=True).parameters
        groups: dict[str, Callable[..., Any]] = {
            each.name: each.annotation
            for each in parameters.values()
            if isinstance(each.annotation, type) and is_dataclass(each.annotation)
        }
        options = {name: tuple(inspect.signature(group, eval_str=True).parameters.values()) for name, group in groups.items()}
        [output_name] = (name for name, group in groups.items() if group is Output)

        @wraps(function)
        def run(**given: Any) -> None:
            texts = [
                (name, each)
                for name, value in given.items()
                for each in (value if isinstance(value, list) else (value,))
                if isinstance(each, str)
            ]
            built: dict[str, Any] = {
                name: group(**{option.name: given.pop(option.name) for option in options[name]}) for name, group in groups.items()
            }
            try:
                _refuse_bytes(texts)
                exit_code = _run(function, {**given, **built})
            except CommandError as failure:
                built[output_name].failure(failure)
                exit_code = failure.exit_code
            except NobodyReadsError:
                exit_code = ExitCode.UNWRITABLE
            raise typer.Exit(exit_code or 0)

        flat = [option for each in parameters.values() for option in options.get(each.name, (each,))]
        flat = [option.replace(kind=Parameter.KEYWORD_ONLY) for option in flat]
        run.__signature__ = Signature(flat)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in flat}
        app.command(name, epilog=f"Example: {example}", rich_help_panel=audience)(run)
        return function

    return register


def _refuse_bytes(texts: Sequence[tuple[str, str]]) -> None:
    """Raises BadInputError for arguments that are not valid text. Only file names may be any bytes."""
    for name, text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadInputError(f"The value for {name.replace('_', '-')} is not UTF-8 text.") from error


def _run(function: Callable[..., Any], arguments: dict[str, Any]) -> int | None:
    try:
        result = function(**arguments)
        exit_code: int | None = asyncio.run(result) if inspect.iscoroutine(result) else result
    except BadFileError as refused:
        raise _bad_input(refused) from refused
    except OSError as error:
        # The machine's trouble with a file (a full disk, a missing right). Any other OSError is a bug of ours.
        if error.filename is not None and error.strerror is not None:
            raise UnreachableError(f"{printable(os.fsdecode(error.filename))}: {error.strerror}") from error
        if error.errno in _DISK_ERRORS:
            raise UnreachableError(f"A file can't be written: {error.strerror}.") from error
        raise
    return exit_code


def read_bytes(file: Path) -> bytes:
    """Returns the content of a file that the command line names. Raises BadInputError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInputError(f"{printable(str(file))} can't be read: {error.strerror}") from error


def _bad_input(refusal: BadFileError) -> BadInputError:
    count = len(refusal.mistakes)
    return BadInputError(
        f"{'One mistake' if count == 1 else f'{count} mistakes'}; nothing was done:",
        lines=[str(problem) for problem in refusal.mistakes],
        details={"errors": [asdict(problem) for problem in refusal.mistakes]},
    )
