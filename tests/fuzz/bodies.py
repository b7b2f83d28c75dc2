"""Requests to a real API process on a real PostgreSQL: bodies of every kind and size, with odd query strings and headers."""

import asyncio
import contextlib
import http.client
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from unittest.mock import patch
from uuid import UUID

import psutil
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, text

from api.access.tokens import make_development_token
from api.app import serving
from compose.embedded.infrastructure import Infrastructure
from compose.embedded.stack import FRUGAL_MALLOC
from orchestrator.batches.model import Role
from orchestrator.process.logs import configure_logs
from orchestrator.process.memory import relieve_collector
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from schemas.paths import API_PATH
from tests.fuzz import grammar
from tests.fuzz.budget import ADDRESS_SPACE_BYTES, HANGS_AFTER_S, Meter
from tests.fuzz.findings import Findings
from tests.support.api_server import KEY
from tests.support.audit import tampering
from tests.support.databases import migrated_template
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline, mentors, standard_directory

CLEANED_AFTER = 100
"""The number of inputs after which everything that they stored is removed, so that the disk lasts for a long run."""

MISTAKEN_STATUSES = frozenset({500, 501, 502, 503, 504})


@dataclass(frozen=True)
class Sent:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    def raw(self) -> bytes:
        """The request as a person would read it."""
        head = "\n".join((f"{self.method} {self.target}", *(f"{name}: {value}" for name, value in self.headers.items())))
        return head.encode(errors="replace") + b"\n\n" + self.body


def run(*, seconds: float, seed: int, folder: Path) -> list[str]:
    """Runs on a PostgreSQL of its own."""
    with (
        # There is no Kafka, because the API does not need it.
        Infrastructure(folder / "home", kafka_bootstrap_servers="127.0.0.1:1") as endpoints,
        migrated_template(endpoints.postgres_url) as url,
    ):
        return fuzz(url, seconds=seconds, seed=seed, folder=folder / "found")


def fuzz(database_url: str, *, seconds: float, seed: int, folder: Path) -> list[str]:
    """The same on a migrated database that is used for nothing else."""
    random = Random(seed)
    findings = Findings(folder)
    settings = Settings(
        database_url=SecretStr(database_url), jwt_hs256_key=SecretStr(KEY), api_port=0, max_backlog_items=1_000_000_000
    )
    token = make_development_token(
        settings, sub=COORDINATOR, role=Role.COORDINATOR, orgs=[ORGANIZATION], ttl_s=int(seconds) + 3_600
    )
    engine = create_database_engine(settings.worker_url, settings, connections=2, application_name="fuzz")
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    owner = create_engine(settings.owner_url)
    with contextlib.closing(pipeline), contextlib.ExitStack() as running:
        port, pid = running.enter_context(api_process(settings))
        failed = _failed_batch(pipeline)
        meter = Meter(pid)
        ends_at = time.monotonic() + seconds
        number = 0
        while time.monotonic() < ends_at:
            number += 1
            if number % CLEANED_AFTER == 0:
                clean(owner)
                failed = _failed_batch(pipeline)
            sent = _request(random, failed, token)
            what = f"{sent.method} {sent.target.partition('?')[0].replace(str(failed[0]), '{id}')[:60]}"
            meter.begin()
            try:
                status, said = answer(port, sent)
                used = meter.used()
            except (OSError, http.client.HTTPException, psutil.NoSuchProcess) as error:
                findings.note(f"no answer: {type(error).__name__}", sent.raw(), what=what)
                if not psutil.pid_exists(pid) or isinstance(error, TimeoutError):
                    running.close()
                    port, pid = running.enter_context(api_process(settings))
                    meter = Meter(pid)
                continue
            if status in MISTAKEN_STATUSES:
                findings.note(f"answered {status} {said[:200]!r}", sent.raw(), what=what)
            if len(said) > 2 * 1024 * 1024 and status >= 400:
                findings.note(f"a refusal of {len(said):,} bytes", sent.raw(), what=what)
            for excess in used.excess():
                findings.note(excess, sent.raw(), what=what)
        print(f"{number} requests", flush=True)
    engine.dispose()
    owner.dispose()
    return findings.found


