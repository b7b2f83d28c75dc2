"""`POST /read-file` turns a table into rows and mistakes in a separate process, and stores nothing."""

import asyncio
import io
import signal
import sys
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import httpx
import pytest
from openpyxl import Workbook
from sqlalchemy import Engine, text

from api.http.problems import ProblemError
from api.load import files
from orchestrator.batches.model import Role
from orchestrator.files import readings
from schemas.api.files import ReadFileResponse
from schemas.paths import API_PATH
from tests.support.api_server import ApiServer

READ = f"{API_PATH}/read-file"
CSV, TSV = "text/csv", "text/tab-separated-values"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

HEADER = "mentor_id;activity_type;activity_date;duration_minutes;notes\n"


def read(client: httpx.Client, content: str | bytes, content_type: str = CSV) -> dict[str, Any]:
    answer = client.post(READ, content=content, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store"), answer.text
    ReadFileResponse.model_validate_json(answer.content, extra="forbid")
    found: dict[str, Any] = answer.json()
    return found


def workbook(*rows: tuple[Any, ...]) -> bytes:
    book = Workbook()
    sheet = book.create_sheet("list", 0)
    for row in rows:
        sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def mistakes(found: dict[str, Any]) -> list[tuple[int | None, str | None, str, str | None]]:
    return [(each["row"], each["column"], each["code"], each["value"]) for each in found["mistakes"]]


def test_each_row_is_read_and_nothing_is_stored(coordinator: httpx.Client, engine: Engine) -> None:
    found = read(coordinator, HEADER + "m-1;visit;25.03.2026;1,5 h;a note\nm-2;visit;2026-03-25;60;\n")
    assert found == {
        "items": [
            {
                "row": 2,
                "client_reference": "row 2",
                "mentor_id": "m-1",
                "activity_type": "visit",
                "activity_date": "2026-03-25",
                "duration_minutes": 90,
                "notes": "a note",
            },
            {
                "row": 3,
                "client_reference": "row 3",
                "mentor_id": "m-2",
                "activity_type": "visit",
                "activity_date": "2026-03-25",
                "duration_minutes": 60,
            },
        ],
        "mistakes": [],
        "ignored_columns": [],
        "remarks": [],
    }
    with engine.connect() as connection:
        for table in ("batch", "batch_item", "outbox", "idempotency_key"):
            assert connection.execute(text(f"SELECT count(*) FROM orchestrator.{table}")).scalar_one() == 0


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        ("mentor\tdato\nm-1\t25.03.2026\n", TSV),
        ("mentor\tdato\nm-1\t25.03.2026\n", "text/plain; charset=utf-8"),
        ("mentor,dato\nm-1,25.03.2026\n", CSV),
        (workbook(("mentor", "dato"), ("m-1", "25.03.2026")), XLSX),
    ],
    ids=["tsv", "pasted", "csv", "xlsx"],
)
def test_tables_of_every_kind_are_read_alike(coordinator: httpx.Client, content: str | bytes, content_type: str) -> None:
    [item] = read(coordinator, content, content_type)["items"]
    assert item == {"row": 2, "client_reference": "row 2", "mentor_id": "m-1", "activity_date": "2026-03-25"}


