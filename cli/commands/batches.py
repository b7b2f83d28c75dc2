"""The commands on existing batches: the same contract as HTTP (docs/http.md), for a terminal."""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import orjson
import typer
from rich.console import RenderableType

from cli.remote.connection import Connection, connected
from cli.remote.target import Target
from cli.terminal.command import Audience, command, read_bytes
from cli.terminal.failures import BadInputError, ExitCode
from cli.terminal.items import MOST_ITEMS_LISTED, failed_items, without_items
from cli.terminal.output import Output, confirm, printable, table
from cli.terminal.progress import batch_progress, described, speed, working
from cli.terminal.saving import saved_to
from cli.terminal.streams import stop_unread
from schemas.paths import API_PATH
from schemas.statuses import BatchStatus, ItemStatus

if TYPE_CHECKING:
    from cli.remote.api_client import ApiClient
    from orchestrator.files.corrections import CorrectionFile, Corrections

BatchId = Annotated[UUID, typer.Argument(metavar="ID", help="The batch's id.")]

_READING = "reading the results"

_BATCH_FIELDS = ("organization_id", "coordinator_id", "submitted_by", "label", "submitted_at", "completed_at", "cancelled_at")


class ResultsFormat(StrEnum):
    """The formats of results."""

    TABLE = "table"
    CSV = "csv"
    NDJSON = "ndjson"