@contextlib.contextmanager
def api_process(settings: Settings) -> Iterator[tuple[int, int]]:
    """An API as a process: its port and its process id."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    given = {
        "database_url": settings.database_url.get_secret_value(),
        "max_backlog_items": settings.max_backlog_items,
        "jwt_hs256_key": KEY,
        "log_level": "ERROR",
    }
    process = context.Process(target=_serve, args=(theirs, given), daemon=True)
    # Its memory is measured, so it gets the allocator's settings that `up` and the image give to the roles.
    with patch.dict(os.environ, FRUGAL_MALLOC):
        process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield port, process.pid
    finally:
        ours.close()
        process.join(HANGS_AFTER_S)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(connection: Connection, given: dict[str, object]) -> None:
    size = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))

    settings = Settings(api_port=0, **given)  # type: ignore[arg-type]
    configure_logs(settings)

    async def serve() -> None:
        async with serving(settings) as port:
            relieve_collector()  # As the process of the role does.
            connection.send(port)
            with contextlib.suppress(EOFError):
                await asyncio.to_thread(connection.recv)

    asyncio.run(serve())


def answer(port: int, sent: Sent) -> tuple[int, bytes]:
    """Sends a request over a new connection. Returns the response's status and body."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS_AFTER_S)
    try:
        client.putrequest(sent.method, sent.target, skip_accept_encoding=True)
        for name, value in sent.headers.items():
            client.putheader(name, value.encode("utf-8", "surrogateescape"))
        client.putheader("Content-Length", str(len(sent.body)))
        client.endheaders()
        with contextlib.suppress(ConnectionError):  # It was refused before it was sent completely, and the response has arrived.
            client.send(sent.body)
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


def _failed_batch(pipeline: Pipeline) -> tuple[UUID, Sequence[UUID]]:
    """A batch whose items have all failed and can be retried, and the ids of its items."""
    items = [
        item._replace(values=item.values._replace(mentor_id=f"nobody-{number}")) for number, item in enumerate(mentors(1_000))
    ]
    batch_id = pipeline.submit(items)
    pipeline.drain()
    return batch_id, [item.item_id for item in pipeline.status(batch_id).items]


def clean(owner: Engine) -> None:
    """Empties what requests and events fill. No notary runs, so the logs of receipts are empty."""
    with owner.begin() as connection:
        named = text(
            "SELECT string_agg(format('orchestrator.%I', tablename), ', ') FROM pg_tables WHERE schemaname = 'orchestrator' "
            "AND tablename NOT IN ('alembic_version', 'consumer_progress') AND tablename NOT LIKE 'receipt%'"
        )
        tables = f"{connection.execute(named).scalar_one()}, registration.activity, registration.audit"
        connection.execute(text(tampering(f"TRUNCATE {tables}")))


# --- What is sent -----------------------------------------------------------------------------------------------------------------


