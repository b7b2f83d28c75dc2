"""`bulkreg replay`: compares the batches in the topics with those in the tables, and merges the former into the latter."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.servers.deployment import Deployment
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, ExitCode, UnreachableError
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import counting, working

# Imported in the functions, so that shell completion and --help do not wait for the drivers.
if TYPE_CHECKING:
    from sqlalchemy import Connection

    from consumers.reading.replay_source import Start
    from orchestrator.process.settings import Settings
    from orchestrator.replay.promote import Promoted
    from orchestrator.replay.rebuild import Comparison, Replay

# How many differences a person reads. A program gets more, and the total.
_SHOWN = 20
_LISTED = 10_000

_RECORD = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)/(?P<partition>\d+)@(?P<offset>\d+)")


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "replay", audience=Audience.OPERATORS, example="bulkreg replay --from 2026-03-26T10:00 --promote")
    def replay_topics(
        deployment: Deployment,
        output: Output,
        batch: Annotated[str | None, typer.Option(metavar="ID", help="Only this batch.")] = None,
        start: Annotated[
            str | None,
            typer.Option(
                "--from",
                metavar="TIME|RECORD",
                help="Read from a time (UTC unless it names an offset), or from a record: TOPIC/PARTITION@OFFSET, as"
                " dead-letters list shows it. Default: everything in the topics.",
            ),
        ] = None,
        promote: Annotated[
            bool, typer.Option("--promote", help="Merge the differences into the tables, batch by batch.")
        ] = False,
    ) -> ExitCode:
        """Rebuild all batches from the topics, and show where they differ from the tables. Changes nothing without --promote.

        The service may keep running. Nothing is registered or published. Exit code 1 if there is a difference that was not promoted.
        """
        settings = deployment.settings()
        read = _replay(settings, output, _batch_id(batch), _start(start, settings), promote=promote)
        remaining = read.after or read.before
        output.answer(
            _document(read),
            *_for_people(read),
            done=f"{len(read.promoted)} batches were looked at for promotion." if promote else None,
        )
        return ExitCode.SOME_FAILED if remaining.by_field else ExitCode.DONE


@dataclass(frozen=True)
class _Done:
    """A finished replay. `after` is the comparison after the promotion; None without one."""

    records: int
    unreadable: int
    before: "Comparison"
    after: "Comparison | None"
    promoted: "Mapping[UUID, Promoted]"


def _replay(settings: "Settings", output: Output, batch_id: UUID | None, start: "Start", *, promote: bool) -> _Done:
    from cli.servers.database import database

    with database(settings, settings.worker_url) as engine, engine.connect() as connection:
        replay = _begin(settings, connection, batch_id)
        records = _read(settings, output, connection, replay, start)
        with working(output, "Folding and comparing"):
            replay.fold()
            before = replay.compare(examples=_LISTED)
        if batch_id is not None and not before.batches and not before.not_covered:
            raise BadInputError(
                f"Neither the tables nor the records read contain batch {batch_id}: it was rejected or purged, or never existed."
            )
        promoted = _promote(connection, output, before) if promote else {}
        with working(output, "Comparing again"):
            after = replay.compare(examples=_LISTED) if promote else None
        return _Done(records, replay.unreadable, before, after, promoted)


def _begin(settings: "Settings", connection: "Connection", batch_id: UUID | None) -> "Replay":
    from sqlalchemy.exc import DBAPIError

    from orchestrator.replay.rebuild import Replay
    from orchestrator.storage.people import ForgettingKey, ForgettingKeyError

    try:
        return Replay(connection, batch_id=batch_id, key=ForgettingKey.of(settings))
    except ForgettingKeyError as error:
        raise BadInputError(str(error)) from error
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != "42501":  # insufficient_privilege
            raise
        url = connection.engine.url
        raise UnreachableError(
            f"The role {url.username} may not create temporary tables. Run: GRANT TEMPORARY ON DATABASE {url.database} TO {url.username}"
        ) from error


def _read(settings: "Settings", output: Output, connection: "Connection", replay: "Replay", start: "Start") -> int:
    from cli.servers.kafka import reachable_kafka
    from consumers.reading.replay_source import ReplaySource

    with reachable_kafka(settings), ReplaySource(settings) as source:
        try:
            spans = source.spans(start)
        except LookupError as error:
            raise BadInputError(f"{error}; leave out --from to read everything.") from error
        replay.note_handled(source.handled(connection))
        with counting(output, "Reading", sum(span.offsets for span in spans)) as advance:
            return source.read_into(replay, spans, advance)


def _promote(connection: "Connection", output: Output, before: "Comparison") -> "dict[UUID, Promoted]":
    from orchestrator.replay.promote import promote

    promoted = {}
    with counting(output, "Promoting", len(before.different_batches)) as advance:
        for batch_id in before.different_batches:
            promoted[batch_id] = promote(connection, batch_id)
            advance(1)
    return promoted


def _batch_id(given: str | None) -> UUID | None:
    try:
        return None if given is None else UUID(given)
    except ValueError as error:
        raise BadInputError(f"{given} is not a batch id.") from error


def _start(given: str | None, settings: "Settings") -> "Start":
    from consumers.reading.replay_source import RecordPlace
    from schemas.envelope import Topic

    if given is None:
        return None
    record = _RECORD.fullmatch(given)
    if record is not None:
        names = {name: topic for topic in Topic for name in (topic.value, topic.on_cluster(settings.topic_prefix))}
        if record["topic"] in names:
            return RecordPlace(names[record["topic"]], int(record["partition"]), int(record["offset"]))
    try:
        time = datetime.fromisoformat(given)
    except ValueError as error:
        raise BadInputError(
            f"{given} is neither a time (2026-03-26 or 2026-03-26T10:00+01:00) nor a record (batches/0@17)."
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _document(read: _Done) -> dict[str, Any]:
    before, after = read.before, read.after
    left = None if after is None else {(d.batch_id, d.item_id, d.field) for d in after.differences}
    left_batches = set() if after is None else set(after.different_batches)
    return {
        "differences": [
            asdict(each)
            | {
                "promoted": left is not None
                and (UUID(each.batch_id) not in left_batches or (each.batch_id, each.item_id, each.field) not in left)
            }
            for each in before.differences
        ],
        "not_covered": [str(batch_id) for batch_id in before.not_covered],
        "in_motion": [str(batch_id) for batch_id in before.in_motion],
        "counts": dict(before.by_field),
        "remaining": dict((after or before).by_field),
        "promotion": {str(batch_id): promoted.value for batch_id, promoted in read.promoted.items()},
        "read": {"records": read.records, "unreadable": read.unreadable, "batches": before.batches, "items": before.items},
    }


def _for_people(read: _Done) -> Sequence[Any]:
    before, after = read.before, read.after
    said: list[Any] = []
    if before.differences:
        shown = before.differences[:_SHOWN]
        rows = [[d.batch_id, d.item_id or "", d.field, _value(d.live), _value(d.rebuilt)] for d in shown]
        said.append(table(["batch", "item", "field", "the tables say", "the topics say"], rows))
        if (more := sum(before.by_field.values()) - len(shown)) > 0:
            said.append(f"and {more:,} more")
    said.append(
        f"{read.records:,} records read ({read.unreadable:,} unreadable): {before.batches:,} batches with {before.items:,} items."
    )
    if before.in_motion:
        said.append(f"{len(before.in_motion):,} batches are in motion and were not compared; replay again to see them at rest.")
    if before.not_covered:
        said.append(f"{len(before.not_covered):,} batches are not covered: what was read does not tell how they began.")
    if read.promoted:
        verdicts = Counter(read.promoted.values())
        said.append("Promotion: " + ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.most_common()) + ".")
    if not before.by_field:
        said.append(
            "No differences in the compared batches."
            if before.in_motion or before.not_covered
            else "The tables are what the topics say."
        )
    else:
        said.append(f"Differences: {_by_field(before)}." + (f" Left: {_by_field(after)}." if after is not None else ""))
    return said


def _by_field(comparison: "Comparison") -> str:
    return ", ".join(f"{count:,} {field}" for field, count in comparison.by_field.items()) or "none"


def _value(value: object) -> str:
    return "nothing" if value is None else printable(value)
