"""Files at their limits: the last row, cell, level and character that is accepted, and the first that is not."""

import io
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from openpyxl import Workbook

from orchestrator.files import headers, submissions, tables
from orchestrator.files.corrections import Corrections, read_corrections
from orchestrator.files.delimited import UnreadableFileError, decode, rows_of
from orchestrator.files.documents import documents_by_line, one_document
from orchestrator.files.mistakes import BadFileError, FileMistake
from orchestrator.files.registrations import read_registrations
from orchestrator.files.submissions import FileSubmission, Given, read_submissions
from tests.support.read_submissions import ITEM, item_of, mistakes
from tests.support.read_submissions import lines as ndjson
from tests.support.read_tables import values

HEADER = "mentor,type,date,minutes,notes"
LINE = "m-1,x,2026-03-25,60,"


# --- Text with delimiters -----------------------------------------------------------------------------------------------------


def rows(text: str, *known: str) -> list[tuple[int, int, list[str]]]:
    return list(rows_of(text, lambda titles: sum(title in known for title in titles))[1])


@pytest.mark.parametrize(
    ("first", "delimiter"),
    [
        ("sep=;", ";"),
        ("SEP=;", ";"),
        ('"sep=;"', ";"),
        ("sep=,", ","),
        ("sep=,,,,", ","),
        ("sep=\t", "\t"),
        ("sep=\\t", "\t"),
        ("sep=|", "|"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_first_line_that_names_the_delimiter_is_no_row_but_counts_as_a_line(first: str, delimiter: str, end: str) -> None:
    text = f"{first}{end}a{delimiter}b{end}c{delimiter}d{end}"
    assert rows(text, "a", "b") == [(1, 2, ["a", "b"]), (2, 3, ["c", "d"])]


@pytest.mark.parametrize("text", ["sep=", "sep=a\nb", "sep=;x\nb", "\nsep=;\n"])
def test_a_first_line_that_names_no_delimiter_is_a_row(text: str) -> None:
    assert len(rows(text, "b")) == len(text.strip("\n").splitlines()) + text.startswith("\n")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_the_one_with_the_most_known_headers(delimiter: str) -> None:
    others = "".join({",", ";", "\t"} - {delimiter})
    assert rows(f"\n \na{delimiter}b{others}\n", "a", "b")[-1][2][0] == "a"
    # If no header is known, or the numbers are equal, it is a comma.
    assert rows("a;b,c", "x") == rows("a;b,c", "a;b", "a") == [(1, 1, ["a;b", "c"])]


def test_rows_and_lines_are_counted_from_one() -> None:
    assert rows('a,b\n"c\nd",e\n\nf,g') == [(1, 1, ["a", "b"]), (2, 2, ["c\nd", "e"]), (3, 4, []), (4, 5, ["f", "g"])]


@pytest.mark.parametrize("text", ["", " \n", ",,;\t\r\n", "sep=;\n;;\n"])
def test_a_file_with_only_delimiters_has_no_rows(text: str) -> None:
    assert rows(text) == []


def test_the_encoding_is_the_first_that_fits() -> None:
    assert decode("på".encode()) == decode("på".encode("utf-8-sig")) == ("på", "utf-8")
    assert decode("på".encode("windows-1252")) == ("på", "windows-1252")
    for raw, line in ((b"a\n\n\x81", 3), (b"\x81", 1), (b"\xef\xbb\xbfa\n\xe5", 2), (b"\xef\xbb\xbf\n\n\xe5\n", 3)):
        with pytest.raises(UnreadableFileError) as refusal:
            decode(raw)
        assert refusal.value.line == line


@pytest.mark.parametrize(("before", "line"), [("", 2), ("sep=,\n", 3), ("\n\n", 4)])
def test_an_unbalanced_quote_is_named_with_its_line(before: str, line: int) -> None:
    with pytest.raises(UnreadableFileError, match="look for an extra quote") as refusal:
        rows(f'{before}a,b\n"c"d,e\n', "a")
    assert refusal.value.line == line


@pytest.mark.parametrize(("before", "line"), [("", 1), ("\n;\n", 3)])
def test_a_header_that_no_delimiter_divides_is_named_with_its_line(before: str, line: int) -> None:
    with pytest.raises(UnreadableFileError, match="field larger") as refusal:
        rows(before + "m" * 131_073)
    assert refusal.value.line == line


# --- JSON ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "is_read"), [(19, True), (20, True), (21, False)])
def test_the_nesting_of_json_is_limited(depth: int, is_read: bool) -> None:
    raw = b"[" * depth + b"]" * depth
    [(line, found)] = documents_by_line(raw)
    assert (line, isinstance(found, UnreadableFileError)) == (1, not is_read)
    if is_read:
        assert one_document(raw) == found
    else:
        with pytest.raises(UnreadableFileError, match="nested deeper than 20 levels"):
            one_document(raw)


def test_each_line_has_its_number_and_blank_lines_are_skipped() -> None:
    found = list(documents_by_line(b"\xef\xbb\xbf[1]\r\n \n\n[\n[3]"))
    assert [(line, found if isinstance(found, list) else found.line) for line, found in found] == [(1, [1]), (4, 4), (5, [3])]
    assert one_document(b"\xef\xbb\xbf[1]") == [1]
    with pytest.raises(UnreadableFileError) as refusal:
        one_document(b"{\n")
    assert refusal.value.line is None


# --- Submissions --------------------------------------------------------------------------------------------------------------


def test_a_key_depends_on_the_line_and_on_every_part_of_the_body() -> None:
    item = ITEM | {"notes": "n", "client_reference": "r"}
    body = {"label": "a", "override_duplicates": True, "items": [item]}
    variants = [
        FileSubmission(1, body),
        FileSubmission(2, body),
        *(FileSubmission(1, {key: value for key, value in body.items() if key != name}) for name in body),
        *(FileSubmission(1, body | {"items": [{k: v for k, v in item.items() if k != name}]}) for name in item),
    ]
    assert len({variant.derived_key for variant in variants}) == len(variants)
    shuffled = FileSubmission(1, dict(reversed(body.items())), rows=(2, 3))
    assert shuffled.derived_key == variants[0].derived_key
    assert len(shuffled.derived_key) <= 100


@pytest.mark.parametrize("option", ["organization_id", "coordinator_id", "label"])
def test_each_option_sets_only_its_own_field(option: str) -> None:
    given = Given(**{option: "å"})
    for name, raw in (("s.ndjson", ndjson({"items": [ITEM]})), ("s.csv", f"{HEADER}\n{LINE}".encode())):
        [submission] = read_submissions(name, raw, given).submissions
        assert {key: value for key, value in submission.body.items() if key != "items"} == {option: "å"}
    # Another spelling is no contradiction.
    assert read_submissions("s.ndjson", ndjson({option: "a\N{COMBINING RING ABOVE}", "items": [ITEM]}), given)
    [refused] = [None] if option == "label" else mistakes("s.ndjson", ndjson({option: "b", "items": [ITEM]}), given)
    assert (refused is None) == (option == "label")


def test_a_label_option_replaces_the_files_label_and_null_leaves_it() -> None:
    given = Given("o", "c", "new")
    raw = ndjson({"organization_id": None, "coordinator_id": None, "label": "old", "items": [ITEM]})
    [submission] = read_submissions("s.json", raw, given).submissions
    assert submission.body == {"organization_id": "o", "coordinator_id": "c", "label": "new", "items": [ITEM]}


def test_a_row_is_named_by_its_number_unless_it_has_a_name() -> None:
    raw = f"{HEADER},reference\n{LINE},\n\nm-2,x,2026-03-25,60,,seven\n".encode()
    [submission] = read_submissions("s.csv", raw, Given()).submissions
    assert [item["client_reference"] for item in submission.body["items"]] == ["row 2", "seven"]
    assert submission.rows == [2, 4]
    assert "notes" not in submission.body["items"][0]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b'{"items": []}', 1),
        (b'\n{"items": [{}]}\n', 2),
        (b'{"items":\n', 1),
    ],
)
def test_standard_input_that_is_json_is_refused_as_json(raw: bytes, line: int) -> None:
    assert all(found.startswith(("standard input.ndjson", "standard input.json")) for found in mistakes("-", raw))
    assert f"line {line}" in mistakes("-", raw)[0] or "acceptable JSON" in mistakes("-", raw)[0]


