"""`bulkreg webhooks`: where an organization is told of events by HTTP, and what became of each delivery."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command
from cli.terminal.output import Output, confirm, table
from schemas.paths import WEBHOOK_CHANGES_PATH, WEBHOOKS_PATH

WebhookId = Annotated[UUID, typer.Argument(metavar="WEBHOOK", help="The webhook's id.")]
# The most that one request may ask for.
_PAGE = 200

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask first. A script is never asked.")]


class Event(StrEnum):
    """What a webhook can be told of."""

    BATCH_COMPLETED = "BatchCompleted"
    BATCH_REJECTED = "BatchRejected"
    ACTIVITIES_REVOKED = "ActivitiesRevoked"


class State(StrEnum):
    """The state of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    webhooks = typer.Typer(no_args_is_help=True, help="Webhooks: events by HTTP, for systems without Kafka.")
    app.add_typer(webhooks, name="webhooks", rich_help_panel=Audience.OPERATORS)

    @command(webhooks, "list", example="bulkreg webhooks list --org nordlys")
    async def list_webhooks(connection: Connection, output: Output) -> None:
        """List the organization's webhooks, with their state."""
        async with connected(connection.target(), output.remark) as client:
            found = (await client.get(WEBHOOKS_PATH, connection.org)).json()
        rows = [(each["webhook_id"], each["url"], ", ".join(each["events"]), _state(each)) for each in found["data"]]
        shown = [table(["webhook", "url", "events", "state"], rows)] if rows else []
        output.answer(found, *shown, f"{len(rows)} webhooks")

    @command(webhooks, "changes", example="bulkreg webhooks changes --org nordlys")
    async def changes(
        connection: Connection,
        output: Output,
        limit: Annotated[int, typer.Option(min=1, help="How many changes to show.")] = 20,
    ) -> None:
        """Show who created, rotated, enabled and deleted webhooks, and which were disabled, newest first."""
        async with connected(connection.target(), output.remark) as client:
            found = (await client.get(WEBHOOK_CHANGES_PATH, connection.org, limit=min(limit, _PAGE))).json()
            while found["next_cursor"] is not None and len(found["data"]) < limit:
                most = min(limit - len(found["data"]), _PAGE)
                page = (await client.get(WEBHOOK_CHANGES_PATH, connection.org, limit=most, cursor=found["next_cursor"])).json()
                found = {"data": found["data"] + page["data"], "next_cursor": page["next_cursor"]}
        rows = [
            (each["changed_at"], _what(each), each["changed_by"], each["channel"], each["url"], each["webhook_id"])
            for each in found["data"]
        ]
        shown = [table(["at", "what", "by", "channel", "url", "webhook"], rows)] if rows else []
        output.answer(found, *shown, f"{len(rows)} changes")

    @command(
        webhooks, "add", example="bulkreg webhooks add https://attendance.example.org/in --event BatchCompleted --org nordlys"
    )
    async def add(
        connection: Connection,
        output: Output,
        receiver: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent: https.")],
        event: Annotated[list[Event], typer.Option(help="What it is told of. May be repeated.")],
    ) -> None:
        """Create a webhook. Its secret is shown only now."""
        body = {"url": receiver, "events": [each.value for each in event]}
        async with connected(connection.target(), output.remark) as client:
            made = (await client.post(WEBHOOKS_PATH, connection.org, body)).json()
        _answer_with_secret(output, made, f"Created the webhook {made['webhook_id']}.")

    @command(
        webhooks, "rotate-secret", example="bulkreg webhooks rotate-secret 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --org nordlys"
    )
    async def rotate_secret(connection: Connection, output: Output, webhook_id: WebhookId) -> None:
        """Make another secret. The present one signs, too, for 24 hours."""
        async with connected(connection.target(), output.remark) as client:
            made = (await client.post(f"{WEBHOOKS_PATH}/{webhook_id}/rotate-secret", connection.org)).json()
        _answer_with_secret(output, made, f"The previous secret signs until {made['previous_secret_until']}.")

    @command(webhooks, "enable", example="bulkreg webhooks enable 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --org nordlys")
    async def enable(connection: Connection, output: Output, webhook_id: WebhookId) -> None:
        """Enable a webhook that was disabled because its receiver failed. What happened meanwhile is not sent."""
        async with connected(connection.target(), output.remark) as client:
            enabled = (await client.post(f"{WEBHOOKS_PATH}/{webhook_id}/enable", connection.org)).json()
        sentence = f"The webhook {webhook_id} is enabled."
        output.answer(enabled, sentence, done=sentence)

    @command(webhooks, "test", example="bulkreg webhooks test 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --org nordlys")
    async def test(connection: Connection, output: Output, webhook_id: WebhookId) -> None:
        """Have an event sent that only tests the webhook. `deliveries` shows the receiver's response."""
        async with connected(connection.target(), output.remark) as client:
            sent = (await client.post(f"{WEBHOOKS_PATH}/{webhook_id}/test", connection.org)).json()
        sentence = f"The event {sent['event_id']} is being sent. See: bulkreg webhooks deliveries {webhook_id}"
        output.answer(sent, sentence, done=sentence)

    @command(
        webhooks,
        "deliveries",
        example="bulkreg webhooks deliveries 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --state failed --org nordlys",
    )
    async def deliveries(
        connection: Connection,
        output: Output,
        webhook_id: WebhookId,
        state: Annotated[State | None, typer.Option(help="Only deliveries in this state.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=200, help="How many to show.")] = 50,
    ) -> None:
        """List the deliveries of a webhook, newest first, with the receiver's last responses."""
        async with connected(connection.target(), output.remark) as client:
            path = f"{WEBHOOKS_PATH}/{webhook_id}/deliveries"
            found = (await client.get(path, connection.org, state=state, limit=limit)).json()
        headers = ["event", "type", "created", "state", "attempts", "problem", "status", "response"]
        shown = [table(headers, [_row(delivery) for delivery in found["data"]])] if found["data"] else []
        output.answer(found, *shown, f"{len(found['data'])} deliveries")

    @command(
        webhooks,
        "redeliver",
        example="bulkreg webhooks redeliver 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 5f0c5b1e-7a3d-5b0e-9d6c-3d7c1a1f7a10 --org nordlys",
    )
    async def redeliver(
        connection: Connection,
        output: Output,
        webhook_id: WebhookId,
        event_id: Annotated[UUID, typer.Argument(metavar="EVENT", help="The event's id.")],
    ) -> None:
        """Send an event again, under the same id."""
        async with connected(connection.target(), output.remark) as client:
            path = f"{WEBHOOKS_PATH}/{webhook_id}/deliveries/{event_id}/redeliver"
            sent = (await client.post(path, connection.org)).json()
        sentence = f"The event {event_id} is being sent again."
        output.answer(sent, sentence, done=sentence)

    @command(webhooks, "delete", example="bulkreg webhooks delete 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --org nordlys")
    async def delete(connection: Connection, output: Output, webhook_id: WebhookId, yes: Yes = False) -> None:
        """Delete a webhook and its deliveries for good."""
        confirm(f"Delete the webhook {webhook_id}?", yes=yes)
        async with connected(connection.target(), output.remark) as client:
            await client.delete(f"{WEBHOOKS_PATH}/{webhook_id}", connection.org)
        sentence = f"Deleted the webhook {webhook_id}."
        output.answer({"webhook_id": str(webhook_id)}, sentence, done=sentence)


def _answer_with_secret(output: Output, made: Mapping[str, Any], sentence: str) -> None:
    """Shows a secret. It is data, so it goes where the data go."""
    output.answer(made, f"{sentence} Its secret, which is not shown again:", made["secret"], done=sentence)


def _what(change: Mapping[str, Any]) -> str:
    what, because = str(change["change"]).replace("_", " "), change["because"]
    return what if because is None else f"{what}: {because}"


def _state(webhook: Mapping[str, Any]) -> str:
    if not webhook["enabled"]:
        return f"disabled by the notifier since {webhook['disabled_at']}: {webhook['disabled_because']}"
    return "enabled" if webhook["failing_since"] is None else f"failing since {webhook['failing_since']}"


def _row(delivery: Mapping[str, Any]) -> Sequence[object]:
    response = (delivery["response"] or "").split("\n")[0][:60]
    fields = ("event_id", "event_type", "created_at", "state", "attempts", "problem", "status")
    return (*(delivery[field] for field in fields), response)
