"""Large, deep, wide or odd JSON as text: what a parser has to handle before anything was checked."""

from collections.abc import Callable, Sequence
from random import Random

UNITS: Sequence[bytes] = (
    *(
        b"[]",
        b"{}",
        b'""',
        b'"ab"',
        b"1",
        b"-0",
        b"1.5",
        b"1e5",
        b"1e400",
        b"null",
        b"true",
        b"[[]]",
        b'{"":1}',
        b'{"a":{}}',
        b"NaN",
    ),
    b'"\\u00e9"',
    b'"\\ud800"',
    b'"\\u0000"',
    b"12345678901234567890",
    '"\N{GRINNING FACE}"'.encode(),
)
"""Short values, of which a list holds many."""

CHARACTERS: Sequence[bytes] = (
    *(
        b"a",
        b" ",
        b",",
        b"[",
        b"{",
        b":",
        b"\\n",
        b'\\"',
        b"\\\\",
        b"\\u0041",
        b"\\ud83d\\ude00",
        b"\\u0000",
        b"\\ud800",
        b"\x7f",
    ),
    *(
        text.encode()
        for text in (
            "é",
            "e\N{COMBINING ACUTE ACCENT}",
            "\N{COMBINING ACUTE ACCENT}\N{COMBINING DOT BELOW}",
            "中",
            "\N{GRINNING FACE}",
            "\N{RIGHT-TO-LEFT OVERRIDE}",
        )
    ),
)
"""The characters of a long text, as JSON writes them."""

SIZES: Sequence[int] = (1, 30, 1_000, 100_000, 2_000_000, 16_000_000)
"""The approximate number of bytes of a value."""


def size(random: Random, most: int) -> int:
    """A size up to `most`, of any order of magnitude."""
    return min(most, random.choice(SIZES) * random.randint(1, 3) // 2 + 1)


def text(random: Random, length: int) -> bytes:
    """A text of about this many bytes. Sometimes one character of four bytes makes each of the others take four in memory."""
    character = random.choice(CHARACTERS)
    wide = "\N{GRINNING FACE}".encode() if random.random() < 0.3 else b""
    return b'"' + character * max(1, length // len(character)) + wide + b'"'


def _list(random: Random, length: int) -> bytes:
    unit = random.choice(UNITS)
    return b"[" + b",".join([unit] * max(1, length // (len(unit) + 1))) + b"]"


def _object(random: Random, length: int) -> bytes:
    unit = random.choice(UNITS)
    name = random.choice((b"k", b"mentor_id", b"\\u00e6", b"a" * 200))
    count = max(1, length // (len(unit) + len(name) + 10))
    return b"{" + b",".join(b'"%b%d":%b' % (name, number, unit) for number in range(count)) + b"}"


def _same_name(random: Random, length: int) -> bytes:
    unit = random.choice(UNITS)
    return b"{" + b",".join([b'"a":' + unit] * max(2, length // (len(unit) + 5))) + b"}"


def _deep(random: Random, length: int) -> bytes:
    begin, end = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    depth = min(random.choice((10, 19, 20, 21, 1_000, length)), max(1, length // (len(begin) + len(end))))
    return begin * depth + b"1" + end * (depth if random.random() < 0.8 else 0)


def _number(random: Random, length: int) -> bytes:
    digits = random.choice((b"9", b"0", b"1")) * min(length, 5_000_000)
    return random.choice((b"%b", b"-%b", b"1.%b", b"1e%b", b"0.%be-5")) % digits


_VALUES: Sequence[Callable[[Random, int], bytes]] = (text, _list, _list, _object, _object, _same_name, _deep, _number)


def value(random: Random, most: int) -> bytes:
    """Any value of at most about this many bytes."""
    return random.choice(_VALUES)(random, size(random, most))


def damaged(random: Random, raw: bytes) -> bytes:
    """Mostly the same text. Sometimes it has a byte too many or too few, is cut off, or is in another encoding."""
    chance = random.random()
    if chance < 0.9 or not raw:
        return raw
    place = random.randrange(len(raw))
    if chance < 0.94:
        return raw[:place] + random.choice((b'"', b"\\", b",", b"[", b"}", b"\x00", b"\xff", b"0")) + raw[place:]
    if chance < 0.98:
        return raw[:place]
    return random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x00")) + raw


def item(random: Random, number: int, notes: bytes, *, position: bool) -> bytes:
    """A well-formed item; `notes` is JSON."""
    placed = b'"position":%d,' % number if position else b""
    return (
        b'{%b"mentor_id":"mentor-%d","activity_type":"visit","activity_date":"2026-%02d-%02d","duration_minutes":60,"notes":%b}'
        % (placed, number % 100, number // 100 % 12 + 1, number // 1_200 % 28 + 1, notes)
    )


def items(random: Random, most: int, *, position: bool) -> list[bytes]:
    """Items of at most this many bytes together: well-formed, or the same thousands of times, or with one of many faults."""
    count = random.choice((0, 1, 2, 25, 499, 500, 501, 2_000, 9_999, 10_000, 10_001, 30_000))
    room = max(0, most // max(1, count) - 130)
    notes = random.choice((b"null", text(random, random.randint(0, min(room, 12_000)))))
    chance = random.random()
    if chance < 0.5:
        made = [item(random, number, notes, position=position) for number in range(count)]
    elif chance < 0.6:
        made = [item(random, 0, notes, position=position)] * count
    else:
        odd = random.choice(
            (
                *UNITS,
                b'{"mentor_id":1,"activity_type":[],"activity_date":0,"duration_minutes":"x","notes":{},"position":-1}',
                item(random, 1, b"null", position=position).replace(b"2026-", b"0000-"),
                item(random, 1, b"null", position=position).replace(b":60", b":2147483648"),
                item(random, 1, b"null", position=position).replace(b'"notes"', b'"other":1,"more":2,"notes"'),
                value(random, max(1, min(room, 100_000))),
                item(random, 1, b"null", position=position).replace(
                    b'"mentor-1"', text(random, random.randint(0, min(room, 1_000)))
                ),
            )
        )
        made = [odd if random.random() < 0.9 else item(random, number, notes, position=position) for number in range(count)]
    total = 0
    for index, one in enumerate(made):
        total += len(one) + 1
        if total > most:
            return made[:index]
    return made


def document(random: Random, fields: dict[str, bytes], most: int) -> bytes:
    """An object with these fields, some of them replaced or left out, or with unknown ones added."""
    fields = dict(fields)
    for name in list(fields):
        chance = random.random()
        if chance < 0.05:
            fields[name] = value(random, most)
        elif chance < 0.08:
            del fields[name]
    if random.random() < 0.15:
        fields["unknown"] = value(random, most)
    body = b",".join(b'"%b":%b' % (name.encode(), held) for name, held in fields.items())
    if random.random() < 0.05:
        body += b"," + _object(random, size(random, most))[1:-1]
    return damaged(random, b"{" + body + b"}")[:most]
