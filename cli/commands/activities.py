"""`bulkreg activities`: reads registered activities and revokes single ones, independent of batches."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.commands.batches import save_download
from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError
from cli.terminal.output import Output, table
from schemas.groupings import Grouping
from schemas.paths import ACTIVITIES_PATH

_DATES = ["%Y-%m-%d"]

From = Annotated[datetime | None, typer.Option("--from", formats=_DATES, help="Only activities on this date or later.")]
To = Annotated[datetime | None, typer.Option("--to", formats=_DATES, help="Only activities on this date or earlier.")]
Type = Annotated[str | None, typer.Option("--type", help="Only activities of this type.")]
Chapter = Annotated[str | None, typer.Option(help="Only mentors who belonged to this chapter when they were registered.")]
Coordinator = Annotated[str | None, typer.Option(help="Only what this coordinator registered.")]
Mentor = Annotated[str | None, typer.Option(help="Only this mentor's activities.")]
Revoked = Annotated[bool | None, typer.Option("--revoked/--live", help="Only activities that are revoked, or only the others.")]


class FileFormat(StrEnum):
    """The formats of a download."""

    CSV = "csv"
    NDJSON = "ndjson"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    activities = typer.Typer(
        no_args_is_help=True, help="What is registered: list it, sum it, see what happened to one record, revoke it."
    )
    app.add_typer(activities, name="activities", rich_help_panel=Audience.COORDINATORS)

    @command(activities, "list", example="bulkreg activities list --org nordlys --from 2026-01-01 --to 2026-03-31 --revoked")
    async def list_activities(
        connection: Connection,
        output: Output,
        date_from: From = None,
        date_to: To = None,
        activity_type: Type = None,
        chapter: Chapter = None,
        coordinator: Coordinator = None,
        mentor: Mentor = None,
        revoked: Revoked = None,
        limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many to show.")] = 20,
        cursor: Annotated[str | None, typer.Option(help="`next_cursor` of the page before (--json).")] = None,
    ) -> None:
        """List activities, the latest date first."""
        query = _filter(date_from, date_to, activity_type, chapter, coordinator, mentor, revoked)
        async with connected(connection.target(), output.remark) as client:
            page = (await client.get(ACTIVITIES_PATH, connection.org, **query, limit=limit, cursor=cursor)).json()
        rows = [_row(activity) for activity in page["data"]]
        more = [] if page["next_cursor"] is None else ["There are more: --limit, or `activities export` for all of them."]
        output.answer(page, table(["date", "mentor", "type", "minutes", "by", "id", "revoked"], rows), *more)

    @command(activities, "export", example="bulkreg activities export --org nordlys --from 2026-01-01 --save 2026.csv")
    async def export(
        connection: Connection,
        output: Output,
        date_from: From = None,
        date_to: To = None,
        activity_type: Type = None,
        chapter: Chapter = None,
        coordinator: Coordinator = None,
        mentor: Mentor = None,
        revoked: Revoked = None,
        form: Annotated[FileFormat, typer.Option("--format", help="For spreadsheets, or for programs.")] = FileFormat.CSV,
        save: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.", dir_okay=False)] = None,
    ) -> None:
        """Write every activity that fits into a file."""
        if output.json:
            raise BadInputError("an export is a file already; remove --json, or use --format ndjson")
        query = _filter(date_from, date_to, activity_type, chapter, coordinator, mentor, revoked)
        async with (
            connected(connection.target(), output.remark) as client,
            client.download(f"{ACTIVITIES_PATH}.{form}", connection.org, **query) as body,
        ):
            await save_download(body, save)

    @command(activities, "show", example="bulkreg activities show 0190f0c2-7a3b-7c51-9f2e-6d3c1a100001 --org nordlys")
    async def show(
        connection: Connection, output: Output, activity_id: Annotated[UUID, typer.Argument(metavar="ID", help="The activity.")]
    ) -> None:
        """Show one activity, and everything that happened to it."""
        async with connected(connection.target(), output.remark) as client:
            activity = (await client.get(f"{ACTIVITIES_PATH}/{activity_id}", connection.org)).json()
        rows = [
            (entry["at"], entry["kind"], entry.get("by"), entry.get("channel"), _because(entry)) for entry in activity["history"]
        ]
        what = f"{activity['activity_date']}: {activity['mentor_id']}, {activity['activity_type']}, {activity['duration_minutes']} minutes"
        output.answer(activity, what, table(["at", "what", "by", "channel", "because"], rows))

    @command(
        activities,
        "revoke",
        example='bulkreg activities revoke 0190f0c2-7a3b-7c51-9f2e-6d3c1a100001 --org nordlys --reason "Wrong mentor"',
    )
    async def revoke(
        connection: Connection,
        output: Output,
        activity_id: Annotated[UUID, typer.Argument(metavar="ID", help="The activity.")],
        reason: Annotated[str, typer.Option(help="Why. Auditors read it.")],
        idempotency_key: Annotated[str | None, typer.Option(help="The same key never revokes twice.")] = None,
    ) -> None:
        """Revoke one activity, also when its batch was deleted."""
        path = f"{ACTIVITIES_PATH}/{activity_id}/revoke"
        async with connected(connection.target(), output.remark) as client:
            result = (await client.post(path, connection.org, {"reason": reason}, key=idempotency_key)).json()
        done = f"was revoked before, by {result['revoked_by']}" if result["already_revoked"] else "is revoked"
        sentence = f"Activity {activity_id} {done}"
        output.answer(result, sentence, done=sentence)

    @command(
        activities,
        "summary",
        example="bulkreg activities summary --org nordlys --from 2026-01-01 --to 2026-12-31 --by month --by chapter",
    )
    async def summary(
        connection: Connection,
        output: Output,
        date_from: From = None,
        date_to: To = None,
        mentor: Mentor = None,
        by: Annotated[
            list[Grouping] | None, typer.Option(help="What to sum by; can be repeated. Default: activity_type.")
        ] = None,
    ) -> None:
        """Sum activities and minutes, and those that are revoked apart."""
        groupings = list(dict.fromkeys(by or [Grouping.ACTIVITY_TYPE]))
        query = _filter(date_from, date_to, mentor=mentor) | {"group_by": ",".join(groupings)}
        async with connected(connection.target(), output.remark) as client:
            sums = (await client.get(f"{ACTIVITIES_PATH}/summary", connection.org, **query)).json()
        names = [_COLUMNS[grouping] for grouping in groupings]
        rows = [[*(group[name] for name in names), *_figures(group)] for group in sums["groups"]]
        rows.append(["all", *[""] * (len(names) - 1), *_figures(sums)])
        output.answer(sums, table([*names, "activities", "minutes", "revoked", "of them minutes"], rows))


_COLUMNS = {
    Grouping.ACTIVITY_TYPE: "activity_type",
    Grouping.MONTH: "month",
    Grouping.CHAPTER: "chapter_id",
    Grouping.COORDINATOR: "coordinator_id",
}


def _filter(
    date_from: datetime | None,
    date_to: datetime | None,
    activity_type: str | None = None,
    chapter: str | None = None,
    coordinator: str | None = None,
    mentor: str | None = None,
    revoked: bool | None = None,
) -> dict[str, object]:
    """Returns the parameters of the query without those that are None."""
    return {
        "from": None if date_from is None else date_from.date(),
        "to": None if date_to is None else date_to.date(),
        "activity_type": activity_type,
        "chapter_id": chapter,
        "coordinator_id": coordinator,
        "mentor_id": mentor,
        "revoked": None if revoked is None else str(revoked).lower(),
    }


def _row(activity: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        activity["activity_date"],
        activity["mentor_id"],
        activity["activity_type"],
        activity["duration_minutes"],
        activity["coordinator_id"],
        activity["activity_id"],
        activity["revocation_reason"] or "",
    )


def _because(entry: Mapping[str, Any]) -> str:
    if "error" in entry:
        return str(entry["error"]["message"])
    if "correction" in entry:
        return ", ".join(f"{name}: {value}" for name, value in entry["correction"].items())
    return str(entry.get("reason") or "")


def _figures(sums: Mapping[str, Any]) -> list[object]:
    return [sums["live"]["activities"], sums["live"]["minutes"], sums["revoked"]["activities"], sums["revoked"]["minutes"]]
