"""Files of people and programs, damaged at random, and read as submissions and as corrections of a batch."""

import csv
import io
import json
import random
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from openpyxl import Workbook

from api.load.files import MAX_FILE_BYTES
from orchestrator.files.corrections import read_corrections
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.submissions import Given, read_submissions
from tests.fuzz.budget import Child
from tests.fuzz.findings import Findings

HEADERS = ("item_id", "mentor_id", "activity_type", "activity_date", "duration_minutes", "notes", "client_reference")
ENDINGS = (".csv", ".tsv", ".xlsx", ".json", ".ndjson")

# What people, programs and attackers write into cells.
TEXTS = (
    *(
        "",
        " ",
        "00482",
        "kåre-07",
        "ka\u030are-07",
        "m-1\u200b",
        "=1+1",
        '="00482"',
        "'-5",
        "90\xa0min",
        "1:30",
        "1,5 h",
        "1E5",
        "1-2",
    ),
    *(
        "2026-03-25",
        "25.03.2026",
        "03/04/2026",
        "46106",
        "true",
        "#N/A",
        "_x000D_",
        "a;=1",
        "line\nbreak",
        "\t",
        "\0",
        '"',
        "\ud83d\ude00",
    ),
    *("9" * 5_000, "a\u0327\u030a" * 5_000, "' " * 5_000, ",;\t" * 3_000, "1," * 5_000, "-" * 10_000, "x" * 40_000),
)
FORMATS = (
    "General",
    "00000",
    '"A-"000',
    "0.00",
    "#,##0",
    "dd.mm.yyyy",
    "h:mm",
    "[h]:mm",
    "@",
    ";;;",
    '0" t"',
    "0%",
    "[>1]0;" * 500,
)
PIECES = (
    b"",
    b"\0",
    b"\xff",
    b'"',
    b"\r\n",
    b";" * 100,
    b"<c>",
    b"</row>",
    b"<row/>" * 50,
    b'r="XFD1048576"',
    b"&amp;",
    b"_xD800_",
    b"9" * 20,
)


@contextmanager
def reading() -> Iterator[Callable[[tuple[str, bytes]], str]]:
    """The child's work: reads a file in both ways. A refusal is as good a result as a batch."""
    item = {"item_id": str(UUID(int=1)), "status": "failed", "mentor_id": "00482", "activity_type": "påske", "attempt": 1}
    item |= {"activity_date": "2026-03-25", "duration_minutes": 60, "notes": "1-2"}

    def read(given: tuple[str, bytes]) -> str:
        name, raw = given
        answers = []
        for way in (lambda: read_submissions(name, raw, Given()), lambda: read_corrections(name, raw).against([item])):
            try:
                way()
                answers.append("read")
            except BadFileError as refusal:
                # Messages must be writable, whatever the file contains.
                "\n".join(map(str, refusal.mistakes)).encode("utf-8", "replace")
                answers.append("refused")
        return ", ".join(answers)

    yield read


def run(*, seconds: float, seed: int, folder: Path) -> list[str]:
    """Reads files for this long. Returns the findings."""
    chance = random.Random(seed)
    findings = Findings(folder)
    until = time.monotonic() + seconds
    with Child(reading) as child:
        while time.monotonic() < until:
            name, raw = made(chance)
            # A larger one is refused before it is read. The command line reads it on the machine of the person who names it.
            if len(raw) > MAX_FILE_BYTES:
                continue
            for wrong in child.run((name, raw)).wrong:
                findings.note(wrong, raw, what=name)
    return findings.found


def made(chance: random.Random) -> tuple[str, bytes]:
    """A file, and its name."""
    ending = chance.choice(ENDINGS)
    rows = [[_value(chance) for _ in HEADERS] for _ in range(_size(chance))]
    if ending == ".xlsx":
        raw = _workbook(chance, rows)
    elif ending in (".csv", ".tsv"):
        raw = _table(chance, rows)
    else:
        raw = _documents(chance, rows, one=ending == ".json")
    if chance.random() < 0.3:
        raw = _damaged(chance, raw)
    return f"file{chance.choice(ENDINGS) if chance.random() < 0.05 else ending}", raw


def _size(chance: random.Random) -> int:
    return chance.choice((0, 1, 2, 5, 50, 500)) if chance.random() < 0.97 else 5_000


def _value(chance: random.Random) -> Any:
    if chance.random() < 0.9:
        return chance.choice(TEXTS[:27])
    kinds: tuple[Callable[[], Any], ...] = (
        lambda: chance.choice(TEXTS),
        lambda: chance.randint(-10, 10**12),
        lambda: chance.uniform(-1e3, 1e20),
        lambda: date(1990, 1, 1) + timedelta(days=chance.randint(0, 20_000)),
        lambda: datetime(2026, 1, 1) + timedelta(seconds=chance.randint(0, 10**8)),  # noqa: DTZ001 - as a workbook has it
        lambda: timedelta(minutes=chance.randint(0, 10**5)),
        lambda: chance.random() < 0.5,
    )
    return chance.choice(kinds)()


def _table(chance: random.Random, rows: list[list[Any]]) -> bytes:
    delimiter = chance.choice(",;\t|")
    text = io.StringIO()
    if chance.random() < 0.1:
        text.write(f"sep={delimiter}\r\n")
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL if chance.random() < 0.5 else csv.QUOTE_MINIMAL)
    writer.writerow(HEADERS)
    writer.writerows(rows)
    return text.getvalue().encode(chance.choice(("utf-8", "utf-8-sig", "windows-1252", "utf-16", "utf-32")), "replace")


def _workbook(chance: random.Random, rows: list[list[Any]]) -> bytes:
    book = Workbook()
    sheet = book.worksheets[0]
    for row in [list(HEADERS), *rows]:
        sheet.append([_storable(value) for value in row])
    for _ in range(min(20, len(rows) * 3)):
        cell = sheet.cell(chance.randint(2, len(rows) + 1), chance.randint(1, len(HEADERS)))
        cell.number_format = chance.choice(FORMATS)
    file = io.BytesIO()
    book.save(file)
    if chance.random() < 0.5:
        return file.getvalue()
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = chance.choice(sorted(parts))
    parts[name] = _damaged(chance, parts[name])
    changed = io.BytesIO()
    with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content * (chance.choice((50, 5_000)) if chance.random() < 0.01 else 1))
    return changed.getvalue()


def _storable(value: Any) -> Any:
    """Values that the library that writes workbooks accepts."""
    if isinstance(value, str):
        return "".join(each for each in value[:32_000] if each.isprintable() or each in "\n\t")
    return value


def _documents(chance: random.Random, rows: list[list[Any]], *, one: bool) -> bytes:
    items = [dict(zip(HEADERS, row, strict=True)) for row in rows]
    if chance.random() < 0.2:
        items = [{f"field{number}": "x" for number in range(chance.randint(0, 50))} for _ in rows]
    body: Any = {"items": items} if chance.random() < 0.7 else items
    documents = [body] if one else [body] * chance.choice((1, 3))
    return "\n".join(json.dumps(each, default=str) for each in documents).encode()


def _damaged(chance: random.Random, raw: bytes) -> bytes:
    content = bytearray(raw)
    for _ in range(chance.choice((1, 2, 10))):
        at = chance.randint(0, len(content))
        content[at : at + chance.choice((0, 1, 20, 1_000))] = chance.choice(PIECES)
    return bytes(content[: chance.randint(0, len(content))] if chance.random() < 0.1 else content)