def test_every_mistake_has_its_place_code_and_value_and_the_row_keeps_its_other_values(coordinator: httpx.Client) -> None:
    found = read(
        coordinator,
        "Likeperson;Type;Dato;Minutter;Rom;Merknad\n"
        "m-1;visit;25/03/2026;60;4;\n"
        ";visit;25.03.2026;60;4;\n"
        "m-3;;30.02.2026;an hour;4;\n"
        "m-4;visit;25.03.2026;60;4;" + "x" * 10_001 + "\n"
        "m-5;visit;25.03.2026;60;4;;7\n"
        f"{'m' * 101};visit;25.03.2026;60;4;\n"
        "m-4;visit;25.03.2026;90;4;\n",
    )
    assert mistakes(found) == [
        (2, "Dato", "slashes", "25/03/2026"),
        (4, "Type", "empty", ""),
        (4, "Dato", "not_a_date", "30.02.2026"),
        (4, "Minutter", "not_a_duration", "an hour"),
        (5, "Merknad", "too_long", None),
        (6, None, "too_many_cells", None),
        (7, "Likeperson", "too_long", "m" * 101),
        (3, "mentor_id", "empty", ""),
        (8, "mentor_id", "duplicate_mentor", "m-4"),
    ]
    fields = [
        "activity_date",
        "activity_type",
        "activity_date",
        "duration_minutes",
        "notes",
        None,
        "mentor_id",
        "mentor_id",
        "mentor_id",
    ]
    assert [mistake["field"] for mistake in found["mistakes"]] == fields
    assert found["ignored_columns"] == ["Rom"]
    assert found["items"][2] == {"row": 4, "client_reference": "row 4", "mentor_id": "m-3"}
    assert [item["row"] for item in found["items"]] == list(range(2, 9))


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Kari Foss", {"mentor_name": "Kari Foss"}),
        ("Leif Åsen", {"mentor_name": "Leif Åsen"}),
        ("O'Neil Anne-Marie", {"mentor_name": "O'Neil Anne-Marie"}),
        ("Foss, Kari M.", {"mentor_name": "Foss, Kari M."}),
        ("kari-11", {"mentor_id": "kari-11"}),
        ("Kari", {"mentor_id": "Kari"}),
        ("mentor 11", {"mentor_id": "mentor 11"}),
        ("00482", {"mentor_id": "00482"}),
    ],
)
def test_a_name_in_a_cell_is_returned_as_a_name(cell: str, expected: dict[str, str]) -> None:
    [item] = readings.read_file(".csv", f'mentor\n"{cell}"\n'.encode(), max_items=9)["items"]
    assert item == {"row": 2, "client_reference": "row 2", **expected}


def test_a_column_of_names_is_used_where_the_id_is_missing() -> None:
    content = "mentor_id;navn\nm-1;Kari Foss\n;Leif Lie\n;\nm-2;\n"
    found = readings.read_file(".csv", content.encode(), max_items=9)
    people = [{name: item[name] for name in ("mentor_id", "mentor_name") if name in item} for item in found["items"]]
    assert people == [{"mentor_id": "m-1"}, {"mentor_name": "Leif Lie"}, {"mentor_id": "m-2"}]
    only_names = readings.read_file(".csv", b"Navn\nKari\n", max_items=9)
    assert (only_names["items"][0]["mentor_name"], only_names["mistakes"]) == ("Kari", [])
    neither = readings.read_file(".csv", b"dato\n25.03.2026\n", max_items=9)
    assert [mistake["code"] for mistake in neither["mistakes"]] == ["missing_column"]


@pytest.mark.parametrize(("rows", "codes"), [(2, []), (3, []), (4, ["too_many_items"])])
def test_too_many_rows_are_a_mistake_with_both_numbers(rows: int, codes: list[str]) -> None:
    content = "mentor\n" + "".join(f"m-{n}\n" for n in range(rows))
    found = readings.read_file(".csv", content.encode(), max_items=3)
    assert [mistake["code"] for mistake in found["mistakes"]] == codes
    assert len(found["items"]) == min(rows, 3)
    if codes:
        assert "4 rows" in found["mistakes"][0]["detail"]
        assert "limit is 3" in found["mistakes"][0]["detail"]
        assert found["mistakes"][0]["value"] == "4"


@pytest.mark.parametrize(
    ("content", "content_type", "code"),
    [
        (b"", CSV, "empty_file"),
        (b"mentor\n", CSV, "no_rows"),
        (b"mentor;mentor\nm-1;m-2\n", CSV, "repeated_column"),
        (b"%PDF-1.7", CSV, "unreadable"),
        (b"mentor\nm-1\n", XLSX, "unreadable"),
        (workbook(("mentor",), ("m-1",)), CSV, "unreadable"),
    ],
    ids=["empty", "header only", "twice", "pdf", "text as workbook", "workbook as text"],
)
def test_a_file_that_is_no_table_is_one_mistake(coordinator: httpx.Client, content: bytes, content_type: str, code: str) -> None:
    found = read(coordinator, content, content_type)
    assert ([each["code"] for each in found["mistakes"]], found["items"]) == ([code], [])
    assert found["mistakes"][0]["detail"]


# --- Who, how large, how long ----------------------------------------------------------------------------------------------------


