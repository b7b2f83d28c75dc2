"""The commands on the directory: import, forget, show."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType

from cli.remote.connection import Connection, connected
from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, ExitCode
from cli.terminal.output import Output, confirm, printable, table
from cli.terminal.progress import working
from schemas.paths import API_ROOT

# The commands import what they need themselves, so that shell completion and --help do not wait for database drivers and Kafka.
if TYPE_CHECKING:
    from orchestrator.directory.importing import ImportReport, Person

# Further absent people are counted and not named, because the list is read by a person.
_MOST_PEOPLE_LISTED = 20

# Who forgets a person by the command line, as the record of it says.
_OPERATOR = "operator"

# The most that one request may ask for.
_DIRECTORY_PAGE = 1_000


class Part(StrEnum):
    """The parts of a directory that can be shown."""

    MENTORS = "mentors"
    CHAPTERS = "chapters"
    ACTIVITY_TYPES = "activity-types"
    COORDINATORS = "coordinators"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    directory = typer.Typer(no_args_is_help=True, help="Organizations, mentors, coordinators, scopes, activity types.")
    app.add_typer(directory, name="directory", rich_help_panel=Audience.OPERATORS)

    @command(directory, "import", example="bulkreg directory import ./directory --prune")
    def import_files(
        deployment: Deployment,
        output: Output,
        path: Annotated[
            Path,
            typer.Argument(metavar="DIR", help="The folder with mentors.csv, coordinators.csv, scopes.csv, …", file_okay=False),
        ],
        prune: Annotated[bool, typer.Option("--prune", help="Close people who are no longer in the files.")] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="With --prune: don't ask first. A script is never asked.")] = False,
        again: Annotated[
            bool, typer.Option("--again", help="Import people who were forgotten, too, as new ones. Otherwise they are left out.")
        ] = False,
    ) -> None:
        """Import a directory, all or nothing. Repeating it changes nothing; the new scopes replace the old ones."""
        from cli.servers.database import database
        from orchestrator.directory.files import read_directory
        from orchestrator.directory.importing import import_directory
        from orchestrator.storage.database import transact
        from orchestrator.storage.people import ForgettingKey, ForgettingKeyError

        if not path.is_dir():
            raise BadInputError(f"{path} is not a folder")
        if prune:
            confirm(f"Close everyone who is not in the files in {printable(path)}?", yes=yes)
        settings = deployment.settings()
        with working(output, "Importing"), database(settings, settings.worker_url) as engine:
            records, remarks = read_directory(path)
            key = ForgettingKey.of(settings)
            try:
                report = transact(
                    engine, lambda connection: import_directory(connection, records, prune=prune, key=key, again=again)
                )
            except ForgettingKeyError as error:
                raise BadInputError(str(error)) from error
        for remark in [*remarks, *_remarks(report)]:
            output.remark(printable(remark))
        deployment.refresh_admin_token()
        headers = ["file", "rows", "added", "changed", "withdrawn"]
        rows = [(name, each.given, each.added, each.changed, each.withdrawn) for name, each in report.changes.items()]
        parts: list[RenderableType] = [table(headers, rows)]
        parts += _absent("mentors", report.absent_mentors, pruned=prune)
        parts += _absent("coordinators", report.absent_coordinators, pruned=prune)
        output.answer(asdict(report), *parts, done="The directory is imported.")

    @command(directory, "forget", example="bulkreg directory forget --org nordlys --mentor hans-08")
    def forget(
        deployment: Deployment,
        output: Output,
        org: Annotated[str, typer.Option("--org", help="The mentor's organization.")],
        mentor: Annotated[str, typer.Option("--mentor", help="The mentor's id.")],
        also_unknown: Annotated[
            bool,
            typer.Option(
                "--also-unknown", help="Also if nobody has the id here: an import will leave the person out. After a restore."
            ),
        ] = False,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask first. A script is never asked.")] = False,
    ) -> ExitCode:
        """Forget a mentor: erase name and notes, and replace the id by a pseudonym everywhere. The records remain, with the same sums.

        It can't be undone. It may be interrupted and repeated; the sweeper continues it, too. Exit code 1: it waits for a running batch, an
        unpublished event or a coordinator's end, and the sweeper finishes it.
        """
        from cli.servers.database import database
        from orchestrator.batches.errors import ConflictError
        from orchestrator.batches.model import Actor, Role
        from orchestrator.directory.forgetting import Forgetter
        from orchestrator.directory.forgetting_requests import NOBODY_HAS_IT, ForgettingRequests
        from orchestrator.process.failpoints import failpoints
        from orchestrator.storage.database import transact
        from orchestrator.storage.people import ForgettingKey, ForgettingKeyError
        from schemas.spelling import canonical

        settings = deployment.settings()
        key = ForgettingKey.of(settings)
        if key is None:
            raise BadInputError(
                "set BULKREG_FORGETTING_KEY to a random secret that is kept outside of the database, and is never changed"
            )
        confirm("Forget this mentor for good?", yes=yes)
        actor = Actor(org, _OPERATOR, Role.ADMIN, channel=_OPERATOR)
        forgetter = Forgetter(key, failpoints(settings.failpoints))
        with working(output, "Forgetting"), database(settings, settings.worker_url) as engine:
            try:
                asked = transact(
                    engine,
                    lambda connection: ForgettingRequests(connection).ask(
                        actor, canonical(mentor), key=key, also_unknown=also_unknown
                    ),
                )
                _, failures = forgetter.work_on_all(engine)
            except (ConflictError, ForgettingKeyError) as error:
                raise BadInputError(str(error)) from error
            if (failure := failures.get(str(asked.forgetting_id))) is not None:
                raise failure
            done = transact(engine, lambda connection: ForgettingRequests(connection).find(actor, asked.forgetting_id))
        for request in failures:
            output.remark(f"another request failed ({request}); the sweeper repeats it, and logs forgetting_failed")
        if done.done_at is not None and done.pseudonym is None:
            raise BadInputError(NOBODY_HAS_IT)
        sentence = (
            f"Forgotten: {done.changed_rows} rows changed. The pseudonym is {done.pseudonym}."
            if done.done_at is not None
            else (
                "The sweeper finishes it. A running batch, or an event that is not published yet, names the mentor and has to end first; "
                "or the id is a coordinator's who was added since, and has to be closed (bulkreg directory import --prune)."
            )
        )
        output.answer(asdict(done), sentence, done=sentence)
        return ExitCode.DONE if done.done_at is not None else ExitCode.SOME_FAILED

    @command(directory, "show", example="bulkreg directory show mentors --coordinator coord-101 --active-on 2026-03-25")
    async def show(
        connection: Connection,
        output: Output,
        part: Annotated[Part, typer.Argument(metavar="PART", help="mentors, chapters, activity-types or coordinators.")],
        coordinator: Annotated[str | None, typer.Option(help="Only this coordinator's scope (mentors, chapters).")] = None,
        q: Annotated[str | None, typer.Option(help="Only whose name or id contains this (mentors, coordinators).")] = None,
        active_on: Annotated[
            datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The date that the column active is about (mentors).")
        ] = None,
    ) -> None:
        """Show whom a coordinator may register for, and with which activity types."""
        query = {
            "coordinator_id": coordinator,
            "q": q,
            "active_on": None if active_on is None else active_on.date(),
            "limit": _DIRECTORY_PAGE,
        }
        rows: list[Mapping[str, Any]] = []
        cursor = None
        with working(output, "Reading the directory"):
            async with connected(connection.target(), output.remark) as client:
                while True:
                    path = f"{API_ROOT}/directory/{part}"
                    page = (await client.get(path, connection.org, **query, cursor=cursor)).json()
                    rows += page["data"]
                    cursor = page["next_cursor"]
                    if cursor is None:
                        break
        headers = list(rows[0]) if rows else []
        shown = [table(headers, [[_cell(row[name]) for name in headers] for row in rows])] if rows else []
        output.answer({"data": rows}, *shown, f"{len(rows)} {part.replace('-', ' ')}")


def _cell(value: object) -> object:
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _remarks(report: "ImportReport") -> Iterator[str]:
    """What a person should know about the import, beside its counts."""
    for period in report.closed_periods:
        yield f"{period.organization_id}: the period is closed through {period.closed_through}"
    for period in report.periods_closed_longer:
        what = (
            f"the period stays closed through {period.closed_through}; an import never reopens one (bulkreg period reopen does)"
        )
        yield f"{period.organization_id}: {what}"
    for person in report.forgotten:
        yield f"{person.organization_id}: {person.id} was forgotten and is left out; remove the row, or repeat with --again"
    for person in report.being_forgotten:
        yield (
            f"{person.organization_id}: {person.id} is still being forgotten and is left out; "
            "repeat with --again when that is done (bulkreg directory forget continues it)"
        )


def _absent(kind: str, people: "Sequence[Person]", *, pruned: bool) -> list[RenderableType]:
    if not people:
        return []
    told = "closed" if pruned else "still active; --prune closes them"
    rest = len(people) - _MOST_PEOPLE_LISTED
    lines = [f"{len(people)} {kind} are not in the file ({told}):"]
    lines += [f"  {person.organization_id} {person.id}" for person in people[:_MOST_PEOPLE_LISTED]]
    return [*lines, *([f"  … and {rest} more"] if rest > 0 else [])]
