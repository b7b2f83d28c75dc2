"""The program `bulkreg`: puts the commands together."""

import sys
from importlib import metadata
from typing import Annotated

import typer

from cli.commands import (
    activities,
    batches,
    bench,
    dead_letters,
    demo,
    directory,
    doctor,
    groups,
    keys,
    period,
    receipts,
    replay,
    revoke,
    setup,
    stack,
    submit,
    templates,
    verify,
    webhooks,
)
from cli.commands import run as run_command
from cli.servers.product import PRODUCT
from cli.terminal.failures import ExitCode
from cli.terminal.streams import finished, guard
from cli.terminal.styles import settle_styles
from cli.terminal.usage import Program

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: bulkreg submit april.xlsx --org org-01 --coordinator coord-101 --watch",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"bulkreg {metadata.version('bulk-registration-orchestrator')}")
        raise typer.Exit


@app.callback(
    help="One bulk submission in, one activity record per mentor out."
    "\n\nExit codes: 0 done; 1 done, but some items failed; 2 wrong usage, bad input or refused; 3 a required service can't be reached; "
    "4 the output can't be written; 130 interrupted."
)
def main(
    _version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Options of the program itself."""


# In the order of the help page.
submit.register(app)
batches.register(app)
revoke.register(app)
templates.register(app)
activities.register(app)
receipts.register(app)
run_command.register(app)
setup.register(app)
directory.register(app)
period.register(app)
webhooks.register(app)
doctor.register(app)
groups.register(app)
keys.register(app)
verify.register(app)
dead_letters.register(app)
replay.register(app)
demo.register(app, PRODUCT)
stack.register(app, PRODUCT)
bench.register(app)


def run() -> None:
    """Entry point of the installed program."""
    guard()
    settle_styles(sys.argv)
    try:
        app()
    except SystemExit as end:
        sys.exit(finished(end.code if isinstance(end.code, int) else ExitCode.DONE))
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(ExitCode.DEFECT)