def test_the_number_of_items_in_a_file_is_left_to_the_server() -> None:
    """The server has the limit and reports it. A table of 10,001 rows is read."""
    items = [ITEM | {"mentor_id": f"m-{number}"} for number in range(10_001)]
    assert len(read_submissions("s.ndjson", ndjson({"items": items}), Given()).submissions[0].body["items"]) == 10_001


# --- Tables -------------------------------------------------------------------------------------------------------------------


def test_a_row_may_be_shorter_or_have_blank_cells_beyond_the_header() -> None:
    raw = b"mentor,type,date,minutes,notes,x\nm-1,x,2026-03-25,60\nm-2,x,2026-03-25,60,,, ,\n"
    assert [each["mentor_id"] for each in values("a.csv", raw)] == ["m-1", "m-2"]


@pytest.mark.parametrize(("count", "is_cut"), [(199, False), (200, False), (201, True)])
def test_only_the_beginning_of_a_long_value_is_shown(count: int, is_cut: bool) -> None:
    with pytest.raises(BadFileError) as refusal:
        read_registrations("a.csv", f"{HEADER}\nm-1,x,{'d' * count},60,\n".encode())
    assert refusal.value.mistakes[0].value == ("d" * 200 + "…" if is_cut else "d" * count)


def test_only_the_beginning_of_an_unknown_title_is_shown() -> None:
    table = read_registrations("a.csv", f"{HEADER},{'t' * 201},,u\n{LINE}\n".encode())
    assert table.remarks == [f"a.csv: not read: {'t' * 200}…, u"]