def test_other_content_types_are_refused(coordinator: httpx.Client) -> None:
    for content_type in ("application/json", "application/octet-stream", "text/html"):
        answer = coordinator.post(READ, content=b"mentor\nm-1\n", headers={"Content-Type": content_type})
        assert (answer.status_code, answer.json()["code"]) == (415, "not_a_table")
    # A submission is not accepted as a table, either.
    answer = coordinator.post(API_PATH, content=b"mentor\nm-1\n", headers={"Content-Type": CSV})
    assert (answer.status_code, answer.json()["code"]) == (415, "not_json")


def test_what_was_read_with_a_doubt_or_not_read_is_remarked_on(coordinator: httpx.Client) -> None:
    book = Workbook()
    book.worksheets[0].append(["Navn", None, "Notat"])
    for number in range(12):
        book.worksheets[0].append([f"Kari {'o' * number}", "x", "Troms¿"])
    for number in range(2, 14):
        book.worksheets[0].row_dimensions[number].hidden = True
    book.worksheets[0].column_dimensions["C"].hidden = True
    book.create_sheet("Mai")
    book.create_sheet("Juni").sheet_state = "hidden"
    file = io.BytesIO()
    book.save(file)
    found = read(coordinator, file.getvalue(), XLSX)["remarks"]
    first = [*range(2, 12)]
    assert [(each["code"], each["rows"], each["names"], each["count"]) for each in found] == [
        ("other_sheets", [], ["Mai"], 1),
        ("hidden_sheets", [], ["Juni"], 1),
        ("untitled_columns", [], ["B"], 1),
        ("hidden_rows", first, [], 12),
        ("hidden_columns", [], ["Notat"], 1),
        ("misread_notes", first, [], 12),
    ]
    assert all(each["detail"] and "Troms" not in each["detail"] for each in found)
    text = HEADER + "Ñandú;x;2026-01-01;15;\na;x;2026-01-01;60;####\n"
    letters, narrow = read(coordinator, text.encode("windows-1252"))["remarks"]
    assert (letters["code"], letters["names"], narrow["code"], narrow["rows"]) == (
        "unusual_letters",
        ["Ñ", "ú"],
        "narrow_notes",
        [3],
    )
    assert [each["code"] for each in read(coordinator, HEADER.replace(";", ",") + "a,x,2026-01-01,15,5 t\n")["remarks"]] == [
        "possible_hours"
    ]


def test_an_auditor_may_not_read_files(api: ApiServer) -> None:
    with api.client(Role.AUDITOR, sub="auditor") as auditor:
        answer = auditor.post(READ, content=b"mentor\nm-1\n", headers={"Content-Type": CSV})
    assert (answer.status_code, answer.json()["code"]) == (403, "role_may_not")


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_file_has_at_most_ten_mebibytes(coordinator: httpx.Client, more: int) -> None:
    # A cell has at most 131,072 characters.
    rows = b"".join(b"m-%03d;%s\n" % (n, b"x" * 100_000) for n in range(104))
    head = b"mentor;room\n" + rows + b"m-last;"
    content = head + b"x" * (files.MAX_FILE_BYTES + more - len(head))
    assert len(content) == files.MAX_FILE_BYTES + more
    answer = coordinator.post(READ, content=content, headers={"Content-Type": CSV})
    if more > 0:
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert f"{files.MAX_FILE_BYTES:,}" in answer.json()["detail"]
    else:
        assert [item["mentor_id"] for item in answer.json()["items"]][-2:] == ["m-103", "m-last"]


def bomb() -> bytes:
    """A workbook that unpacks to a gigabyte."""
    file = io.BytesIO()
    with ZipFile(io.BytesIO(workbook(("mentor",), ("m-1",)))) as good, ZipFile(file, "w", ZIP_DEFLATED) as bad:
        for part in good.namelist():
            content = good.read(part)
            if part.endswith("sheet1.xml"):
                content = content.replace(b"<sheetData>", b"<sheetData>" + b" " * (1 << 29))
            bad.writestr(part, content)
    return file.getvalue()


def test_a_workbook_that_unpacks_to_too_much_is_refused(coordinator: httpx.Client) -> None:
    answer = coordinator.post(READ, content=bomb(), headers={"Content-Type": XLSX})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert [each["code"] for each in answer.json()["mistakes"]] == ["unreadable"]
    assert len(read(coordinator, "mentor\nm-1\n")["items"]) == 1


