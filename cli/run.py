"""`bulkreg run`: roles in this process, which is what a deployment runs."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @app.command(epilog="Example: bulkreg run relay splitter sweeper")
    def run(
        roles: Annotated[
            list[str],
            typer.Argument(metavar="ROLE…", help="One or several of: api relay splitter registration aggregator sweeper."),
        ],
    ) -> None:
        """Run roles in this process until SIGTERM; a second signal leaves at once. Settings come from the environment."""
        # Imported here: no other command need wait for it.
        from compose.roles import run_roles
        from orchestrator.logs import configure_logs
        from orchestrator.settings import Settings

        settings = Settings()
        configure_logs(settings)
        try:
            raise typer.Exit(run_roles(settings, roles))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