def register(app: typer.Typer) -> None:
    """Adds the commands."""

    @command(app, "list", audience=Audience.COORDINATORS, example="bulkreg list --status partial --coordinator coord-101")
    async def list_batches(
        connection: Connection,
        output: Output,
        status: Annotated[
            list[BatchStatus] | None, typer.Option(help="Only batches in this status; several: --status partial --status failed.")
        ] = None,
        needs_attention: Annotated[bool, typer.Option("--needs-attention", help="Only batches with items to look at.")] = False,
        coordinator: Annotated[str | None, typer.Option(help="Only batches of this coordinator.")] = None,
        submitted_from: Annotated[
            datetime | None, typer.Option(help="Only batches submitted at this local time or later.")
        ] = None,
        submitted_to: Annotated[datetime | None, typer.Option(help="Only batches submitted before this local time.")] = None,
        label: Annotated[str | None, typer.Option(help="Only batches whose label contains this text.")] = None,
        limit: Annotated[int, typer.Option(help="Batches per page.", min=1, max=100)] = 20,
        page: Annotated[int, typer.Option(help="Page number, from 1.", min=1)] = 1,
        cursor: Annotated[str | None, typer.Option(help="The next_cursor of the previous page, instead of --page.")] = None,
    ) -> None:
        """List batches, newest first."""
        async with connected(connection.target(), output.remark) as client:
            response = await client.get(
                API_PATH,
                connection.org,
                status=status or None,
                needs_attention="true" if needs_attention else None,
                coordinator_id=coordinator,
                submitted_from=_with_offset(submitted_from),
                submitted_to=_with_offset(submitted_to),
                q=label,
                limit=limit,
                page=None if cursor else page,
                cursor=cursor,
            )
        document = response.json()
        batches, pages = document["data"], document["pagination"]
        headers = ["batch", "submitted", "organization", "coordinator", "label", "status", "items", "success", "failed"]
        fields = ("batch_id", "submitted_at", "organization_id", "coordinator_id", "label", "status")
        rows = [(*(b[name] for name in fields), b["total_items"], b["completed"], b["failed"]) for b in batches]
        more = f"; the next page: --cursor {pages['next_cursor']}" if pages["next_cursor"] else ""
        output.answer(document, *([table(headers, rows)] if rows else []), f"{len(rows)} of {pages['total']} batches{more}")

    @command(app, "status", audience=Audience.COORDINATORS, example="bulkreg status 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --watch")
    async def status_of(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        watch: Annotated[bool, typer.Option("--watch", help="Show each change until the batch is finished.")] = False,
    ) -> ExitCode:
        """Show the state of a batch and its failed items. With --watch, follow it to its end; exit code 1 if items failed."""
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            if watch:
                await _watch(client, batch_id, organization_id, output)
            batch = await _show(client, batch_id, organization_id, output)
        return ExitCode.SOME_FAILED if watch and batch["status"] != BatchStatus.COMPLETED else ExitCode.DONE

    @command(
        app,
        "results",
        audience=Audience.COORDINATORS,
        example="bulkreg results 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --format csv --save results.csv",
    )
    async def results(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        status: Annotated[ItemStatus | None, typer.Option(help="Only items in this status (not with a format).")] = None,
        form: Annotated[
            ResultsFormat, typer.Option("--format", help="A table for people, or a file of all items.")
        ] = ResultsFormat.TABLE,
        notes: Annotated[
            bool, typer.Option("--notes", help="Include the notes, which may contain health data (csv, ndjson).")
        ] = False,
        save: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.", dir_okay=False)] = None,
    ) -> None:
        """Show the result of each item, also while the batch runs."""
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            if form is not ResultsFormat.TABLE:
                if status is not None or output.json:
                    raise BadInputError(f"--format {form} always writes all items; remove --status and --json")
                path = f"{API_PATH}/{batch_id}/results.{form}"
                # Results that are printed to a terminal show the progress themselves, and a bar would mix with them.
                is_shown = save is None and sys.stdout.isatty()
                with nullcontext() if is_shown else working(output, _READING):
                    async with client.download(path, organization_id, notes="true" if notes else None) as body:
                        await save_download(body, save)
                return
            if notes or save is not None:
                raise BadInputError("--notes and --save need --format csv or ndjson")
            with working(output, _READING):
                items = [item async for item in _items(client, batch_id, organization_id, status)]
        rows = [
            (
                item["position"],
                item["mentor_id"],
                item["activity_type"],
                item["activity_date"],
                item["status"],
                item["attempt"],
                (item.get("error") or {}).get("code", ""),
                item["item_id"],
            )
            for item in items
        ]
        headers = ["position", "mentor", "activity", "date", "status", "attempt", "error", "item"]
        output.answer({"batch_id": str(batch_id), "items": items}, table(headers, rows))

    @command(
        app,
        "retry",
        audience=Audience.COORDINATORS,
        example="bulkreg retry 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --correct corrected.csv --watch",
    )
    async def retry(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        item: Annotated[
            list[UUID] | None, typer.Option(help="Only this item; can be repeated. Default: all failed items.")
        ] = None,
        only_retryable: Annotated[
            bool, typer.Option("--only-retryable", help="Only items with a retryable error, and corrected ones; not with --item.")
        ] = False,
        correct: Annotated[
            Path | None,
            typer.Option(
                help="A file with new values: a table with item_id and the columns to change, or .json.", dir_okay=False
            ),
        ] = None,
        yes: Annotated[
            bool,
            typer.Option("--yes", "-y", help="Don't ask before corrections that change mentors. Needed without a terminal."),
        ] = False,
        watch: Annotated[bool, typer.Option("--watch", help="Show each change until the batch is finished.")] = False,
        idempotency_key: Annotated[
            str | None, typer.Option(help="Repeating the command with the same key retries only once.")
        ] = None,
    ) -> ExitCode:
        """Retry failed items, optionally with corrections. Successful items are never run again."""
        body: dict[str, Any] = {}
        if item:
            body["item_ids"] = [str(each) for each in item]
        if only_retryable:
            body["only_retryable"] = True
        file = None if correct is None else _corrections(correct)
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            if file is not None:
                items = await _items_with_values(client, batch_id, organization_id, notes=file.has_notes)
                corrections = file.against(items)
                for remark in corrections.remarks:
                    output.remark(printable(remark))
                _agreed(corrections, output, yes=yes)
                body["corrections"] = corrections.corrections
            batch = (await client.post(f"{API_PATH}/{batch_id}/retry", organization_id, body, key=idempotency_key)).json()
            retried = f"Items that are being retried: {batch['retried']}"
            if not watch:
                sentence = f"{retried}. Follow them with: bulkreg status {batch_id} --watch"
                output.answer(batch, sentence, done=sentence)
                return ExitCode.DONE
            output.remark(retried)
            await _watch(client, batch_id, organization_id, output)
            batch = await _show(client, batch_id, organization_id, output)
        return ExitCode.DONE if batch["status"] == BatchStatus.COMPLETED else ExitCode.SOME_FAILED

    @command(
        app,
        "cancel",
        audience=Audience.COORDINATORS,
        example='bulkreg cancel 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --reason "Wrong week"',
    )
    async def cancel(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        reason: Annotated[str | None, typer.Option(help="The reason, which is shown with the batch.")] = None,
    ) -> None:
        """Stop a batch. Registered items stay, and no more are registered. The counts shown are final."""
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        body = {} if reason is None else {"cancellation_reason": reason}
        async with connected(target, output.remark) as client:
            batch = (await client.post(f"{API_PATH}/{batch_id}/cancel", organization_id, body)).json()
        unresolved = f"; {batch['unresolved']} still wait for the registration service" if batch["unresolved"] else ""
        sentence = f"Batch {batch_id}: {described(batch)}{unresolved}"
        output.answer(batch, sentence, done=sentence)

    @command(app, "delete", audience=Audience.COORDINATORS, example="bulkreg delete 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10")
    async def delete(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask first. A script is never asked.")] = False,
    ) -> None:
        """Remove a finished batch from view. The activities that it registered stay."""
        target = connection.target()
        confirm(f"Delete batch {batch_id}? This can't be undone.", yes=yes)
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            await client.delete(f"{API_PATH}/{batch_id}", organization_id)
        sentence = f"Deleted batch {batch_id}. The activities that it registered stay."
        output.answer({"deleted": str(batch_id)}, sentence, done=sentence)


