"""What strangers send has a legal size, and its cost is bounded (docs/decisions/0021-limits-on-cost.md).

Each input goes to a separate process, whose CPU time and memory are measured.
"""

from collections.abc import Callable, Iterator
from uuid import uuid4

import orjson
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from api.access.tokens import make_development_token
from consumers.loop.decoding import read
from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from schemas.envelope import Topic, UnreadableError, open_envelope
from schemas.events import BATCH_CANCELLED, BATCH_RETRY_REQUESTED, BATCH_SUBMITTED, MAX_PART_BYTES, MalformedSubmission
from schemas.paths import API_PATH
from tests.fuzz.bodies import Sent, answer, api_process
from tests.fuzz.budget import Child, Meter, plain
from tests.fuzz.events import Event, splitter
from tests.support.api_server import KEY
from tests.support.databases import fresh_database
from tests.support.pipeline import COORDINATOR, ORGANIZATION, standard_directory
from tests.support.stack import Stack

RECORD = 2 * 1024 * 1024
BODY = 16 * 1024 * 1024
WIDE = "\N{GRINNING FACE}"
"""Four bytes of memory for each character: text with one such character takes that."""


def event(type_: str, value: bytes, *, is_structured: bool = False) -> Event:
    if is_structured:
        attributes = b'"specversion":"1.0","id":"1","source":"/s","type":"%b"' % type_.encode()
        return [("content-type", b"application/cloudevents+json")], b'{%b,"data":%b}' % (attributes, value)
    headers = {"ce_specversion": "1.0", "ce_id": uuid4().hex, "ce_source": "/s", "ce_type": type_}
    return [(name, header.encode()) for name, header in headers.items()], value


def filled(before: bytes, unit: bytes, after: bytes, size: int) -> bytes:
    """A document made of one repeated unit, with commas, of the largest size."""
    return before + b",".join([unit] * ((size - len(before) - len(after)) // (len(unit) + 1))) + after


# --- Events -----------------------------------------------------------------------------------------------------------------------

# Each event and body is made by its test. All of them together take a second and 150 MB, in every process that collects the tests.

_OF = b'{"batch_id":"7c0e0000-0000-4000-8000-000000000000","organization_id":"o","coordinator_id":"c",'

EVENTS: dict[str, tuple[Callable[[], Event], str]] = {
    "items that are empty": (lambda: event(BATCH_SUBMITTED, filled(_OF + b'"items":[', b"{}", b"]}", RECORD)), "too_many_items"),
    "items that are lists": (lambda: event(BATCH_SUBMITTED, filled(_OF + b'"items":[', b"[]", b"]}", RECORD)), "too_many_items"),
    "in structured mode": (
        lambda: event(BATCH_SUBMITTED, filled(_OF + b'"items":[', b"{}", b"]}", RECORD - 200), is_structured=True),
        "too_many_items",
    ),
    "one mentor": (
        lambda: event(
            BATCH_SUBMITTED,
            filled(
                _OF + b'"items":[',
                b'{"position":0,"mentor_id":"m","activity_type":"v","activity_date":"2026-03-25","duration_minutes":6}',
                b"]}",
                RECORD,
            ),
        ),
        "too_many_items",
    ),
    "an item with many fields": (
        lambda: event(BATCH_SUBMITTED, filled(_OF + b'"items":[{"a":[', b"{}", b"]}]}", RECORD)),
        "missing_field",
    ),
    "many fields, and mistakes": (
        lambda: event(BATCH_SUBMITTED, _OF + b",".join(b'"f%d":1' % n for n in range(150_000)) + b',"items":7}'),
        "wrong_type",
    ),
    "a retry of many": (lambda: event(BATCH_RETRY_REQUESTED, filled(_OF + b'"items":[', b"{}", b"]}", RECORD)), "invalid_data"),
    "a cancel of many": (
        lambda: event(BATCH_CANCELLED, filled(_OF + b'"cancelled_positions":[', b"[]", b"]}", RECORD)),
        "invalid_data",
    ),
    "a deep one": (lambda: event(BATCH_SUBMITTED, b"[" * RECORD), "not_json"),
    "a long number": (lambda: event(BATCH_SUBMITTED, _OF + b'"items":' + b"9" * RECORD + b"}"), "not_json"),
}


def decoded(given: Event) -> str:
    """Runs in the child process. Returns the code of the first mistake, or the reason."""
    try:
        data = read(Topic.BATCHES, open_envelope(*given))
    except UnreadableError as error:
        return error.reason
    return data.mistakes[0].code if isinstance(data, MalformedSubmission) else ""


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with Child(plain, decoded) as child:
        yield child


@pytest.mark.parametrize(("given", "expected"), EVENTS.values(), ids=EVENTS)
def test_row_40_an_event_of_a_legal_size_is_decoded_within_the_budget(
    child: Child, given: Callable[[], Event], expected: str
) -> None:
    outcome = child.run(given())
    assert (outcome.answer, outcome.wrong) == (expected, [])


# --- Bodies -----------------------------------------------------------------------------------------------------------------------

_ITEM = '{"mentor_id":"mentor-%d","activity_type":"visit","activity_date":"2026-03-25","duration_minutes":60,"notes":"%s"}'


def submission(count: int, notes: str) -> bytes:
    return ('{"items":[' + ",".join(_ITEM % (number, notes) for number in range(count)) + "]}").encode()


BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "unknown fields": (lambda: b"{" + b",".join(b'"f%d":[]' % n for n in range(1_200_000)) + b"}", 400),
    "a hundred thousand unknown fields": (lambda: b"{" + b",".join(b'"f%d":[]' % n for n in range(100_000)) + b"}", 422),
    "empty items": (lambda: filled(b'{"items":[', b"{}", b"]}", BODY), 400),
    "empty items, as many as may be": (lambda: filled(b'{"items":[', b"{}", b"]}", 30_000), 422),
    "unknown lists": (lambda: filled(b'{"items":[],"x":[', b"[]", b"]}", BODY), 400),
    "unknown texts": (lambda: filled(b'{"items":[],"x":[', b'""', b"]}", BODY), 400),
    "escapes": (lambda: b'{"label":"' + b"\\n" * 8_000_000 + b'","items":[]}', 422),
    "one mentor": (lambda: b'{"items":[' + b",".join([(_ITEM % (0, "")).encode()] * 10_000) + b"]}", 422),
    "one mentor in the other form": (
        lambda: b'{"activity":{},"mentor_ids":[' + b",".join([b'"m"'] * 10_000) + b"]}",
        422,
    ),
    "ids of marks on one letter": (
        lambda: submission(9_900, "").replace(b"mentor-", ("\N{COMBINING ACUTE ACCENT}" * 790).encode()),
        422,
    ),
    "notes of wide characters": (lambda: submission(9_900, "a" * 1_500 + WIDE), 202),
    "notes full of commas and quotes": (lambda: submission(9_900, ',\\"' * 500), 202),
}


@pytest.fixture(scope="module")
def api(infrastructure: Stack, template_database: str) -> Iterator[tuple[Settings, int, int]]:
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url), jwt_hs256_key=SecretStr(KEY))
        engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
        standard_directory(engine)
        engine.dispose()
        with api_process(settings) as (port, pid):
            yield settings, port, pid


