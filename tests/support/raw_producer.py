"""Writes record batches byte by byte over a socket, as a producer would that shares no code with ours.

Kafka checks the frame of a batch (magic, CRC, offsets, sequence). It does not check a record's key, value, headers and timestamp, so a
foreign producer may put anything there that a client library would refuse to write.
"""

import gzip
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from confluent_kafka.admin import AdminClient

from tests.support.waiting import PATIENCE_S, eventually

_PRODUCE, _VERSION = 0, 7
_MAGIC = 2
_ACKS_ALL = -1
_TIMEOUT_MS = 10_000

NO_ERROR = 0
_NOT_THERE_YET = frozenset({3, 5, 6})
"""Unknown topic or partition, no leader, not the leader: the errors of a topic that was just created."""


class Compression(IntEnum):
    """The codecs, with Kafka's numbers."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


@dataclass(frozen=True)
class RawRecord:
    """A record. Header names are bytes, as in Kafka."""

    value: bytes | None
    headers: Sequence[tuple[bytes, bytes | None]] = ()
    key: bytes | None = b"key"
    timestamp_ms: int = 1_774_500_000_000


class RefusedByBrokerError(Exception):
    """The broker did not store the batch. The argument is Kafka's error code."""


def produce(
    bootstrap_servers: str,
    topic: str,
    partition: int,
    records: Sequence[RawRecord],
    *,
    compression: Compression = Compression.NONE,
) -> int:
    """Writes the records as one batch and returns the first one's offset. Raises RefusedByBrokerError."""
    return produce_batch(bootstrap_servers, topic, partition, record_batch(records, compression=compression))


def produce_batch(bootstrap_servers: str, topic: str, partition: int, batch: bytes) -> int:
    """Writes a batch unchanged and returns its offset. Waits for a topic that was just created. Raises RefusedByBrokerError."""
    error, offset = eventually(
        lambda: answer if (answer := _send(bootstrap_servers, topic, partition, batch))[0] not in _NOT_THERE_YET else None
    ) or (0, 0)
    if error != NO_ERROR:
        raise RefusedByBrokerError(error)
    return offset


def _send(bootstrap_servers: str, topic: str, partition: int, batch: bytes) -> tuple[int, int]:
    """Returns the broker's error code and the batch's offset."""
    metadata = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(topic, timeout=PATIENCE_S)
    leader = metadata.brokers[metadata.topics[topic].partitions[partition].leader]
    body = struct.pack(">hhih", _PRODUCE, _VERSION, 1, -1)  # correlation id 1, no client id
    body += struct.pack(">hhii", -1, _ACKS_ALL, _TIMEOUT_MS, 1)  # no transactional id, one topic
    body += _string(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
    with socket.create_connection((leader.host, leader.port), timeout=PATIENCE_S) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        response = _receive(connection, *struct.unpack(">i", _receive(connection, 4)))
    # Correlation id, number of topics, the topic's name, number of partitions, the partition; then the error code and the offset.
    error, offset = struct.unpack_from(">hq", response, 4 + 4 + len(_string(topic)) + 4 + 4)
    return error, offset


def record_batch(records: Sequence[RawRecord], *, compression: Compression = Compression.NONE) -> bytes:
    """Returns the records as a batch of format 2, the only one that brokers accept since Kafka 4.0."""
    base = records[0].timestamp_ms
    raw = b"".join(_record(delta, record, base) for delta, record in enumerate(records))
    return batch_of(_COMPRESS[compression](raw), records, compression)


def batch_of(payload: bytes, records: Sequence[RawRecord], compression: Compression) -> bytes:
    """Returns a batch with the frame of the records and any payload."""
    times = [record.timestamp_ms for record in records]
    # Attributes, last offset delta, first and largest time, no producer id, epoch and sequence, number of records.
    frame = struct.pack(">hiqqqhii", compression, len(records) - 1, times[0], max(times), -1, -1, -1, len(records))
    checked = frame + payload
    head = struct.pack(">ibI", -1, _MAGIC, crc32c(checked))
    return struct.pack(">qi", 0, len(head) + len(checked)) + head + checked


def _record(offset_delta: int, record: RawRecord, base_ms: int) -> bytes:
    body = b"\0" + _varint(record.timestamp_ms - base_ms) + _varint(offset_delta)
    body += _bytes(record.key) + _bytes(record.value) + _varint(len(record.headers))
    body += b"".join(_bytes(name) + _bytes(value) for name, value in record.headers)
    return _varint(len(body)) + body


def _bytes(raw: bytes | None) -> bytes:
    return _varint(-1) if raw is None else _varint(len(raw)) + raw


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _varint(number: int) -> bytes:
    """Zigzag encoding: small numbers of both signs are short."""
    return _unsigned((number << 1) ^ (number >> 63))


def _unsigned(number: int) -> bytes:
    encoded = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        if not (chunk := connection.recv(size - len(received))):
            raise ConnectionError("the broker has closed the connection")
        received += chunk
    return received


# --- Codecs. gzip compresses; the others only frame the bytes unchanged (zstd: as runs) ---------------------------------------

_SNAPPY_LITERAL = 1 << 16
_LZ4_BLOCK = 1 << 16
_ZSTD_BLOCK = 1 << 17


def _snappy(raw: bytes) -> bytes:
    """Returns a block of literals of at most 64 KiB each. Their tag says that two bytes with the length follow."""
    blocks = [raw[at : at + _SNAPPY_LITERAL] for at in range(0, len(raw), _SNAPPY_LITERAL)]
    return _unsigned(len(raw)) + b"".join(b"\xf4" + struct.pack("<H", len(block) - 1) + block for block in blocks)


def _lz4(raw: bytes) -> bytes:
    """Returns a frame of blocks that are marked as uncompressed. The header's checksum belongs to these flags."""
    blocks = [raw[at : at + _LZ4_BLOCK] for at in range(0, len(raw), _LZ4_BLOCK)]
    head = bytes.fromhex("04224d18604082")
    return head + b"".join(struct.pack("<I", len(block) | 1 << 31) + block for block in blocks) + bytes(4)


def _zstd(raw: bytes) -> bytes:
    """Returns a frame of blocks: a run of one byte as that byte and its length, everything else unchanged."""
    blocks = [raw[at : at + _ZSTD_BLOCK] for at in range(0, len(raw), _ZSTD_BLOCK)]
    frame = struct.pack("<IBQ", 0xFD2FB528, 0xE0, len(raw))
    for number, block in enumerate(blocks):
        is_last, is_run = number == len(blocks) - 1, block == block[:1] * len(block)
        head = len(block) << 3 | is_run << 1 | is_last
        frame += struct.pack("<I", head)[:3] + (block[:1] if is_run else block)
    return frame


_COMPRESS: Mapping[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: lambda raw: raw,
    Compression.GZIP: lambda raw: gzip.compress(raw),
    Compression.SNAPPY: _snappy,
    Compression.LZ4: _lz4,
    Compression.ZSTD: _zstd,
}


def _crc32c_table() -> list[int]:
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _crc32c_table()


def crc32c(raw: bytes) -> int:
    """Returns the checksum of a batch (Castagnoli), which Python's libraries do not have."""
    crc = 0xFFFFFFFF
    for byte in raw:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