def test_the_number_of_listed_mistakes_is_limited_and_the_rest_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_MISTAKES", 3)

    def found(rows: int) -> list[str]:
        with pytest.raises(BadFileError) as refusal:
            read_registrations("a.csv", "\n".join([HEADER, *[f"m,x,soon,60,{row}" for row in range(rows)]]).encode())
        return [str(mistake).partition(":")[2] for mistake in refusal.value.mistakes]

    assert [len(found(rows)) for rows in (2, 3, 4, 9)] == [2, 3, 4, 4]
    assert found(4)[-1] == found(9)[-1] == " has more mistakes than are listed here"


@pytest.mark.parametrize(("most", "read"), [(None, 5), (0, 0), (3, 3), (5, 5), (6, 5)])
def test_rows_after_the_most_that_are_wanted_are_only_counted(most: int | None, read: int) -> None:
    parsed: list[object] = []
    raw = b"mentor\n\nm\n\nm\nm\n \nm\nm\n"
    content = tables.read_content(
        "a.csv", raw, [headers.Column("mentor", parsed.append)], lambda _name, _rows: (), most_rows=most
    )
    assert (len(parsed), len(content.rows), content.row_count) == (read, read, 5)


def test_ten_hidden_rows_are_named() -> None:
    def remark(hidden: int) -> str:
        book = Workbook()
        sheet = book.worksheets[0]
        lines: list[list[Any]] = [HEADER.split(","), *([f"m-{number}", "x", "25.03.2026", 60] for number in range(12))]
        for line in lines:
            sheet.append(line)
        for row in range(2, 2 + hidden):
            sheet.row_dimensions[row].hidden = True
        file = io.BytesIO()
        book.save(file)
        [found] = read_registrations("a.xlsx", file.getvalue()).remarks
        return found

    said = "hidden in the sheet, but read"
    assert remark(1) == f"a.xlsx: 1 row is {said}: 2"
    assert remark(10) == f"a.xlsx: 10 rows are {said}: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
    assert remark(11) == f"a.xlsx: 11 rows are {said}: 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, …"


@pytest.mark.parametrize(
    ("column", "value"), [("mentor", "m-2"), ("type", "y"), ("date", "2026-03-26"), ("minutes", None), ("notes", None)]
)
def test_rows_are_the_same_registration_by_mentor_type_and_date(column: str, value: str | None) -> None:
    titles, first = HEADER.split(","), LINE.split(",")
    second = [value or "61" if title == column else cell for title, cell in zip(titles, first, strict=True)]
    raw = "\n".join([HEADER, ",".join(first), ",".join(second)]).encode()
    if value is not None:
        assert len(values("a.csv", raw)) == 2
        return
    with pytest.raises(BadFileError, match="same activity type and date as in row 2"):
        read_registrations("a.csv", raw)


def test_the_third_of_three_equal_rows_names_the_first() -> None:
    with pytest.raises(BadFileError) as refusal:
        read_registrations("a.csv", "\n".join([HEADER, LINE, LINE, LINE]).encode())
    assert [(mistake.row, "row 2" in mistake.detail) for mistake in refusal.value.mistakes] == [(3, True), (4, True)]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (FileMistake("f", "is bad"), "f: is bad"),
        (FileMistake("f", "is bad", row=2, line=2), "f, row 2: is bad"),
        (FileMistake("f", "is bad", row=2, line=3), "f, row 2, line 3: is bad"),
        (FileMistake("f", "is bad", line=3, pointer="/items/0"), "f, line 3, /items/0: is bad"),
        (FileMistake("f", "is bad", row=2, column="c", value=""), 'f, row 2, column c: "" is bad'),
    ],
)
def test_a_mistake_names_its_place(problem: FileMistake, said: str) -> None:
    assert str(problem) == said