@pytest.mark.parametrize(("body", "status"), BODIES.values(), ids=BODIES)
def test_row_41_a_body_of_a_legal_size_is_handled_within_the_budget(
    api: tuple[Settings, int, int], body: Callable[[], bytes], status: int
) -> None:
    settings, port, pid = api
    token = make_development_token(settings, sub=COORDINATOR, role=Role.COORDINATOR, orgs=[ORGANIZATION], ttl_s=600)
    meter = Meter(pid)
    answered, said = answer(
        port, Sent("POST", API_PATH, {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}, body())
    )
    assert (answered, meter.used().excess()) == (status, [])
    if status == 422:
        errors = orjson.loads(said)["errors"]
        assert len(errors) <= 101
        assert errors[-1]["code"] == ("too_many_mistakes" if len(errors) == 101 else errors[-1]["code"])


# --- Batches in parts -------------------------------------------------------------------------------------------------------------


def parts_of(count: int, notes: str) -> list[Event]:
    """An upstream batch in parts of the largest size."""
    batch_id = str(uuid4())
    items = [
        {
            "position": position,
            "mentor_id": f"mentor-{position}",
            "activity_type": "visit",
            "activity_date": "2026-03-25",
            "duration_minutes": 60,
            "notes": notes,
        }
        for position in range(count)
    ]
    size = min(500, (MAX_PART_BYTES - 1_000) // len(orjson.dumps(items[-1])))
    divided = [items[first : first + size] for first in range(0, count, size)]
    common = {"batch_id": batch_id, "organization_id": ORGANIZATION, "coordinator_id": COORDINATOR, "total_items": count}
    return [
        event(BATCH_SUBMITTED, orjson.dumps(common | {"part": part, "parts": len(divided), "items": each}))
        for part, each in enumerate(divided, start=1)
    ]


@pytest.mark.parametrize(
    ("count", "notes", "last"),
    [
        # Almost 16 MiB.
        (9_900, "a" * 1_400 + WIDE, ""),
        # 400 MB: the batch is refused when the collected parts are too large.
        (10_000, WIDE * 10_000, "too_large"),
    ],
    ids=["as large as may be", "larger"],
)
def test_row_42_the_parts_of_a_batch_cost_no_more_than_one_of_them(settings: Settings, count: int, notes: str, last: str) -> None:
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="test")
    standard_directory(engine)
    with Child(splitter, settings.database_url.get_secret_value()) as child:
        for given in parts_of(count, notes):
            outcome = child.run(given)
            assert outcome.wrong == []
            if outcome.answer:
                break
        assert outcome.answer == last
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT count(*), sum(octet_length(notes)) FROM orchestrator.batch_item")).one()
        collected = connection.execute(text("SELECT count(*) FROM orchestrator.batch_part WHERE items IS NOT NULL")).scalar_one()
    engine.dispose()
    assert tuple(stored) == ((0, None) if last else (count, count * len(notes.encode())))
    assert collected == 0
