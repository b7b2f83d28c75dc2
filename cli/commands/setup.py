"""The commands that set a deployment up: schema, topics, development tokens."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from cli.servers.deployment import Deployment
from cli.servers.kafka import reachable_kafka
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, ExitCode
from cli.terminal.output import Output, table
from cli.terminal.progress import working

# A working day and the evening after it.
_TOKEN_HOURS = 12


class RoleOption(StrEnum):
    """The roles that a token can have."""

    COORDINATOR = "coordinator"
    ADMIN = "admin"
    SERVICE = "service"
    AUDITOR = "auditor"


def register(app: typer.Typer) -> None:
    """Adds the commands. They import what they need themselves, so that shell completion and --help do not wait for drivers and Kafka."""
    db = typer.Typer(no_args_is_help=True, help="The database's schema.")
    topics = typer.Typer(no_args_is_help=True, help="The Kafka topics.")
    app.add_typer(db, name="db", rich_help_panel=Audience.OPERATORS)
    app.add_typer(topics, name="topics", rich_help_panel=Audience.OPERATORS)

    @command(db, "upgrade", example="BULKREG_DATABASE_URL=postgresql://owner:…@db/bulkreg bulkreg db upgrade")
    def upgrade_schema(deployment: Deployment, output: Output) -> None:
        """Upgrade the database to this version's schema, and create its two roles. Safe to repeat."""
        from cli.servers.database import reachable_database
        from orchestrator.storage.migrate import upgrade

        settings = deployment.settings()
        with working(output, "Migrating"), reachable_database(settings.owner_url):
            version = upgrade(settings)
        sentence = f"The schema is at version {version}."
        output.answer({"schema_version": version}, sentence, done=sentence)

    @command(topics, "create", example="bulkreg topics create")
    def create(deployment: Deployment, output: Output) -> ExitCode:
        """Create missing topics, and report where existing topics differ from the plan. Safe to repeat."""
        from producers.topics import create_topics

        settings = deployment.settings()
        with working(output, "Asking Kafka"), reachable_kafka(settings):
            reports = create_topics(settings)
        rows = [(each.name, "made" if each.created else "; ".join(each.differences) or "as planned") for each in reports]
        output.answer({"topics": [asdict(each) for each in reports]}, table(["topic", ""], rows), done="The topics exist.")
        return ExitCode.SOME_FAILED if any(each.differences for each in reports) else ExitCode.DONE

    @command(app, "token", audience=Audience.DEVELOPERS, example="bulkreg token --org org-01 --sub coord-101 --role coordinator")
    def token(
        deployment: Deployment,
        output: Output,
        sub: Annotated[str, typer.Option(help="Who it is for; for the role coordinator, the coordinator's id.")],
        role: Annotated[RoleOption, typer.Option(help="What it allows.")],
        org: Annotated[
            list[str] | None, typer.Option(help="The organization; for the role service, several or * for all.")
        ] = None,
        more: Annotated[list[str] | None, typer.Argument(metavar="ORG", help="More organizations.")] = None,
    ) -> None:
        """Print a development token, signed with the key of a home, or with BULKREG_JWT_HS256_KEY."""
        from api.access.tokens import make_development_token
        from orchestrator.batches.model import Role

        try:
            made = make_development_token(
                deployment.settings(), sub=sub, role=Role(role), orgs=[*(org or ()), *(more or ())], ttl_s=_TOKEN_HOURS * 3_600
            )
        except ValueError as error:
            raise BadInputError(str(error)) from error
        output.answer({"token": made, "expires_in_s": _TOKEN_HOURS * 3_600}, made)