# --- Corrections --------------------------------------------------------------------------------------------------------------

ITEM_ID = str(uuid4())


def corrected(values: Mapping[str, str], name: str = "c.csv", **item: Any) -> Corrections:
    raw = f"item_id;{';'.join(values)}\n{ITEM_ID};{';'.join(values.values())}\n"
    return read_corrections(name, raw.encode()).against([item_of(ITEM_ID, **item)])


@pytest.mark.parametrize(
    "word", ["yes", "true", "ja", "1", "x", "sann", "wahr", "vrai", "no", "false", "nei", "0", "usann", "falsch", "faux"]
)
@pytest.mark.parametrize("change", [str, str.upper, str.title])
def test_a_flag_is_a_word_in_several_languages(word: str, change: Any) -> None:
    is_yes = word in {"yes", "true", "ja", "1", "x", "sann", "wahr", "vrai"}
    [correction] = corrected({"override_duplicates": change(word)}).corrections
    assert correction == {"item_id": ITEM_ID, "override_duplicates": is_yes}


def test_a_blank_flag_corrects_nothing() -> None:
    assert corrected({"override_duplicates": ""}).corrections == [{"item_id": ITEM_ID}]


@pytest.mark.parametrize(
    ("column", "written", "corrects"),
    [
        ("mentor_id", "m-2", "m-2"),
        ("activity_type", "y", "y"),
        ("activity_date", "26.03.2026", "2026-03-26"),
        ("duration_minutes", "1:01", 61),
        ("notes", " new ", " new "),
        ("mentor_id", "m-1", None),
        ("activity_type", " x ", None),
        ("activity_date", "25.03.2026", None),
        ("duration_minutes", "1:00", None),
        ("notes", "n", None),
        ("notes", "", None),
    ],
)
def test_each_column_corrects_its_own_field(column: str, written: str, corrects: object) -> None:
    found = corrected({column: written}, notes="n")
    assert found.corrections == [{"item_id": ITEM_ID} | ({} if corrects is None else {column: corrects})]
    is_name = column in ("mentor_id", "activity_type") and corrects is not None
    assert (len(found.changes), found.moves_to_another_mentor) == (is_name, is_name and column == "mentor_id")


def test_notes_for_an_item_without_notes_are_a_correction() -> None:
    assert corrected({"notes": "new"}, notes=None).corrections == [{"item_id": ITEM_ID, "notes": "new"}]


@pytest.mark.parametrize(("name", "content", "has"), [("c.csv", "n", True), ("c.csv", " ", False), ("c.json", "", False)])
def test_notes_are_fetched_only_for_a_table_that_has_notes(name: str, content: str, has: bool) -> None:
    raw = f"item_id,notes\n{ITEM_ID},{content}\n".encode() if name == "c.csv" else json.dumps([{"item_id": ITEM_ID}]).encode()
    assert read_corrections(name, raw).has_notes == has


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        ("1", "exported at attempt 1"),
        ("2", None),
        ("3", None),
        ("", None),
        ("?", "is not a whole number"),
        ("1" * 10, None),
        ("1" * 61, "is not a whole number"),
    ],
)
def test_an_export_is_too_old_from_one_attempt_before(attempt: str, refusal: str | None) -> None:
    def read() -> Corrections:
        return corrected({"attempt": attempt, "mentor_id": "m-2"}, attempt=2)

    if refusal is not None:
        with pytest.raises(BadFileError, match=refusal):
            read()
    else:
        assert read().corrections == [{"item_id": ITEM_ID, "mentor_id": "m-2"}]


def test_bad_cells_are_named_with_their_values_except_notes() -> None:
    with pytest.raises(BadFileError) as refusal:
        corrected({"mentor_id": "m" * 101, "activity_date": "soon", "duration_minutes": "long", "notes": "n" * 10_001})
    assert [(mistake.row, mistake.column, mistake.value) for mistake in refusal.value.mistakes] == [
        (2, "mentor_id", "m" * 101),
        (2, "activity_date", "soon"),
        (2, "duration_minutes", "long"),
        (2, "notes", None),
    ]


