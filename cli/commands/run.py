"""`bulkreg run`: runs roles in this process, as deployments do."""

from pathlib import Path
from typing import Annotated

import typer

from cli.servers.settings import load_settings
from cli.terminal.command import Audience
from cli.terminal.failures import BadInputError
from cli.terminal.output import Output


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(rich_help_panel=Audience.OPERATORS, epilog="Example: bulkreg run relay splitter sweeper")
    def run(
        roles: Annotated[
            list[str],
            typer.Argument(
                metavar="ROLE…", help="One or more of: api relay splitter registration aggregator sweeper notary notifier."
            ),
        ],
        gate: Annotated[
            Path | None, typer.Option(hidden=True, help="Load everything, then wait until this gate is open.")
        ] = None,
    ) -> None:
        """Run roles in this process until SIGTERM; a second signal exits immediately. Settings come from the environment."""
        # Imported here, so that the other commands do not wait for it.
        from orchestrator.process.memory import postpone_collector

        postpone_collector()
        from compose.embedded.gate import pass_through
        from compose.roles import run_roles
        from orchestrator.process.logs import configure_logs
        from orchestrator.process.refused_start import RefusedStartError

        try:
            settings = load_settings()
            configure_logs(settings)
            exit_code = run_roles(settings, roles, when_loaded=lambda: None if gate is None else pass_through(gate))
        except (BadInputError, RefusedStartError) as error:
            failure = error if isinstance(error, BadInputError) else BadInputError(str(error))
            Output().failure(failure)
            raise typer.Exit(failure.exit_code) from failure
        raise typer.Exit(exit_code)
