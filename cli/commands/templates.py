"""The commands on templates: groups that are registered repeatedly."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command
from cli.terminal.output import Output, confirm, table
from schemas.paths import API_ROOT

_PATH = f"{API_ROOT}/templates"

# The most that one request may ask for.
_PAGE = 200

_WEEKDAYS = ("", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

TemplateId = Annotated[UUID, typer.Argument(metavar="ID", help="The template's id.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    templates = typer.Typer(no_args_is_help=True, help="Groups of mentors that are registered again and again.")
    app.add_typer(templates, name="templates", rich_help_panel=Audience.COORDINATORS)

    @command(templates, "list", example="bulkreg templates list --coordinator coord-101")
    async def list_templates(
        connection: Connection,
        output: Output,
        coordinator: Annotated[str | None, typer.Option(help="Only templates of this coordinator.")] = None,
    ) -> None:
        """List templates, oldest first."""
        found: list[Any] = []
        cursor = None
        async with connected(connection.target(), output.remark) as client:
            while True:
                query = {"coordinator_id": coordinator, "limit": _PAGE, "cursor": cursor}
                page = (await client.get(_PATH, connection.org, **query)).json()
                found += page["data"]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        headers = ["template", "coordinator", "name", "type", "minutes", "weekday", "mentors"]
        shown = [table(headers, [_row(template) for template in found])] if found else []
        output.answer({"data": found}, *shown, f"{len(found)} templates")

    @command(
        templates, "save", example="bulkreg templates save 'Monday group' mentor-482 mentor-510 --type peer_session --minutes 60"
    )
    async def save(
        connection: Connection,
        output: Output,
        name: Annotated[str, typer.Argument(help="What it is called.")],
        mentors: Annotated[list[str], typer.Argument(metavar="MENTOR", help="The ids of the mentors.")],
        activity_type: Annotated[str, typer.Option("--type", help="The activity type.")],
        minutes: Annotated[int, typer.Option(help="How long it takes.", min=1, max=1_440)],
        weekday: Annotated[int | None, typer.Option(help="1 for Monday to 7 for Sunday.", min=1, max=7)] = None,
        coordinator: Annotated[str | None, typer.Option(help="Whose it is; needed where the token is no coordinator's.")] = None,
    ) -> None:
        """Save a template."""
        body = {
            "name": name,
            "mentor_ids": mentors,
            "activity_type": activity_type,
            "duration_minutes": minutes,
            "weekday": weekday,
            "coordinator_id": coordinator,
        }
        async with connected(connection.target(), output.remark) as client:
            saved = (await client.post(_PATH, connection.org, body)).json()
        sentence = f"Saved the template {saved['template_id']}."
        output.answer(saved, sentence, done=sentence)

    @command(templates, "delete", example="bulkreg templates delete 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10")
    async def delete(
        connection: Connection,
        output: Output,
        template_id: TemplateId,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask first. A script is never asked.")] = False,
    ) -> None:
        """Delete a template for good."""
        confirm(f"Delete the template {template_id}?", yes=yes)
        async with connected(connection.target(), output.remark) as client:
            await client.delete(f"{_PATH}/{template_id}", connection.org)
        sentence = f"Deleted the template {template_id}."
        output.answer({"template_id": str(template_id)}, sentence, done=sentence)


def _row(template: Any) -> Sequence[object]:
    weekday = _WEEKDAYS[template["weekday"] or 0]
    fields = ("template_id", "coordinator_id", "name", "activity_type", "duration_minutes")
    return (*(template[field] for field in fields), weekday, len(template["mentor_ids"]))
