"""`bulkreg submit`: submits a file as one batch or many, and waits until the batches are finished."""

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import orjson
import typer
from rich.console import RenderableType

from cli.remote.connection import Connection, connected
from cli.terminal.command import Audience, command, read_bytes
from cli.terminal.failures import ApiProblemError, BadInputError, CommandError, ExitCode
from cli.terminal.items import MOST_ITEMS_LISTED, failed_items, without_items
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import STATES, BatchProgress, batch_progress, described
from schemas.paths import API_PATH
from schemas.statuses import BatchStatus, ItemStatus, Outcome

# Imported in the functions, so that the other commands do not wait for the file readers.
if TYPE_CHECKING:
    from cli.remote.api_client import ApiClient
    from orchestrator.files.submissions import FileSubmission, Given, SubmissionFile

# The statuses that refuse one submission for its content. The next submission may still be accepted.
_ABOUT_THE_SUBMISSION = frozenset({400, 409, 412, 413, 422})

_ITEM_POINTER = re.compile(r"/(?:items|mentor_ids)/(\d+)(.*)", re.DOTALL)

# Above this number only the totals are printed; `bulkreg list` shows the batches.
_MOST_BATCHES_LISTED = 20


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(
        app,
        "submit",
        audience=Audience.COORDINATORS,
        example="bulkreg submit april.xlsx --org org-01 --coordinator coord-101 --watch",
    )
    async def submit(
        connection: Connection,
        output: Output,
        file: Annotated[
            Path, typer.Argument(metavar="FILE", help="A .csv, .tsv, .xlsx, .json or .ndjson file; - for standard input.")
        ],
        coordinator: Annotated[str | None, typer.Option(help="The coordinator, unless the file names one.")] = None,
        label: Annotated[str | None, typer.Option(help="A label for the batch, to find it later.")] = None,
        preview: Annotated[bool, typer.Option("--preview", help="Only predict the result of each item.")] = False,
        plan: Annotated[
            str | None,
            typer.Option(help="Submit only if a preview still holds: its plan, or @FILE with the output of --preview --json."),
        ] = None,
        watch: Annotated[bool, typer.Option("--watch", help="Show each change until the end.")] = False,
        idempotency_key: Annotated[
            str | None, typer.Option(help="Default: derived from content, label and line, so that nothing is submitted twice.")
        ] = None,
        again: Annotated[bool, typer.Option("--again", help="Submit again what was already submitted.")] = False,
        concurrency: Annotated[
            int, typer.Option(help="Batches of an .ndjson file that run at the same time.", min=1, max=64)
        ] = 1,
    ) -> ExitCode:
        """Submit registrations from a file, and wait until the batches are finished."""
        if again and idempotency_key:
            raise BadInputError("--again and --idempotency-key can't be combined; use one of them")
        from orchestrator.files.submissions import Given

        content = _read(file, Given(connection.org, coordinator, label))
        for remark in content.remarks:
            output.remark(printable(remark))
        keyed = _with_keys(file, content.submissions, idempotency_key, again=again)
        if plan is not None:
            keyed = [_with_plan(keyed, plan)]
        async with connected(connection.target(), output.remark) as client:
            if preview:
                return await _preview(client, connection.org, keyed, output)
            return await _submit(client, connection.org, keyed, output, concurrency=concurrency, watch=watch)


@dataclass(frozen=True, slots=True)
class _Keyed:
    """A submission and its Idempotency-Key."""

    submission: "FileSubmission"
    key: str

    def organization(self, org: str | None) -> str | None:
        """The organization of its batch, if the file or the command line names one."""
        named: str | None = self.submission.body.get("organization_id", org)
        return named

    @property
    def items(self) -> int:
        return len(self.submission.body.get("items") or self.submission.body.get("mentor_ids") or ())


@dataclass(slots=True)
class _Run:
    """The results of the submissions so far, by line."""

    total: int
    batches: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    refused: dict[int, ApiProblemError] = field(default_factory=dict)
    replayed: set[int] = field(default_factory=set)

    def told(self) -> str:
        """The progress in a sentence."""
        return (
            f"{len(self.batches)} of {self.total} submissions were sent, {len(self.finished)} of them are finished."
            " Repeat the command to continue: nothing is submitted twice."
        )


def _read(file: Path, given: "Given") -> "SubmissionFile":
    from orchestrator.files.submissions import STANDARD_INPUT, read_submissions

    if str(file) == STANDARD_INPUT:
        return read_submissions(STANDARD_INPUT, sys.stdin.buffer.read(), given)
    return read_submissions(printable(file.name), read_bytes(file), given)


