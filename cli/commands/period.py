"""`bulkreg period`: shows, closes and reopens an organization's period."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any

import typer

from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError
from cli.terminal.output import Output, table
from schemas.paths import CLOSED_PERIOD_PATH

_DATES = ["%Y-%m-%d"]

Reason = Annotated[str, typer.Option(help="Why. Auditors read it.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    period = typer.Typer(
        no_args_is_help=True,
        help="The closed period of an organization: nothing in it is registered or revoked. Show, close, reopen it.",
    )
    app.add_typer(period, name="period", rich_help_panel=Audience.OPERATORS)

    @command(period, "show", example="bulkreg period show --org nordlys")
    async def show(
        connection: Connection,
        output: Output,
        limit: Annotated[int, typer.Option(min=1, max=200, help="How many changes to show.")] = 20,
    ) -> None:
        """Show the last closed day, and who closed and reopened the period, newest first."""
        async with connected(connection.target(), output.remark) as client:
            found = (await client.get(CLOSED_PERIOD_PATH, connection.org, limit=limit)).json()
        rows = [
            (each["changed_at"], each["previously"], each["closed_through"], each["changed_by"], each["channel"], each["reason"])
            for each in found["history"]
        ]
        shown = [table(["at", "closed through, before", "after", "by", "channel", "because"], rows)] if rows else []
        output.answer(found, _sentence(found), *shown)

    @command(period, "close", example='bulkreg period close 2026-03-31 --org nordlys --reason "The report for Q1 is sent"')
    async def close(
        connection: Connection,
        output: Output,
        last_day: Annotated[datetime, typer.Argument(metavar="DATE", formats=_DATES, help="The last day to close.")],
        reason: Reason,
    ) -> None:
        """Close the period through a date: from now on, nothing dated on or before it is registered or revoked."""
        wanted = last_day.date()
        async with connected(connection.target(), output.remark) as client:
            present = await client.get(CLOSED_PERIOD_PATH, connection.org)
            closed = _last_day(present.json())
            if closed is not None and wanted < closed:
                raise BadInputError(
                    f"the period is closed through {closed}; an earlier date reopens it: use `bulkreg period reopen`"
                )
            result = (await client.put(CLOSED_PERIOD_PATH, connection.org, _body(wanted, reason), seen=present)).json()
        output.answer(result, _sentence(result), done=_sentence(result))

    @command(
        period, "reopen", example='bulkreg period reopen --through 2025-12-31 --org nordlys --reason "A visit was forgotten"'
    )
    async def reopen(
        connection: Connection,
        output: Output,
        reason: Reason,
        through: Annotated[
            datetime | None,
            typer.Option("--through", formats=_DATES, help="The last day that remains closed. Default: no day remains closed."),
        ] = None,
    ) -> None:
        """Reopen the period, or its end, so that it can be corrected."""
        wanted = None if through is None else through.date()
        async with connected(connection.target(), output.remark) as client:
            present = await client.get(CLOSED_PERIOD_PATH, connection.org)
            closed = _last_day(present.json())
            if wanted is not None and (closed is None or wanted > closed):
                what = "no period is closed" if closed is None else f"the period is closed through {closed}"
                raise BadInputError(f"{what}; a later date closes more: use `bulkreg period close`")
            result = (await client.put(CLOSED_PERIOD_PATH, connection.org, _body(wanted, reason), seen=present)).json()
        output.answer(result, _sentence(result), done=_sentence(result))


def _body(closed_through: date | None, reason: str) -> dict[str, str | None]:
    return {"closed_through": None if closed_through is None else closed_through.isoformat(), "reason": reason}


def _last_day(period: Mapping[str, Any]) -> date | None:
    return None if period["closed_through"] is None else date.fromisoformat(period["closed_through"])


def _sentence(period: Mapping[str, Any]) -> str:
    last = period["closed_through"]
    if last is None:
        return "No period is closed"
    waiting = f"; {period['unresolved']} items were sent to the registration service before and may still be registered"
    return f"The period is closed through {last}{waiting if period['unresolved'] else ''}"
