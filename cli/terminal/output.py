"""Prints a command's output: for people or, with `--json`, as one document for programs. Results go to standard output, the rest to
error."""

import json
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Annotated, Any

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table

from cli.terminal.failures import BadInputError, CommandError
from cli.terminal.streams import refusal
from cli.terminal.styles import are_forbidden

# Outside a terminal the width is not limited by a screen: wide enough to keep every column whole.
_PIPE_WIDTH = 500

# A table with more rows is written as plain lines: ten thousand rows in columns that fold take Rich six seconds.
_MOST_FOLDED_ROWS = 1_000


def printable(value: object) -> str:
    """Returns the text of a value for a terminal, without control characters, which could control the terminal."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


@dataclass(frozen=True)
class Output:
    """How this command prints its result."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no remarks, only results and errors.")] = (
        False
    )
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (as with NO_COLOR in the environment).")] = False

    @property
    def is_live(self) -> bool:
        """Whether a person watches a terminal. Only then are there progress bars."""
        return not self.json and not self.quiet and sys.stderr.isatty()

    def answer(self, document: Any, *human: RenderableType, done: str | None = None) -> None:
        """Prints the command's result: the document, or its form for people.

        `done` is a sentence about what has changed. It is printed to standard error if the result can't be written.
        """
        if self.json:
            typer.echo(json_bytes(document))
        else:
            console = self._console(sys.stdout)
            for part in human:
                console.print(part)
        sys.stdout.flush()
        if done is not None and refusal() is not None:
            self._console(sys.stderr).print(printable(done))

    def remark(self, text: str) -> None:
        """Prints what a person should know besides the result."""
        if not self.quiet:
            self._console(sys.stderr).print(text)

    def failure(self, failure: CommandError) -> None:
        """Prints why the command failed: for people always, and with `--json` also as the document that the program waits for."""
        console = self._console(sys.stderr)
        console.print(str(failure))
        for line in failure.lines:
            console.print(f"  {printable(line)}")
        if self.json:
            typer.echo(json_bytes({"error": {"detail": str(failure), **failure.details}}))

    def _console(self, file: IO[str]) -> Console:
        # Text that people typed is printed unchanged: no markup, no emoji, no colours guessed from it.
        return Console(
            file=file,
            width=None if file.isatty() else _PIPE_WIDTH,
            markup=False,
            highlight=False,
            emoji=False,
            soft_wrap=True,
            color_system=None if are_forbidden(by_option=self.no_color) else "auto",
        )


def json_bytes(document: Any) -> bytes:
    """Returns the document for programs in UTF-8, even if a file name in it is not valid UTF-8."""
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)
    except TypeError:
        return json.dumps(document, indent=2, ensure_ascii=False, default=str).encode("utf-8", "replace")


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person at a terminal before an action that can't be undone. A script is not asked.

    Raises BadInputError on a no and at the end of the input, KeyboardInterrupt on Control-C.
    """
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not _is_agreed(question):
        raise BadInputError("Nothing was done.")


def _is_agreed(question: str) -> bool:
    # asyncio's handler would only cancel the task, which is blocked here.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return typer.confirm(question, err=True)
    except typer.Abort as aborted:
        typer.echo(err=True)  # the cursor is still behind the question
        if isinstance(aborted.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from aborted
        return False
    finally:
        signal.signal(signal.SIGINT, handler)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Returns a table for people, with numbers aligned to the right. The cells of a very long one are not folded to the screen's width."""
    content = [list(row) for row in rows]
    are_numbers = [bool(content) and all(isinstance(row[position], int) for row in content) for position in range(len(headers))]
    if len(content) > _MOST_FOLDED_ROWS:
        return _plain([list(headers), *([printable(value) for value in row] for row in content)], are_numbers)
    result = Table(box=None, pad_edge=False, header_style="bold")
    for header, is_number in zip(headers, are_numbers, strict=True):
        result.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for row in content:
        result.add_row(*map(printable, row))
    return result


def _plain(lines: Sequence[Sequence[str]], are_numbers: Sequence[bool]) -> str:
    """The cells in columns of equal width, as many lines as rows."""
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]

    def padded(cell: str, width: int, *, is_number: bool) -> str:
        blanks = " " * (width - cell_len(cell))
        return blanks + cell if is_number else cell + blanks

    return "\n".join(
        "  ".join(
            padded(cell, width, is_number=is_number) for cell, width, is_number in zip(line, widths, are_numbers, strict=True)
        ).rstrip()
        for line in lines
    )