def _with_keys(file: Path, submissions: "Sequence[FileSubmission]", given: str | None, *, again: bool) -> list[_Keyed]:
    if again:
        return [_Keyed(each, str(uuid4())) for each in submissions]
    if given is None:
        return [_Keyed(each, each.derived_key) for each in submissions]
    if len(submissions) == 1:
        return [_Keyed(submissions[0], given)]
    return [_Keyed(each, f"{given}:{each.line}") for each in submissions]


def _with_plan(keyed: Sequence[_Keyed], plan: str) -> _Keyed:
    if len(keyed) != 1:
        raise BadInputError("a plan is for one submission, but the file has several")
    if plan.startswith("@"):
        text = read_bytes(Path(plan[1:])).strip()
        try:
            plan = orjson.loads(text)["plan"] if text.startswith(b"{") else text.decode()
        except (ValueError, KeyError) as error:
            raise BadInputError(f"{plan[1:]} contains neither a plan nor the output of --preview --json") from error
    [only] = keyed
    return replace(only, submission=replace(only.submission, body={**only.submission.body, "plan": plan}))


async def _preview(client: "ApiClient", org: str | None, keyed: Sequence[_Keyed], output: Output) -> ExitCode:
    answers = []
    for each in keyed:
        try:
            response = await client.post(f"{API_PATH}/preview", each.organization(org), each.submission.body, key=each.key)
        except ApiProblemError as refusal:
            raise _placed(refusal, each.submission) from refusal
        answers.append(response.json())
    would_fail = sum(answer["counts"]["failed"] for answer in answers)
    parts: list[RenderableType] = []
    for each, answer in zip(keyed, answers, strict=True):
        counts = answer["counts"]
        parts.append(f"Line {each.submission.line}: {counts['success']} would succeed, {counts['failed']} would fail")
        parts += failed_items([item for item in answer["items"] if item["outcome"] == Outcome.FAILED], each.submission.rows)
    if len(answers) == 1:
        parts.append(f"Plan (submit with --plan, valid for 15 minutes): {answers[0]['plan']}")
    previews = [{"line": each.submission.line, **answer} for each, answer in zip(keyed, answers, strict=True)]
    output.answer(previews[0] if len(previews) == 1 else {"previews": previews}, *parts)
    return ExitCode.SOME_FAILED if would_fail else ExitCode.DONE


async def _submit(
    client: "ApiClient", org: str | None, keyed: Sequence[_Keyed], output: Output, *, concurrency: int, watch: bool
) -> ExitCode:
    run = _Run(len(keyed))
    items = sum(each.items for each in keyed)
    try:
        with batch_progress(output, total_batches=len(keyed), total_items=items, watch=watch) as progress:
            await _send_all(client, org, keyed, run, progress, concurrency)
    except (CommandError, asyncio.CancelledError):
        if run.batches:
            output.remark(run.told())
        raise
    if len(keyed) == 1 and run.refused:
        raise _placed(run.refused[keyed[0].submission.line], keyed[0].submission)
    if len(keyed) == 1:
        await _answer_one(client, keyed[0].submission, run, output)
    else:
        _answer_many(keyed, run, output)
    if run.refused:
        return ExitCode.BAD_INPUT
    return (
        ExitCode.DONE if all(each["status"] == BatchStatus.COMPLETED for each in run.batches.values()) else ExitCode.SOME_FAILED
    )


async def _send_all(
    client: "ApiClient", org: str | None, keyed: Sequence[_Keyed], run: _Run, progress: BatchProgress, concurrency: int
) -> None:
    waiting = iter(keyed)

    async def send() -> None:
        # All senders share the iterator: each takes the next submission when its last batch has finished.
        for each in waiting:
            await _send(client, org, each, run, progress)

    try:
        async with asyncio.TaskGroup() as senders:
            for _ in range(min(concurrency, len(keyed))):
                senders.create_task(send())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def _send(client: "ApiClient", org: str | None, keyed: _Keyed, run: _Run, progress: BatchProgress) -> None:
    line = keyed.submission.line
    try:
        response = await client.post(API_PATH, keyed.organization(org), keyed.submission.body, key=keyed.key)
    except ApiProblemError as refusal:
        if refusal.status not in _ABOUT_THE_SUBMISSION:
            raise
        run.refused[line] = refusal
        return
    if response.headers.get("Idempotent-Replayed") == "true":
        run.replayed.add(line)

    def changed(batch: Mapping[str, Any]) -> None:
        run.batches[line] = batch
        progress.update(batch)

    changed(response.json())
    await client.finished(run.batches[line]["batch_id"], run.batches[line]["organization_id"], changed)
    run.finished.add(line)