def test_rows_of_successes_are_sent_only_if_they_were_edited() -> None:
    ids = [str(uuid4()) for _ in range(4)]
    items = [
        item_of(each, status=status) for each, status in zip(ids, ("failed", "success", "success", "cancelled"), strict=True)
    ]
    mentors = ("m-1", "m-1", "m-9", "m-1")
    raw = "\n".join(["item_id,mentor_id", *(f"{each},{mentor}" for each, mentor in zip(ids, mentors, strict=True))])
    found = read_corrections("c.csv", raw.encode()).against(items)
    assert found.corrections == [{"item_id": ids[0]}, {"item_id": ids[2], "mentor_id": "m-9"}, {"item_id": ids[3]}]
    assert [remark.startswith("c.csv: skipped 1 unchanged rows of items that have succeeded") for remark in found.remarks] == [
        True
    ]


@pytest.mark.parametrize(("count", "named"), [(10, 10), (11, 10)])
def test_ten_of_the_values_that_were_kept_are_named(count: int, named: int) -> None:
    ids = [str(uuid4()) for _ in range(count)]
    raw = "\n".join(["item_id,mentor_id", *(f"{each},482" for each in ids)])
    [remark] = read_corrections("c.csv", raw.encode()).against([item_of(each, mentor_id="00482") for each in ids]).remarks
    assert remark.count("482 for 00482") == named
    assert remark.endswith("…") == (count > named)


@pytest.mark.parametrize(("order", "form"), [("dmy", "{d}/{m}/2026"), ("mdy", "{m}/{d}/2026"), ("ymd", "2026/{m}/{d}")])
def test_the_order_of_slashes_is_that_of_most_rows(order: str, form: str) -> None:
    """Neither an edited row nor a row that fits another order as well changes that."""
    days = [(5, 6), (7, 8), (9, 9), (3, 4)]
    ids = [str(uuid4()) for _ in days]
    items = [item_of(each, activity_date=f"2026-{m:02}-{d:02}") for each, (d, m) in zip(ids, days, strict=True)]
    rows = [f"{each},{form.format(d=d, m=m)}" for each, (d, m) in zip(ids, days, strict=True)]
    rows[3] = f"{ids[3]},26.12.2026"
    found = read_corrections("c.csv", "\n".join(["item_id,date", *rows]).encode()).against(items).corrections
    assert found == [{"item_id": each} for each in ids[:3]] + [{"item_id": ids[3], "activity_date": "2026-12-26"}], order


def test_a_document_names_the_mentors_and_types_that_it_changes() -> None:
    other, stranger = str(uuid4()), str(uuid4())
    document = [
        {"item_id": ITEM_ID.upper(), "mentor_id": "m-1", "activity_type": "y"},
        {"item_id": other, "mentor_id": "a\N{COMBINING RING ABOVE}", "duration_minutes": 5},
        {"item_id": stranger, "mentor_id": "m-7"},
    ]
    items = [item_of(ITEM_ID), item_of(other, mentor_id="å")]
    found = read_corrections("c.json", json.dumps(document).encode()).against(items)
    assert list(map(str, found.changes)) == ["/0: activity_type x → y"]
    assert not found.moves_to_another_mentor
    assert found.corrections == document


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_mistake_in_a_document_is_named_by_its_place_there(wrapped: bool) -> None:
    corrections = [{"item_id": ITEM_ID}, {"item_id": "x", "duration_minutes": "5"}]
    document = {"corrections": corrections} if wrapped else corrections
    with pytest.raises(BadFileError) as refusal:
        read_corrections("c.json", json.dumps(document).encode())
    place = "/corrections" if wrapped else ""
    assert [mistake.pointer for mistake in refusal.value.mistakes] == [f"{place}/1/item_id", f"{place}/1/duration_minutes"]


def test_the_number_of_listed_mistakes_in_json_is_limited_and_the_rest_is_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    """One document of a few megabytes can have half a million."""
    monkeypatch.setattr(submissions, "MOST_FILE_MISTAKES", 7)
    document = {
        "organization_id": "o",
        "coordinator_id": "c",
        "items": [ITEM | {"mentor_id": f"m-{n}", "a": 1} for n in range(3)],
    }
    two = mistakes("a.ndjson", ndjson(document, document))
    assert len(two) == 6
    assert not any("more mistakes" in each for each in two)
    assert mistakes("a.ndjson", ndjson(document, document, document, document)) == [
        *two,
        "a.ndjson, line 3, /items/0/a: is not a field of this request",
        "a.ndjson, line 3: has more mistakes than these; only the first 1 are listed",
    ]