def _request(random: Random, failed: tuple[UUID, Sequence[UUID]], token: str) -> Sent:
    batch_id, item_ids = failed
    one = f"{API_PATH}/{batch_id}"
    most = random.choice((10_000, 500_000, 4_000_000, 16 * 1024 * 1024, 16 * 1024 * 1024 + 1))
    kind = random.choices(
        ("submit", "mentors", "retry", "correct", "update", "cancel", "anything", "query"), (6, 2, 2, 2, 1, 1, 3, 3)
    )[0]
    if kind == "submit":
        fields = {"label": b'"Monday"', "items": b"[" + b",".join(grammar.items(random, most, position=False)) + b"]"}
        if random.random() < 0.1:
            fields["plan"] = grammar.text(random, grammar.size(random, 3_000_000))
        made = "POST", API_PATH + random.choice(("", "", "/preview")), grammar.document(random, fields, most)
    elif kind == "mentors":
        count = random.choice((1, 25, 10_000, 10_001, 500_000))
        same = random.random() < 0.3
        named = [b'"mentor-%d"' % (0 if same else number) for number in range(count)]
        shared = {"activity_type": b'"visit"', "activity_date": b'"2026-03-25"', "duration_minutes": b"60"}
        fields = {
            "mentor_ids": random.choice((b"[" + b",".join(named) + b"]", grammar.value(random, most))),
            "activity": grammar.document(random, shared, most),
        }
        made = "POST", API_PATH + random.choice(("", "/preview")), grammar.document(random, fields, most)
    elif kind == "retry":
        count = random.choice((1, 1_000, 10_000, 300_000))
        ids = [b'"%b"' % str(item_ids[number % len(item_ids)]).encode() for number in range(count)]
        made = "POST", f"{one}/retry", grammar.document(random, {"item_ids": b"[" + b",".join(ids) + b"]"}, most)
    elif kind == "correct":
        count = random.choice((1, 1_000, 10_000, 50_000))
        change = random.choice(
            (
                b'"mentor_id":"mentor-1"',
                b'"notes":' + grammar.text(random, random.randint(0, 9_000)),
                b'"x":1',
                b'"activity_date":1',
            )
        )
        corrections = [
            b'{"item_id":"%b",%b}' % (str(item_ids[number % len(item_ids)]).encode(), change)
            for number in range(min(count, most // (len(change) + 60) + 1))
        ]
        made = "POST", f"{one}/retry", grammar.document(random, {"corrections": b"[" + b",".join(corrections) + b"]"}, most)
    elif kind == "update":
        fields = {"label": b'"x"'} if random.random() < 0.5 else {"status": b'"cancelled"', "cancellation_reason": b'"x"'}
        made = "PUT", one, grammar.document(random, fields, most)
    elif kind == "cancel":
        made = "POST", f"{one}/cancel", grammar.document(random, {"reason": b'"x"'}, most)
    elif kind == "anything":
        target = random.choice((API_PATH, API_PATH + "/preview", f"{one}/retry", f"{one}/cancel", one))
        made = "PUT" if target == one else "POST", target, grammar.damaged(random, grammar.value(random, most))[:most]
    else:
        made = random.choice(("GET", "GET", "GET", "HEAD")), _target(random, batch_id, item_ids), b""
    method, target, body = made
    headers = {"Authorization": f"Bearer {token}", **({"Content-Type": "application/json"} if body else {})}
    for name in ("Idempotency-Key", "If-Match", "If-None-Match", "traceparent", "X-Organization-Id", "Last-Event-ID", "Range"):
        if random.random() < 0.1:
            headers[name] = _odd(random, random.choice((1, 40, 300, 3_000))).replace("\r", "").replace("\n", "").replace("\0", "")
    return Sent(method, target, headers, body)


def _target(random: Random, batch_id: UUID, item_ids: Sequence[UUID]) -> str:
    path = random.choice(
        (
            API_PATH,
            f"{API_PATH}/{batch_id}",
            f"{API_PATH}/{batch_id}/results.ndjson",
            f"{API_PATH}/{batch_id}/results.csv",
            f"{API_PATH}/{batch_id}/items/{item_ids[0]}",
            f"{API_PATH}/{_quoted(_odd(random, 30))}",
        )
    )
    names = ("status", "coordinator_id", "submitted_from", "submitted_to", "q", "limit", "page", "cursor", "items", "item_limit")
    pairs = [
        f"{random.choice((*names, 'item_cursor', 'wait', 'notes', 'ticket', _quoted(_odd(random, 8))))}={_quoted(_odd(random, 40))}"
        for _ in range(random.choice((0, 1, 2, 3, 300)))
    ]
    return f"{path}?{'&'.join(pairs)}"[:7_000]


def _odd(random: Random, length: int) -> str:
    pieces = (
        "1",
        "0",
        "-1",
        "9" * 30,
        "2026-03-25T10:00:00+02:00",
        "true",
        '"x"',
        'W/"',
        "*",
        "\N{GRINNING FACE}",
        "%",
        "é",
        ",",
        "'",
        "a",
    )
    made = "".join(random.choice(pieces) for _ in range(random.randint(0, 3)))
    return (made * (length // max(1, len(made)) + 1))[:length] if random.random() < 0.5 else made


def _quoted(text_: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "".join(f"%{byte:02X}" for byte in c.encode()) for c in text_)
