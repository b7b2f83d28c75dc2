"""`bulkreg revoke`: takes back what a batch has registered."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import RenderableType

from cli.commands.batches import BatchId, organization_in_home
from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command
from cli.terminal.failures import ExitCode
from cli.terminal.items import MOST_ITEMS_LISTED
from cli.terminal.output import Output, table
from schemas.paths import API_PATH


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(
        app,
        "revoke",
        audience=Audience.COORDINATORS,
        example='bulkreg revoke 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --reason "Wrong date" --dry-run',
    )
    async def revoke(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        reason: Annotated[str, typer.Option(help="Why. Auditors read it.")],
        items: Annotated[
            list[UUID] | None, typer.Option("--items", help="Only this item's activity; can be repeated. Default: all.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be revoked.")] = False,
        idempotency_key: Annotated[str | None, typer.Option(help="The same key never revokes twice.")] = None,
    ) -> ExitCode:
        """Take back what a finished batch has registered. Its items stay successful, and the same list can be submitted again."""
        body: dict[str, Any] = {"reason": reason, "dry_run": dry_run}
        if items:
            body["item_ids"] = [str(each) for each in items]
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            result = (await client.post(f"{API_PATH}/{batch_id}/revoke", organization_id, body, key=idempotency_key)).json()
        sentence = _sentence(batch_id, result, dry_run=dry_run)
        output.answer(result, sentence, *_kept(result["kept"]), done=sentence)
        return ExitCode.SOME_FAILED if result["kept"] else ExitCode.DONE


def _sentence(batch_id: UUID, result: Mapping[str, Any], *, dry_run: bool) -> str:
    done = "would be revoked" if dry_run else "are revoked"
    counts = [f"{result['revoked']} activities {done}"]
    if result["already_revoked"]:
        counts.append(f"{result['already_revoked']} were revoked before")
    if result["unresolved"]:
        counts.append(f"{result['unresolved']} still wait for the registration service")
    if result["kept"]:
        counts.append(f"{len(result['kept'])} are kept")
    return f"Batch {batch_id}: {', '.join(counts)}"


def _kept(kept: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """The first items that are kept, with the reason."""
    if not kept:
        return []
    rows = [(each["item_id"], each["code"]) for each in kept[:MOST_ITEMS_LISTED]]
    more = [f"… and {len(kept) - len(rows)} more: --json has all of them"] if len(kept) > len(rows) else []
    return [table(["kept", "because"], rows), *more]
