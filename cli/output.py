"""What a command prints: for people or, with `--json`, one document for machines. Answers go to standard output, the rest to error."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Annotated, Any

import orjson
import typer
from rich.console import Console, RenderableType
from rich.table import Table

from cli.failures import CommandError

# Where the output is not a terminal nobody sees a table's edge: wide enough for every column to stay whole.
_PIPE_WIDTH = 500


def _console(file: IO[str]) -> Console:
    # What people typed is printed as it is: no markup, no emoji, no colours guessed from the text.
    return Console(
        file=file, width=None if file.isatty() else _PIPE_WIDTH, markup=False, highlight=False, emoji=False, soft_wrap=True
    )


def printable(value: object) -> str:
    """The text of a value for a terminal: without control characters, which could steer it."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


@dataclass(frozen=True)
class Output:
    """How this command's answer is printed."""

    json: Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")] = False

    @property
    def is_live(self) -> bool:
        """Whether somebody watches a terminal: only then are there progress bars."""
        return not self.json and sys.stderr.isatty()

    def answer(self, document: Any, *human: RenderableType) -> None:
        """Prints what the command was asked for: the document, or its form for people."""
        if self.json:
            typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
            return
        console = _console(sys.stdout)
        for part in human:
            console.print(part)

    def remark(self, text: str) -> None:
        """Prints what a person should know beside the answer."""
        _console(sys.stderr).print(text)

    def failure(self, failure: CommandError) -> None:
        """Prints why the command could not do it: for people always, and as the document that a machine waits for."""
        console = _console(sys.stderr)
        console.print(str(failure))
        for line in failure.lines:
            console.print(f"  {printable(line)}")
        if self.json:
            typer.echo(orjson.dumps({"error": {"detail": str(failure), **failure.details}}, option=orjson.OPT_INDENT_2))


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for people; numbers to the right."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    content = [list(row) for row in rows]
    for position, header in enumerate(headers):
        is_number = bool(content) and all(isinstance(row[position], int) for row in content)
        result.add_column(header, justify="right" if is_number else "left", overflow="fold")
    for row in content:
        result.add_row(*map(printable, row))
    return result
