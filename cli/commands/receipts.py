"""`bulkreg receipts`: gets receipts, and checks them without asking anybody."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_fixed

from cli.commands.batches import BatchId, organization_in_home
from cli.remote.connection import Connection, connected
from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command, read_bytes
from cli.terminal.failures import ApiProblemError, BadInputError, ExitCode
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import working
from cli.terminal.saving import saved_to
from schemas.paths import API_PATH

if TYPE_CHECKING:
    from cli.remote.api_client import ApiClient
    from orchestrator.receipts.keys import VerifierKey
    from orchestrator.receipts.receipt import CheckedReceipt

# The notary signs within seconds after a batch has finished.
_NOTARY_S = 15.0
_AGAIN_AFTER_S = 1.0

# The commands import what they need themselves, so that shell completion and --help do not wait for pydantic and cryptography.


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    receipts = typer.Typer(no_args_is_help=True, help="Receipts: evidence that records existed and have not changed since.")
    app.add_typer(receipts, name="receipts", rich_help_panel=Audience.COORDINATORS)

    @command(receipts, "get", example="bulkreg receipts get 0190f0c2-7a3b-7c51-8f2e-6d3c1a1f7a10 --save receipt.json")
    async def get(
        connection: Connection,
        output: Output,
        batch_id: BatchId,
        save: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.", dir_okay=False)] = None,
    ) -> None:
        """Get the receipt of a finished batch. Waits some seconds for a batch that has only just finished."""
        if output.json:
            raise BadInputError("a receipt is JSON already, and must not be written differently; remove --json")
        target = connection.target()
        organization_id = connection.org or organization_in_home(target, batch_id)
        async with connected(target, output.remark) as client:
            receipt = await _signed(client, batch_id, organization_id)
        if save is None:
            typer.echo(receipt, nl=False)
            return
        with saved_to(save) as out:
            out.write(receipt)

    @command(receipts, "verify", example="bulkreg receipts verify receipt.json --key 'records.example.org+cdeb7a7c+AQOhB7…'")
    def verify(
        output: Output,
        file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt.", dir_okay=False)],
        key: Annotated[
            list[str] | None, typer.Option(help="A key that you trust, as its owner publishes it. May be repeated.")
        ] = None,
    ) -> ExitCode:
        """Check a receipt. Needs no network, no settings and no server. Exit code 1 if anything in it was changed."""
        from orchestrator.receipts.receipt import check_receipt

        checked = check_receipt(read_bytes(file), _keys(key))
        receipt, checkpoint = checked.receipt, checked.checkpoint
        if receipt is None:
            [fault] = checked.faults
            raise BadInputError(fault.message, details={"fault": fault.fault})
        document = {
            "holds": checked.holds,
            "faults": [asdict(fault) for fault in checked.faults],
            "origin": None if checkpoint is None else checkpoint.origin,
            "size": None if checkpoint is None else checkpoint.size,
            "signed_by": [{"key": str(signer), "fingerprint": signer.fingerprint} for signer in checked.signers],
            "key_compared": key is not None,
            "records": [
                {
                    "index": item.index,
                    **item.leaf.model_dump(exclude_none=True),
                    "people": item.people.model_dump(exclude_none=True),
                }
                for item in receipt.items
            ],
        }
        output.answer(
            document,
            *_about(checked),
            table(["record", "what", "date", "mentor", "type", "minutes", "by", "check"], _rows(checked)),
        )
        if checked.holds and key is None:
            output.remark(
                "The key was not compared with one that you trust, and a forger would sign with a key of their own. Compare it with the "
                "published key, or pass that one as --key."
            )
        return ExitCode.DONE if checked.holds else ExitCode.SOME_FAILED

    @command(receipts, "audit", example="bulkreg receipts audit --org org-01")
    def audit(
        deployment: Deployment,
        output: Output,
        organization: Annotated[
            str | None, typer.Option("--org", "--organization", help="Only this organization's logs. Default: all.")
        ] = None,
        key: Annotated[
            list[str] | None, typer.Option(help="A key that you trust besides those in the database. May be repeated.")
        ] = None,
    ) -> ExitCode:
        """Compare whole logs with the tables and the lifecycle topic. Names each row that was changed, removed or added.

        Also names each checkpoint on the topic that no known key has signed. Exit code 1 if there is one of them.
        """
        from cli.servers.database import database
        from cli.servers.kafka import reachable_kafka
        from consumers.notary.published import every_published_checkpoint
        from orchestrator.receipts.keys import SigningKey
        from orchestrator.storage.receipt_checkpoints import read_keys
        from orchestrator.verification.receipts import audit_logs, unknown_signers

        settings = deployment.settings()
        with working(output, "Reading the logs"), database(settings, settings.worker_url) as engine:
            with engine.begin() as connection:
                keys = list(read_keys(connection))
            # The database that is audited may lack the true key.
            if settings.receipts_signing_key is not None:
                keys.append(SigningKey.parse(settings.receipts_signing_key.get_secret_value()).verifier)
            keys += _keys(key) or []
            with reachable_kafka(settings):
                published, unknown = every_published_checkpoint(settings, keys)
            leaves, found = audit_logs(engine, published, organization)
            findings = [*found, *unknown_signers(unknown, organization)]
        document = {
            "leaves": leaves,
            "published_checkpoints": len(published),
            "ignored_checkpoints": len(unknown),
            "findings": [asdict(each) for each in findings],
        }
        rows = [(each.kind, printable(each.organization_id), each.activity_id or "", printable(each.detail)) for each in findings]
        shown = [table(["what", "organization", "activity", "where"], rows)] if findings else []
        unchanged = "Nothing was changed, removed or added." if leaves else "Nothing is recorded yet."
        verdict = f"{len(findings)} differences." if findings else unchanged
        if unknown:
            output.remark(
                f"{len(unknown)} checkpoints on the topic are signed by no known key, and were not compared. Either the key is missing from "
                "the database (pass it as --key, as its owner publishes it), or somebody else has written to the topic."
            )
        compared = f"{leaves} leaves compared with the tables and {len(published)} published checkpoints."
        output.answer(document, *shown, f"{compared} {verdict}")
        return ExitCode.SOME_FAILED if findings else ExitCode.DONE

    @command(
        receipts,
        "restart-log",
        example="bulkreg receipts restart-log --org org-01 --reason 'restored without the last hour'",
    )
    def restart_log(
        deployment: Deployment,
        output: Output,
        organization: Annotated[
            str, typer.Option("--org", "--organization", help="The organization whose log contradicts what was published.")
        ],
        reason: Annotated[str, typer.Option(help="Why, for auditors.")],
    ) -> None:
        """Begin another log with all records, after a restored database can't continue the published one. Its origin names the old log."""
        from cli.servers.database import database
        from orchestrator.storage.receipt_checkpoints import LogAgreesError, begin_again

        settings = deployment.settings()
        with database(settings, settings.worker_url) as engine, engine.begin() as connection:
            try:
                log = begin_again(connection, organization, name=settings.receipts_origin, reason=reason)
            except LogAgreesError as error:
                raise BadInputError(str(error)) from error
        sentence = f"Log {log.log} of {printable(organization)} has {log.size} records. The notary signs it."
        output.answer({"organization_id": organization, "log": log.log, "size": log.size}, sentence, done=sentence)


