"""Wrong usage that is found before a command runs: with `--json` it is a document too, and an empty `--home` is wrong usage."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import typer
from typer.core import TyperGroup

from cli.terminal.output import json_bytes

# Typer exports only this one of its errors about usage. All of them have its base class.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])

_IS_JSON = "bulkreg.json"


class Program(TyperGroup):
    """The program with all its commands."""

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> Any:
        """Parses the options of the program itself."""
        is_json = "--json" in args
        with _documented(is_json=is_json):
            if not more.get("resilient_parsing"):  # as completion parses, which never fails
                _refuse_empty_home(args)
            context = super().make_context(info_name, args, *rest, **more)
        context.meta[_IS_JSON] = is_json
        return context

    def invoke(self, ctx: Any) -> Any:
        """Parses the options of the command, and runs it."""
        with _documented(is_json=ctx.meta[_IS_JSON]):
            return super().invoke(ctx)


@contextmanager
def _documented(*, is_json: bool) -> Iterator[None]:
    """Prints wrong usage in the block as a document, if one is wanted. Typer then prints it for people."""
    try:
        yield
    except _UsageError as error:
        if is_json:
            detail = cast("Any", error).format_message()
            typer.echo(json_bytes({"error": {"detail": detail}}))
        raise


def _refuse_empty_home(arguments: Sequence[str]) -> None:
    """Raises BadParameter for `--home ""`. A script writes this if its variable is empty, and an empty path would be the current folder."""
    if "--home=" in arguments or ("--home", "") in pairwise(arguments):
        raise typer.BadParameter("it is empty; name a folder, or leave the option out", param_hint="--home")
