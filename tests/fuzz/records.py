"""Records that a stranger could write to the batches topic, byte by byte, against the splitter's real loop in a child process."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

from compose.embedded.infrastructure import Infrastructure
from consumers.loop.runtime import ConsumerLoop
from consumers.reading.topic_reader import TopicReader
from consumers.splitter import SplitterHandler
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.fuzz.budget import HANGS_AFTER_S, Child
from tests.fuzz.findings import Findings
from tests.support.databases import fresh_database, migrated_template
from tests.support.kafka import altered, made_topics
from tests.support.pipeline import standard_directory
from tests.support.raw_producer import Compression, RawRecord, RefusedByBrokerError, batch_of, produce_batch, record_batch
from tests.support.upstream import binary_headers, structured, submitted, upstream_item
from tests.support.waiting import eventually

PARTITION = 0
MOST_DECOMPRESSED_BYTES = 80_000_000

RawHeader = tuple[bytes, bytes | None]


def run(*, seconds: float, seed: int, folder: Path) -> list[str]:
    """The findings of this many seconds, on servers of its own."""
    with (
        Infrastructure(folder / "servers") as endpoints,
        migrated_template(endpoints.postgres_url) as template,
        fresh_database(endpoints.postgres_url, template=template) as url,
    ):
        settings = Settings(
            database_url=url, kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers, topic_prefix="fuzz", topic_partitions=1
        )
        with made_topics(settings):
            # As on a topic that is older than the product's plan, so that records that are large once unpacked get as far as the loop.
            altered(settings, Topic.BATCHES, "compression.type", "producer")
            return fuzz(settings, seconds=seconds, seed=seed, folder=folder)


def fuzz(settings: Settings, *, seconds: float, seed: int, folder: Path) -> list[str]:
    """The findings in this deployment, whose topics exist. Stops at the first one that has ended the child, because the next child would
    read it, too."""
    rng, findings = random.Random(seed), Findings(folder)
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="fuzz")
    standard_directory(engine)
    engine.dispose()
    topic = Topic.BATCHES.on_cluster(settings.topic_prefix)
    with Child(_consuming, settings) as child:
        is_over = threading.Event()
        timer = threading.Timer(seconds, is_over.set)
        timer.start()
        while not is_over.is_set():
            what, count, batch = _batch(rng)
            try:
                first = produce_batch(settings.kafka_bootstrap_servers, topic, PARTITION, batch)
            except (RefusedByBrokerError, ConnectionError):
                continue  # It is on no topic.
            outcome = child.run(first + count)
            for wrong in outcome.wrong:
                findings.note(wrong, batch, what=what)
            if outcome.answer is None:
                break
        else:
            # All of them together are not one input: memory does not count, and reading them may take as long as making them did.
            read = child.run(None, patience_s=max(HANGS_AFTER_S, seconds))
            if read.answer is None:
                findings.note(read.wrong[0], b"", what="reading all of them like a replay")
        timer.cancel()
    return findings.found


class _WatchedLoop(ConsumerLoop):
    @property
    def next_offsets(self) -> Sequence[int]:
        """Of each assigned partition. Any thread may look."""
        return [partition.next_offset or 0 for partition in list(self._assigned.values())]


@contextlib.contextmanager
def _consuming(settings: Settings) -> Iterator[Callable[[int | None], bool]]:
    """Runs the loop in a thread of the child. Yields a function that waits until the loop has passed an offset or, without one, reads the
    whole topic."""
    engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="fuzz")
    handler = SplitterHandler(bulk_threshold_items=settings.bulk_threshold_items, max_items=settings.max_items)
    loop = _WatchedLoop(settings, handler, engine, EventProducer(settings))
    raised: list[BaseException] = []

    def consume() -> None:
        try:
            loop.run()
        except BaseException as error:  # The other thread raises it.
            raised.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()

    def has_passed(end: int) -> bool:
        if raised:
            raise raised[0]
        return any(next_offset >= end for next_offset in loop.next_offsets)

    def take(end: int | None) -> bool:
        if end is None:
            with TopicReader(settings) as reader:
                return sum(len(chunk) for chunk in reader.read(reader.spans([Topic.BATCHES]))) > 0
        return eventually(lambda: has_passed(end))

    eventually(lambda: loop.next_offsets)
    yield take
    loop.stop()
    thread.join()


def _batch(rng: random.Random) -> tuple[str, int, bytes]:
    """A description, the number of records, and a batch that Kafka may or may not accept."""
    codec = rng.choice(list(Compression))
    kind = rng.choice([_mutated, _mutated, _mutated, _large, _broken])
    what, records, payload = kind(rng, codec)
    batch = record_batch(records, compression=codec) if payload is None else batch_of(payload, records, codec)
    return f"{what}, {codec.name}", len(records), batch


Made = tuple[str, Sequence[RawRecord], bytes | None]


def _mutated(rng: random.Random, _codec: Compression) -> Made:
    return "mutated", [_record(rng) for _ in range(rng.randint(1, 20))], None


def _large(rng: random.Random, codec: Compression) -> Made:
    """Compressed to almost nothing, where the codec compresses."""
    size = rng.randint(1, MOST_DECOMPRESSED_BYTES if codec in (Compression.GZIP, Compression.ZSTD) else 1_000_000)
    return "large", [RawRecord(rng.choice([b'{"a":"', b"[", b""]) + b"a" * size, _headers(rng))], None


def _broken(rng: random.Random, _codec: Compression) -> Made:
    return "broken", [_record(rng)], rng.randbytes(rng.randint(0, 200))


def _record(rng: random.Random) -> RawRecord:
    items = [upstream_item(position, f"mentor-{rng.randint(1, 100)}") for position in range(rng.randint(1, 5))]
    event = submitted(UUID(int=rng.getrandbits(128), version=4), items)
    if rng.random() < 0.3:
        event = structured(event)
    headers: list[RawHeader] = [(name.encode(), value) for name, value in event.headers]
    value: bytes | None = event.value
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        at = rng.randrange(len(headers) + 1)
        match rng.randrange(8):
            case 0:
                headers.insert(at, (_text(rng), _text(rng)))
            case 1:
                headers = headers[:at] + headers[at + 1 :]
            case 2:
                headers += headers[at : at + 3]
            case 3:
                headers = [
                    (rng.choice([name, name.upper(), _text(rng)]), rng.choice([old, None, _text(rng)])) for name, old in headers
                ]
            case 4:
                headers += [(b"x%d" % number, b"x") for number in range(rng.choice([10, 1_000, 10_000]))]
            case 5:
                value = rng.choice([None, b"", _text(rng)])
            case 6 if value:
                place = rng.randrange(len(value))
                value = value[:place] + rng.choice([b"", _text(rng)]) + value[place + rng.choice([0, 1, 7]) :]
            case _:
                headers.insert(at, (b"n" * rng.choice([0, 1, 100_000]), b"v" * rng.choice([0, 1, 100_000])))
    moment = rng.choice([-(2**63), -1, 0, 1, 1_774_500_000_000, 253_402_300_800_000, 2**63 - 1, rng.getrandbits(40)])
    return RawRecord(value, headers, rng.choice([None, b"", b"key", _text(rng), b"k" * 100_000]), moment)


def _headers(rng: random.Random) -> Sequence[RawHeader]:
    return [(name.encode(), value) for name, value in binary_headers(rng.randbytes(8).hex())]


_SAMPLES = (
    b"\xff",
    b"\x00",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    "ø".encode(),
    b"content-type",
    b"ce_id",
    b"traceparent",
    b"\n",
)


def _text(rng: random.Random) -> bytes:
    return b"".join(rng.choice([*_SAMPLES, rng.randbytes(rng.randint(0, 30))]) for _ in range(rng.randint(0, 4)))