async def _signed(client: "ApiClient", batch_id: UUID, organization_id: str | None) -> bytes:
    """The receipt's bytes, as soon as there is one. Raises ApiProblemError."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(_is_not_ready), wait=wait_fixed(_AGAIN_AFTER_S), stop=stop_after_delay(_NOTARY_S), reraise=True
    ):
        with attempt:
            return (await client.get(f"{API_PATH}/{batch_id}/receipt", organization_id)).content
    raise AssertionError("a failed attempt is raised")


def _is_not_ready(error: BaseException) -> bool:
    return isinstance(error, ApiProblemError) and error.code == "receipt_not_ready"


def _keys(texts: Sequence[str] | None) -> "list[VerifierKey] | None":
    from orchestrator.receipts.keys import BadKeyError, VerifierKey

    try:
        return None if texts is None else [VerifierKey.parse(text) for text in texts]
    except BadKeyError as error:
        raise BadInputError(f"--key: {error}.") from error


def _about(checked: "CheckedReceipt") -> list[str]:
    assert checked.receipt is not None
    lines = ["The receipt holds." if checked.holds else "The receipt does not hold:"]
    lines += [f"  {fault.message}" for fault in checked.faults if fault.position is None]
    if (wrong := len({fault.position for fault in checked.faults if fault.position is not None})) > 0:
        lines.append(f"  {wrong} of {len(checked.receipt.items)} records: see below.")
    dates = [item.leaf.activity_date for item in checked.receipt.items]
    lines.append(f"records: {len(dates)}" + (f", dated {min(dates)} to {max(dates)}" if dates else ""))
    if checked.checkpoint is not None:
        lines.append(f"log: {printable(checked.checkpoint.origin)}, {checked.checkpoint.size} entries when it was signed")
    for signer in checked.signers:
        lines += [f"signed by: {printable(signer)}", f"fingerprint: {signer.fingerprint}"]
    return lines


def _rows(checked: "CheckedReceipt") -> list[tuple[Any, ...]]:
    assert checked.receipt is not None
    # Without a checkpoint that holds, a proof leads to a root that somebody may have made up.
    unless_wrong = "not proved" if any(fault.position is None for fault in checked.faults) else "holds"
    wrong: dict[int, list[str]] = {}
    for fault in checked.faults:
        if fault.position is not None:
            wrong.setdefault(fault.position, []).append(fault.message)
    return [
        (
            item.index,
            item.leaf.change,
            item.leaf.activity_date,
            item.people.mentor.id if item.people.mentor else "(not disclosed)",
            item.leaf.activity_type,
            item.leaf.duration_minutes,
            item.people.by.id if item.people.by else "(not disclosed)",
            " ".join(wrong.get(position, [unless_wrong])),
        )
        for position, item in enumerate(checked.receipt.items)
    ]