def _with_offset(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    try:
        return moment.astimezone().isoformat()
    except (OverflowError, ValueError):  # at an end of the calendar, where a few hours make no difference to the batches found
        return moment.replace(tzinfo=UTC).isoformat()


def organization_in_home(target: Target, batch_id: UUID) -> str | None:
    """Returns the organization of a batch in a home, whose owner may see all of them. None: no such batch, or not a home."""
    if target.postgres_url is None:
        return None
    # Imported here, because only a home needs the database's driver.
    from cli.servers.database import organization_of_batch

    return organization_of_batch(target.postgres_url, batch_id)


async def _watch(client: "ApiClient", batch_id: UUID, organization_id: str | None, output: Output) -> None:
    with batch_progress(output, total_batches=1, total_items=0, watch=True) as progress:

        def changed(batch: Mapping[str, Any]) -> None:
            progress.update(batch)
            stop_unread()

        await client.finished(str(batch_id), organization_id, changed)


async def _show(client: "ApiClient", batch_id: UUID, organization_id: str | None, output: Output) -> Mapping[str, Any]:
    """Prints the batch: as a document with all items, or for people with the failed ones."""
    if output.json:
        batch: Mapping[str, Any] = (await client.get(f"{API_PATH}/{batch_id}", organization_id, item_limit=1_000)).json()
        output.answer(batch)
        return batch
    query = {"items": ItemStatus.FAILED, "item_limit": MOST_ITEMS_LISTED}
    batch = (await client.get(f"{API_PATH}/{batch_id}", organization_id, **query)).json()
    parts: list[RenderableType] = [f"Batch {batch_id}: {described(batch)}"]
    parts += [f"  {name}: {printable(batch[name])}" for name in _BATCH_FIELDS if batch.get(name) is not None]
    parts += [f"  progress: {speed(progress)}"] if (progress := batch.get("progress")) else []
    parts += failed_items(batch["items"])
    if batch["failed"] > len(batch["items"]):
        parts.append(f"… and {batch['failed'] - len(batch['items'])} more: bulkreg results {batch_id} --status failed")
    output.answer(without_items(batch), *parts)
    return batch


async def _items(
    client: "ApiClient", batch_id: UUID, organization_id: str | None, status: ItemStatus | None
) -> AsyncIterator[Mapping[str, Any]]:
    cursor = None
    while True:
        query = {"items": status, "item_limit": 1_000, "item_cursor": cursor}
        page = (await client.get(f"{API_PATH}/{batch_id}", organization_id, **query)).json()
        for item in page["items"]:
            yield item
        cursor = page["next_item_cursor"]
        if cursor is None:
            return


async def save_download(body: AsyncIterator[bytes], file: Path | None) -> None:
    """Writes a download into the file, or to standard output."""
    if file is not None:
        with saved_to(file) as out:
            async for part in body:
                out.write(part)
        return
    async for part in body:
        typer.echo(part, nl=False)
        stop_unread()


async def _items_with_values(
    client: "ApiClient", batch_id: UUID, organization_id: str | None, *, notes: bool
) -> list[Mapping[str, Any]]:
    """Returns all items as they are now, for comparison."""
    path = f"{API_PATH}/{batch_id}/results.ndjson"
    async with client.download(path, organization_id, notes="true" if notes else None) as body:
        document = b"".join([part async for part in body])
    return [orjson.loads(line) for line in document.splitlines()]


def _corrections(file: Path) -> "CorrectionFile":
    # Imported here, so that the other commands do not wait for it.
    from orchestrator.files.corrections import read_corrections

    return read_corrections(printable(file.name), read_bytes(file))


def _agreed(corrections: "Corrections", output: Output, *, yes: bool) -> None:
    """Shows the changes of mentors and activity types. Raises BadInputError if another mentor needs a confirmation and nobody gives one."""
    lines = [printable(change) for change in corrections.changes]
    if yes or not corrections.moves_to_another_mentor:
        for line in lines:
            output.remark(line)
        return
    if output.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadInputError(
            "The file changes mentors. Nothing was done; if these changes are correct, repeat the command with --yes:",
            lines=lines,
            details={"changes": [asdict(change) for change in corrections.changes]},
        )
    for line in lines:  # even with --quiet, because they are what the question is about
        typer.echo(line, err=True)
    confirm("Register these items for the mentors on the right?", yes=yes)
