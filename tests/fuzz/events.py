"""Batches of upstream services: the real decoding and the real intake on a real PostgreSQL, with single events and batches in parts."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import create_engine

from compose.embedded.infrastructure import Infrastructure
from consumers.loop.decoding import read
from consumers.loop.handler import Record
from consumers.splitter import SplitterHandler
from orchestrator.process.memory import relieve_collector
from orchestrator.process.settings import Settings
from orchestrator.replay.read_part import read_part
from orchestrator.storage.database import create_database_engine, transact
from schemas.envelope import SOURCE, Envelope, Topic, UnreadableError, open_envelope
from schemas.events import BATCH_SUBMITTED, EVENTS, MAX_PART_BYTES, BatchSubmitted, EventData, type_name
from tests.fuzz import grammar
from tests.fuzz.bodies import clean
from tests.fuzz.budget import Child
from tests.fuzz.findings import Findings
from tests.support.databases import migrated_template
from tests.support.pipeline import COORDINATOR, ORGANIZATION, TIMESTAMP_MS, standard_directory

MOST_RECORD_BYTES = 2 * 1024 * 1024
"""The largest record that the topic accepts."""

CLEANED_AFTER = 200
"""The number of events after which everything that they stored is removed, so that the disk lasts for a long run."""

Event = tuple[list[tuple[str, bytes | None]], bytes]


def run(*, seconds: float, seed: int, folder: Path) -> list[str]:
    """Runs on a PostgreSQL of its own."""
    with (
        Infrastructure(folder / "home", kafka_bootstrap_servers="127.0.0.1:1") as endpoints,
        migrated_template(endpoints.postgres_url) as url,
    ):
        return fuzz(url, seconds=seconds, seed=seed, folder=folder / "found")


def fuzz(database_url: str, *, seconds: float, seed: int, folder: Path) -> list[str]:
    """The same on a migrated database that is used for nothing else."""
    random = Random(seed)
    findings = Findings(folder)
    settings = Settings(database_url=SecretStr(database_url))
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="fuzz")
    standard_directory(engine)
    engine.dispose()
    owner = create_engine(settings.owner_url)
    number = 0
    with Child(splitter, database_url) as child:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            what, events = _batch(random)
            for event in events:
                number += 1
                if number % CLEANED_AFTER == 0:
                    clean(owner)
                for wrong in child.run(event).wrong:
                    findings.note(wrong, event[1], what=what)
                if time.monotonic() > ends_at:
                    break
    owner.dispose()
    print(f"{number} events", flush=True)
    return findings.found


@contextlib.contextmanager
def splitter(database_url: str) -> Iterator[Callable[[Event], str]]:
    """Runs in the child. Takes in one event, as the loop does, and returns the reason if it is refused."""
    settings = Settings(database_url=SecretStr(database_url))
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="fuzz-splitter")
    handler = SplitterHandler(
        bulk_threshold_items=settings.bulk_threshold_items,
        max_items=settings.max_items,
        max_batch_bytes=settings.max_batch_bytes,
    )
    relieve_collector()

    def take(event: Event) -> str:
        headers, value = event
        try:
            envelope = open_envelope(headers, value)
            data = _read_twice(envelope)
            handler.lane(Topic.BATCHES, data)
        except UnreadableError as error:
            return error.reason
        record = Record(Topic.BATCHES, 0, 0, TIMESTAMP_MS, envelope, data)
        handled = transact(engine, lambda connection: handler.handle(connection, [record]))
        return handled.refused[0][1].reason if handled.refused else ""

    yield take
    engine.dispose()


def _read_twice(envelope: Envelope) -> EventData:
    """Reads an event as the splitter does, and as a replay does. Raises UnreadableError, and AssertionError if only one of them accepts it."""
    is_replayed = False
    if envelope.type == BATCH_SUBMITTED:
        with contextlib.suppress(UnreadableError):
            read_part(envelope, datetime.fromtimestamp(TIMESTAMP_MS / 1000, UTC))
            is_replayed = True
    try:
        data = read(Topic.BATCHES, envelope)
    except UnreadableError:
        assert not is_replayed, "a replay accepts what the splitter refuses"
        raise
    assert is_replayed is isinstance(data, BatchSubmitted), "a replay and the splitter differ"
    return data


def _batch(random: Random) -> tuple[str, list[Event]]:
    kind = random.choices(("whole", "parts", "other type", "anything"), (5, 3, 1, 1))[0]
    if kind == "whole":
        return kind, [_event(random, _whole(random))]
    if kind == "parts":
        return kind, [_event(random, value) for value in _parts(random)]
    if kind == "other type":
        model = random.choice(EVENTS[Topic.BATCHES])
        fields = _header(random) | {"items": grammar.value(random, MOST_RECORD_BYTES), "cancelled_positions": b"[[0,0,1]]"}
        for name in ("retry_number", "version", "total_items", "pending", "completed", "failed", "cancelled"):
            fields[name] = b"1"
        if random.random() < 0.5:
            fields["cancelled_positions"] = grammar.value(random, MOST_RECORD_BYTES)
        return type_name(model), [_event(random, grammar.document(random, fields, MOST_RECORD_BYTES), type_name(model))]
    return kind, [_event(random, grammar.damaged(random, grammar.value(random, MOST_RECORD_BYTES))[:MOST_RECORD_BYTES])]


def _event(random: Random, value: bytes, type_: str = BATCH_SUBMITTED) -> Event:
    if random.random() < 0.2:
        attributes = b'"specversion":"1.0","id":"1","source":"/fuzz","type":"%b"' % type_.encode()
        return [("content-type", b"application/cloudevents+json")], (b'{%b,"data":%b}' % (attributes, value))[:MOST_RECORD_BYTES]
    headers: list[tuple[str, bytes | None]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(random.getrandbits(64)).encode()),
        ("ce_source", random.choice((b"/fuzz", b"/fuzz", SOURCE.encode()))),
        ("ce_type", type_.encode()),
        ("content-type", b"application/json"),
    ]
    return headers, value


def _header(random: Random) -> dict[str, bytes]:
    return {
        "batch_id": b'"%b"' % str(UUID(int=random.getrandbits(128), version=4)).encode(),
        "organization_id": b'"%b"' % ORGANIZATION.encode(),
        "coordinator_id": b'"%b"' % COORDINATOR.encode(),
        "label": b'"Monday"',
    }


def _whole(random: Random) -> bytes:
    most = random.choice((10_000, MAX_PART_BYTES - 500, MAX_PART_BYTES, MOST_RECORD_BYTES))
    return grammar.document(random, _header(random) | {"items": _joined(grammar.items(random, most - 400, position=True))}, most)


def _joined(items: list[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _parts(random: Random) -> list[bytes]:
    """A batch up to the limits, in parts of the largest size. It is well-formed, except that something may be in it twice."""
    count = random.choice((2, 600, 10_000, 10_001))
    notes = grammar.text(random, random.choice((0, 100, 1_000, 9_000)))
    same = random.random() < 0.1
    header = _header(random) | {"total_items": b"%d" % count}
    size = max(1, min(500, (MAX_PART_BYTES - 600) // (len(notes) + 160)))
    numbers = [range(first, min(first + size, count)) for first in range(0, count, size)]
    made = []
    for part, positions in enumerate(numbers, start=1):
        items = [grammar.item(random, 0 if same else position, notes, position=True) for position in positions]
        if same:
            items = [
                item.replace(b'"position":0', b'"position":%d' % position)
                for item, position in zip(items, positions, strict=True)
            ]
        fields = header | {"part": b"%d" % part, "parts": b"%d" % len(numbers), "items": _joined(items)}
        made.append(b"{" + b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields.items()) + b"}")
    if random.random() < 0.2:
        made[random.randrange(len(made))] = grammar.document(random, header, MAX_PART_BYTES)
    random.shuffle(made)
    return made
