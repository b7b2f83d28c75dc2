"""The program `bulkreg`: puts the commands together."""

import typer

from cli import administration, batches, bench, dead_letters, demo, doctor, replay, stack, submit, verify
from cli import run as run_command
from cli.product import PRODUCT

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="One bulk submission in, one activity record per mentor out.",
)


@app.callback()
def main() -> None:
    """One bulk submission in, one activity record per mentor out."""


stack.register(app, PRODUCT)
demo.register(app, PRODUCT)
run_command.register(app)
submit.register(app)
batches.register(app)
administration.register(app)
dead_letters.register(app)
replay.register(app)
verify.register(app)
doctor.register(app)
bench.register(app)


def run() -> None:
    """Entry point of the installed program."""
    app()