def _placed(refusal: ApiProblemError, submission: "FileSubmission") -> CommandError:
    """Returns the refusal with rows of the table instead of positions in the request."""
    lines = []
    for line in refusal.lines:
        match = _ITEM_POINTER.match(line)
        lines.append(f"row {submission.rows[int(match[1])]}{match[2]}" if match and submission.rows else line)
    return BadInputError(str(refusal), lines=lines, details=refusal.details)


async def _answer_one(client: "ApiClient", submission: "FileSubmission", run: _Run, output: Output) -> None:
    [batch] = run.batches.values()
    path, organization_id = f"{API_PATH}/{batch['batch_id']}", batch["organization_id"]
    done = f"Batch {batch['batch_id']} of {organization_id}: {described(batch)}"
    if output.json:
        full = (await client.get(path, organization_id, item_limit=1_000)).json()
        output.answer({**full, "replayed": bool(run.replayed)}, done=done)
        return
    if run.replayed and batch["revoked"]:
        output.remark(
            f"This was already submitted, and {batch['revoked']} of its {batch['completed']} activities were revoked since."
            " It was not submitted again. Use --again to register them again."
        )
    elif run.replayed:
        output.remark("This was already submitted, so it was not submitted again. Use --again to submit it anyway.")
    parts: list[RenderableType] = [done]
    if batch["failed"]:
        failed = (await client.get(path, organization_id, items=ItemStatus.FAILED, item_limit=MOST_ITEMS_LISTED)).json()["items"]
        parts += failed_items(failed, submission.rows)
        if batch["failed"] > len(failed):
            parts.append(f"… and {batch['failed'] - len(failed)} more: bulkreg results {batch['batch_id']} --status failed")
    output.answer({}, *parts, done=done)


def _answer_many(keyed: Sequence[_Keyed], run: _Run, output: Output) -> None:
    sums = {state: sum(batch[state] for batch in run.batches.values()) for state in ("total_items", *STATES)}
    document = {
        "batches": [
            {"line": line, "replayed": line in run.replayed, **without_items(batch)}
            for line, batch in sorted(run.batches.items())
        ],
        "refused": [{"line": line, **refusal.details} for line, refusal in sorted(run.refused.items())],
        **sums,
    }
    parts: list[RenderableType] = []
    if len(run.batches) <= _MOST_BATCHES_LISTED:
        rows = [
            (line, batch["batch_id"], batch["organization_id"], batch["label"], batch["status"], *(batch[s] for s in STATES[:2]))
            for line, batch in sorted(run.batches.items())
        ]
        parts.append(table(["line", "batch", "organization", "label", "status", "success", "failed"], rows))
    codes = Counter[str]()
    for batch in run.batches.values():
        codes.update(batch.get("errors_by_code", {}))
    if codes:
        parts.append(table(["failed", "because"], [(count, code) for code, count in codes.most_common()]))
    statuses = Counter(batch["status"] for batch in run.batches.values())
    parts.append(f"{len(run.batches)} batches: {', '.join(f'{count} {status}' for status, count in statuses.most_common())}")
    parts.append(
        f"{sums['total_items']} items: {sums['completed']} success, {sums['failed']} failed, {sums['cancelled']} cancelled"
    )
    if run.replayed:
        parts.append(f"{len(run.replayed)} of the batches were already submitted; --again submits them again")
        if undone := sum(1 for line in run.replayed if run.batches[line]["revoked"]):
            parts.append(f"{undone} of them were revoked since, in part or as a whole")
    by_line = {each.submission.line: each.submission for each in keyed}
    for line, refusal in sorted(run.refused.items()):
        parts.append(f"Line {line} was refused: {refusal}")
        parts += [f"  {printable(each)}" for each in _placed(refusal, by_line[line]).lines]
    listed = [f"{batch['batch_id']} (line {line})" for line, batch in sorted(run.batches.items())[:_MOST_BATCHES_LISTED]]
    output.answer(document, *parts, done=f"{len(run.batches)} batches were submitted: {', '.join(listed)}")