CREATE = asyncio.create_subprocess_exec


def test_reading_a_file_for_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []

    async def start(*_command: str, **named: Any) -> asyncio.subprocess.Process:
        started.append(await CREATE(sys.executable, "-c", "import time; time.sleep(60)", **named))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    readers = files.FileReaders(max_reading_s=0.1, max_waiting_s=0.1)
    with pytest.raises(ProblemError) as refused:
        asyncio.run(readers.read(".csv", b"mentor\nm-1\n", max_items=9))
    assert refused.value.code == "file_too_costly"
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_two_files_are_read_at_once_and_a_third_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []
    started: list[asyncio.subprocess.Process] = []

    async def start(*command: str, **named: Any) -> asyncio.subprocess.Process:
        started.append(await CREATE(*command, **named))
        at_once.append(sum(process.returncode is None for process in started))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    readers = files.FileReaders(max_reading_s=60, max_waiting_s=60)

    async def five() -> list[bytes]:
        return await asyncio.gather(*(readers.read(".csv", b"mentor\nm-1\n", max_items=9) for _ in range(5)))

    assert len(set(asyncio.run(five()))) == 1
    assert (len(at_once), max(at_once)) == (5, 2)


def test_a_third_file_is_refused_if_the_first_two_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = files.FileReaders(max_reading_s=60, max_waiting_s=0.1)

    async def third() -> None:
        await readers._places.acquire()
        await readers._places.acquire()
        await readers.read(".csv", b"mentor\nm-1\n", max_items=9)

    with pytest.raises(ProblemError) as refused:
        asyncio.run(third())
    assert (refused.value.code, "Retry-After" in refused.value.headers) == ("overloaded", True)


def test_at_most_eight_files_wait() -> None:
    """Each waiting request holds ten megabytes."""
    readers = files.FileReaders(max_reading_s=60, max_waiting_s=60)

    async def ninth() -> None:
        await readers._places.acquire()
        await readers._places.acquire()
        waiting = [asyncio.create_task(readers.read(".csv", b"mentor\nm-1\n", max_items=9)) for _ in range(8)]
        await asyncio.sleep(0)
        assert [each.done() for each in waiting] == [False] * 8
        with pytest.raises(ProblemError) as refused:
            await readers.read(".csv", b"mentor\nm-1\n", max_items=9)
        assert refused.value.code == "overloaded"
        readers._places.release()
        readers._places.release()
        assert len(await asyncio.gather(*waiting)) == 8

    asyncio.run(ninth())


def test_a_file_that_has_waited_too_long_makes_room_for_others() -> None:
    readers = files.FileReaders(max_reading_s=60, max_waiting_s=0.05)

    async def ten() -> bytes:
        await readers._places.acquire()
        await readers._places.acquire()
        for _ in range(9):
            with pytest.raises(ProblemError):
                await readers.read(".csv", b"mentor\nm-1\n", max_items=9)
        readers._places.release()
        readers._places.release()
        return await readers.read(".csv", b"mentor\nm-1\n", max_items=9)

    assert asyncio.run(ten())


def test_a_failing_reader_is_logged_without_the_file(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async def start(*_command: str, **named: Any) -> asyncio.subprocess.Process:
        return await CREATE(sys.executable, "-c", "import sys; sys.exit(sys.stdin.read())", **named)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    with pytest.raises(ProblemError) as refused:
        asyncio.run(files.FileReaders().read(".csv", b"canary", max_items=9))
    assert refused.value.code == "file_too_costly"
    assert ("file_reader_failed" in caplog.text, "canary" in caplog.text) == (True, False)


def test_a_reader_gets_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings contain the database's passwords."""
    seen: dict[str, str] = {}

    async def start(*command: str, **named: Any) -> asyncio.subprocess.Process:
        seen.update(named["env"])
        return await CREATE(*command, **named)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setenv("BULKREG_DATABASE_URL", "postgresql://secret")
    asyncio.run(files.FileReaders(max_reading_s=60).read(".csv", b"mentor\nm-1\n", max_items=9))
    assert seen.keys() == {"PYTHONPATH", "LC_ALL"}
