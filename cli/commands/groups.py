"""`bulkreg groups`: shows the roles' consumer groups, and gives a role a new one."""

from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from cli.servers.deployment import Deployment
from cli.servers.kafka import reachable_kafka
from cli.terminal.command import Audience, command
from cli.terminal.failures import ExitCode, UnreachableError
from cli.terminal.output import Output, table
from cli.terminal.progress import working

# The commands import what they need themselves, so that shell completion and --help do not wait for database drivers and Kafka.

_TIMEOUT_S = 10.0


class GroupedRole(StrEnum):
    """The roles that have a consumer group."""

    SPLITTER = "splitter"
    REGISTRATION = "registration"
    AGGREGATOR = "aggregator"
    NOTIFIER = "notifier"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    groups = typer.Typer(no_args_is_help=True, help="The roles' consumer groups in Kafka.")
    app.add_typer(groups, name="groups", rich_help_panel=Audience.OPERATORS)

    @command(groups, "list", example="bulkreg groups list")
    def show(deployment: Deployment, output: Output) -> ExitCode:
        """Show the group of each role, with its members and the records that wait. Exit code 3: Kafka does not serve one of
        them, or gives a partition to none of its members."""
        from cli.servers.database import database
        from consumers.upkeep.groups import Groups

        settings = deployment.settings()
        with (
            working(output, "Asking Kafka"),
            database(settings, settings.worker_url) as engine,
            reachable_kafka(settings),
        ):
            found = list(Groups(settings, timeout_s=_TIMEOUT_S).all_queued(engine))
        rows = [(each.role, each.name, each.state, each.members, each.waiting) for each in found]
        advice = [f"{each.name}: {each.trouble}. Run: bulkreg groups renew {each.role}" for each in found if each.trouble]
        shown = table(["role", "group", "state", "members", "waiting"], rows)
        output.answer({"groups": [asdict(each) for each in found]}, shown, *advice)
        return ExitCode.UNREACHABLE if advice else ExitCode.DONE

    @command(groups, "renew", example="bulkreg groups renew registration")
    def renew(
        deployment: Deployment,
        output: Output,
        role: Annotated[GroupedRole, typer.Argument(metavar="ROLE", help="splitter, registration, aggregator or notifier.")],
        start: Annotated[
            datetime | None,
            typer.Option(
                "--from",
                metavar="TIME",
                formats=["%Y-%m-%dT%H:%M"],
                help="Give it a new group in any case, which also reads again what was written since then. In UTC.",
            ),
        ] = None,
    ) -> None:
        """Give the role a new group, if Kafka does not serve its present one, or gives a partition to none of its members.

        Running roles change to it by themselves. Safe to repeat.

        After a restore of the database, --from has the role handle again what the database has forgotten.
        """
        from cli.servers.database import database
        from consumers.upkeep.groups import Groups, NoGroupServedError

        settings = deployment.settings()
        since = None if start is None else start.replace(tzinfo=UTC)
        with (
            working(output, "Asking Kafka"),
            database(settings, settings.worker_url) as engine,
            reachable_kafka(settings),
        ):
            try:
                renewal = Groups(settings, timeout_s=_TIMEOUT_S).renew(engine, role.value, since=since)
            except NoGroupServedError as error:
                raise UnreachableError(str(error)) from error
        sentence = (
            f"The role {role} has the group {renewal.name} now."
            if renewal.renewed
            else f"Kafka serves the group {renewal.name} and all its partitions, so the role {role} keeps it."
        )
        output.answer(asdict(renewal), sentence, done=sentence)
