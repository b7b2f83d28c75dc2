"""`bulkreg dead-letters`: lists and resends records that could not be processed."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.servers.deployment import Deployment
from cli.servers.kafka import reachable_kafka
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, UnreachableError
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import working

# Imported in the functions, so that shell completion does not wait for Kafka's client.
if TYPE_CHECKING:
    from consumers.reading.dead_letter_log import PutAside
    from orchestrator.process.settings import Settings
    from schemas.envelope import OutgoingEvent

_ALL = "all"


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    letters = typer.Typer(no_args_is_help=True, help="Records that could not be processed: list them, and send them again.")
    app.add_typer(letters, name="dead-letters", rich_help_panel=Audience.OPERATORS)

    @command(letters, "list", example="bulkreg dead-letters list --all")
    def show_all(
        deployment: Deployment,
        output: Output,
        everything: Annotated[bool, typer.Option("--all", help="Include those that were already sent again.")] = False,
    ) -> None:
        """List dead letters, oldest first, and how many there are for each reason."""
        found = _read(deployment.settings(), output)
        shown = [letter for letter in found if everything or letter.redriven_at is None]
        reasons = Counter(letter.letter.reason for letter in shown)
        rows = [[str(letter.id), letter.put_aside_at, _origin(letter), letter.letter.reason] for letter in shown]
        output.answer(
            {"dead_letters": [_document(letter) for letter in shown], "by_reason": dict(reasons)},
            table(["id", "put aside", "from", "reason"], rows),
            ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "There are no dead letters.",
        )

    @command(letters, "show", example="bulkreg dead-letters show 6d0a3c1e-5d0f-5f0e-9a51-0c1f6a2b7d11")
    def show(deployment: Deployment, output: Output, dead_letter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
        """Show one dead letter with its headers and its value. Notes are not shown."""
        [letter] = _chosen(_read(deployment.settings(), output), [dead_letter_id])
        document = _document(letter) | {"headers": letter.letter.headers, "value": letter.shown_value()}
        output.answer(document, *[f"{name}: {printable(value)}" for name, value in document.items()])

    @command(letters, "redrive", example="bulkreg dead-letters redrive all")
    def redrive(
        deployment: Deployment,
        output: Output,
        dead_letter_ids: Annotated[list[str], typer.Argument(metavar="ID…", help=f"One or several, or `{_ALL}`.")],
    ) -> None:
        """Send records to their topics again, with their ids. Those that still fail return as dead letters with a new reason."""
        from orchestrator.batches.publishing import DeliveryError
        from producers.producer import EventProducer
        from schemas import event_builders

        settings = deployment.settings()
        waiting = [letter for letter in _read(settings, output) if letter.redriven_at is None]
        redrives_all = dead_letter_ids == [_ALL]
        chosen = waiting if redrives_all else _chosen(waiting, dead_letter_ids)
        records, obstacles = _records(settings, output, chosen)
        if obstacles and not redrives_all:
            raise BadInputError(" ".join(obstacles.values()))
        chosen = [letter for letter in chosen if letter.id in records]
        now = datetime.now(UTC)
        marks = [
            event_builders.dead_letter_redriven(dead_letter_id=letter.id, time=now, trace_id=letter.id.hex) for letter in chosen
        ]
        producer = EventProducer(settings)
        try:
            # The records are sent before they are marked. A record that is sent twice does no harm; one that is only marked would be lost.
            producer.publish([records[letter.id] for letter in chosen])
            producer.publish(marks)
        except DeliveryError as error:
            raise UnreachableError(f"Kafka did not accept all records. Repeat the command: {error}") from error
        finally:
            producer.close()
        output.answer(
            {"redriven": [str(letter.id) for letter in chosen], "left": {str(each): why for each, why in obstacles.items()}},
            f"{len(chosen)} sent again.",
            *obstacles.values(),
            done=f"{len(chosen)} dead letters were sent again.",
        )


def _read(settings: "Settings", output: Output) -> "list[PutAside]":
    from consumers.reading.dead_letter_log import read_dead_letters

    with working(output, "Reading dead letters"), reachable_kafka(settings):
        return read_dead_letters(settings)


def _records(
    settings: "Settings", output: Output, letters: "Sequence[PutAside]"
) -> "tuple[dict[UUID, OutgoingEvent], dict[UUID, str]]":
    """Returns the record to send again for each letter, and the reason for letters without one."""
    from consumers.reading.dead_letter_log import CannotRedriveError, read_originals

    truncated = [letter for letter in letters if letter.is_truncated]
    with working(output, "Reading the records themselves"), reachable_kafka(settings):
        originals = read_originals(settings, truncated) if truncated else {}
    records, obstacles = {}, {}
    for letter in letters:
        try:
            records[letter.id] = letter.as_event(originals.get(letter.id))
        except CannotRedriveError as error:
            obstacles[letter.id] = str(error)
    return records, obstacles


def _chosen(found: "Sequence[PutAside]", wanted: Sequence[str]) -> "list[PutAside]":
    by_id = {letter.id: letter for letter in found}
    try:
        return [by_id[UUID(each)] for each in wanted]
    except (ValueError, KeyError) as error:
        raise BadInputError("No dead letter with this id is waiting; `bulkreg dead-letters list` shows them.") from error


def _origin(letter: "PutAside") -> str:
    return f"{letter.letter.topic}/{letter.letter.partition}@{letter.letter.offset}"


def _document(letter: "PutAside") -> dict[str, Any]:
    return {
        "id": str(letter.id),
        "put_aside_at": letter.put_aside_at,
        "topic": letter.letter.topic,
        "partition": letter.letter.partition,
        "offset": letter.letter.offset,
        "reason": letter.letter.reason,
        "detail": letter.letter.detail,
        "redriven_at": letter.redriven_at,
    }
