"""Text that a program has divided, encoded or filled in wrongly is a mistake, and never other values than the sender's."""

from datetime import date

import pytest

from orchestrator.directory import files as directory
from orchestrator.files.corrections import read_corrections
from orchestrator.files.division import holds_rows
from orchestrator.files.mistakes import BadFileError
from orchestrator.files.readings import read_file
from orchestrator.files.registrations import read_registrations
from orchestrator.files.tables import no_rows, read_table

HEADER = "mentor_id,activity_type,activity_date,duration_minutes,notes"
ITEM = "01a22476-0998-70a1-8335-d1d1c6100000"


def mistakes(text: str) -> list[str]:
    with pytest.raises(BadFileError) as refusal:
        read_registrations("a.csv", text.encode())
    return [str(mistake) for mistake in refusal.value.mistakes]


# --- Decimal commas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["1,5 t", "2,25 h", "0,5t", "1, 5 timer", "01,5 hours", "9,0 T", "1,5 t."])
@pytest.mark.parametrize("last", ["notes", "reference"])
def test_hours_that_were_split_at_their_comma_are_a_mistake(written: str, last: str) -> None:
    text = f"mentor_id,activity_type,activity_date,duration_minutes,{last}\nola,visit,2026-01-01,{written}\n"
    whole = written.partition(",")[0]
    assert mistakes(text) == [
        f'a.csv, row 2, column duration_minutes: "{whole}" was split at its decimal comma; put it in quotes;'
        f" if these are minutes, write {int(whole)} min"
    ]


@pytest.mark.parametrize(
    ("line", "minutes", "notes"),
    [
        ('"1,5 t",', 90, None),
        ("60,5 t", 60, "5 t"),
        ("25,5 t", 25, "5 t"),
        ("10,5 turer", 10, "5 turer"),
        ("10,5", 10, "5"),
        ("1 t,5 t", 60, "5 t"),
        ("10,5 t ute", 10, "5 t ute"),
    ],
)
def test_a_duration_beside_other_notes_is_no_split_number(line: str, minutes: int, notes: str | None) -> None:
    [record] = read_registrations("a.csv", f"{HEADER}\nola,visit,2026-01-01,{line}\n".encode()).rows
    assert (record.values["duration_minutes"], record.values["notes"]) == (minutes, notes)


@pytest.mark.parametrize("last", ["notes", "reisetid"])
@pytest.mark.parametrize(
    ("duration", "beside", "minutes"), [("15", "1 t", 15), ("20", '"2 t"', 20), ("24", "5 t", 24), ("5 min", "2 t", 5)]
)
def test_minutes_beside_hours_are_read_with_a_remark(last: str, duration: str, beside: str, minutes: int) -> None:
    text = f"mentor_id,activity_type,activity_date,duration_minutes,{last}\nm1,visit,2026-03-25,{duration},{beside}\n"
    table = read_registrations("a.csv", text.encode())
    assert table.rows[0].values["duration_minutes"] == minutes
    remark = "a.csv: a duration before hours was read as minutes; if a decimal comma has split it, put it in quotes: row 2"
    assert [each for each in table.remarks if "not read" not in each] == ([] if "min" in duration else [remark])


@pytest.mark.parametrize("fraction", ["5 timar", "5 timer", "5 time", "5 tim."])
def test_hours_in_any_word_that_were_split_are_a_mistake(fraction: str) -> None:
    [found] = mistakes(f"{HEADER}\nola,visit,2026-03-25,1,{fraction}\n")
    assert "was split at its decimal comma" in found


@pytest.mark.parametrize("written", ["1 t, 30 min", "2 timer,15 minutter", "1t,5m", "1 hour, 30 min."])
def test_hours_and_minutes_that_were_split_at_their_comma_are_a_mistake(written: str) -> None:
    whole = written.partition(",")[0]
    assert mistakes(f"{HEADER}\nola,visit,2026-03-25,{written}\n") == [
        f'a.csv, row 2, column duration_minutes: "{whole}" was split at its comma; put it in quotes, or write it in minutes'
    ]


@pytest.mark.parametrize("notes", ["30 min reise", "75 min", "30", ""])
def test_hours_beside_other_notes_are_read(notes: str) -> None:
    text = f"{HEADER}\nola,visit,2026-03-25,1 t,{notes}\n"
    assert read_registrations("a.csv", text.encode()).rows[0].values["duration_minutes"] == 60


def test_only_commas_split_at_a_decimal_comma() -> None:
    text = f"{HEADER}\nola,visit,2026-01-01,1,5 t\n".replace(",", ";")
    assert read_registrations("a.csv", text.encode()).rows[0].values["notes"] == "5 t"


def test_split_hours_are_a_mistake_in_corrections_and_in_a_directory() -> None:
    text = f"item_id,duration_minutes,notes\n{ITEM},1,5 t\n"
    with pytest.raises(BadFileError, match="split at its decimal comma"):
        read_corrections("a.csv", text.encode())
    text = "organization_id,activity_type,name,default_minutes,minimum_minutes\na,visit,Besøk,1,5 t\n"
    with pytest.raises(BadFileError, match=r"column default_minutes.*split at its decimal comma"):
        read_table("activity_types.csv", text.encode(), directory.FILES["activity_types.csv"], no_rows)


# --- Missing quotes -----------------------------------------------------------------------------------------------------------

DAY = "2026-01-01,60"
SWALLOWED = {
    "notes last": f'{HEADER}\na,x,{DAY},"Fin tur\nb,x,{DAY},\nc,x,{DAY},Bra"\nd,x,{DAY},\n',
    "one row": f'{HEADER}\na,x,{DAY},"Fin tur\nb,x,{DAY},Bra"\n',
    "commas in the notes": f'{HEADER}\na,x,{DAY},"Fin, lang tur\nb,x,{DAY},Bra, kort"\n',
    "other line ends": f'{HEADER}\r\na,x,{DAY},"Fin tur\r\nb,x,{DAY},Bra"\r\n',
    "one good row of two": f'{HEADER}\na,x,{DAY},"Fin tur\nb,x,soon,60,\nc,x,{DAY},\n"\n',
    "reference": f'{HEADER},reference\na,x,{DAY},"Fin tur,r1\nb,x,{DAY},Bra",r2\n',
    "reference that is absent": f'{HEADER},reference\na,x,{DAY},"Fin tur\nb,x,{DAY},Bra"\n',
    "notes first": f'notes,mentor,type,date,minutes\n"Fin tur,a,x,{DAY}\n,b,x,{DAY}\nBra",c,x,{DAY}\n',
    "notes first, two rows": f'notes,mentor,type,date,minutes\n"Fin tur,a,x,{DAY}\nBra",c,x,{DAY}\n',
    "notes between": f'mentor,type,notes,date,minutes\na,x,"Fin,{DAY}\nb,x,Bra",{DAY}\n',
    "a column that is not read": f'mentor,type,date,minutes,navn\na,x,{DAY},"Kari\nb,x,{DAY},Ola"\n',
    "the header": f'mentor,type,date,minutes,"navn\na,x,{DAY},Kari"\nb,x,{DAY},Ola\n',
}


@pytest.mark.parametrize("text", SWALLOWED.values(), ids=SWALLOWED)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_within_a_cell_are_a_mistake(text: str, delimiter: str) -> None:
    [found] = mistakes(text.replace(",", delimiter))
    assert found.startswith("a.csv, row 1" if 'minutes,"navn' in text else "a.csv, row 2")
    assert found.endswith(": contains what looks like whole rows; look for a missing quote")


@pytest.mark.parametrize(
    "notes",
    [
        "Kafe, kino, tur, 2 t\nog, så, hjem, 60",
        "Fin tur\n\nBra",
        "a,b\nc,x,soon,60,",
        "2026-01-01, 60\nKari, tur, 2026-01-01",
        ",,,,\n,,,,\n",
    ],
)
@pytest.mark.parametrize("header", [HEADER, "notes,mentor_id,activity_type,activity_date,duration_minutes"])
def test_lines_of_notes_are_no_rows(notes: str, header: str) -> None:
    cell = f'"{notes}"'
    line = f"m,x,{DAY},{cell}" if header == HEADER else f"{cell},m,x,{DAY}"
    [record] = read_registrations("a.csv", f"{header}\n{line}\n".encode()).rows
    assert record.values["notes"] == notes.strip()
    assert record.values["activity_date"] == date(2026, 1, 1)


def test_rows_within_a_cell_are_found_in_every_kind_of_table() -> None:
    text = f'position,item_id,reference,notes\n0,{ITEM},r,"Fin\n1,{ITEM[:-1]}1,r,Bra"\n'
    with pytest.raises(BadFileError, match="looks like whole rows"):
        read_corrections("a.csv", text.encode())
    text = 'organization_id,chapter_id,name\na,n,"Nord\na,s,Sør"\n'
    with pytest.raises(BadFileError, match="looks like whole rows"):
        read_table("chapters.csv", text.encode(), directory.FILES["chapters.csv"], no_rows)
    read = read_file(".csv", b'navn,dato\n"Kari,2026-01-01\nOla",2026-01-01\n', max_items=10)
    assert [mistake["code"] for mistake in read["mistakes"]] == ["unreadable"]
    assert read_file(".csv", b'navn,notat\nKari,"Fin tur\nhei, hopp"\n', max_items=10)["mistakes"] == []


TYPES = "organization_id,activity_type,name,default_minutes,minimum_minutes,beskrivelse"
PEOPLE = "organization_id,mentor_id,name,chapter_id,active_from,active_until"
UNPROVEN = {
    "an address": 'navn,bosted\nKari Foss,"Storgata 1\n0155 Oslo, Norge"\n',
    "comments": 'navn;Kommentarer\nKari;"Ringte først\nVi møttes; gikk tur\nAlt bra"\n',
    "comments beside dates": 'navn;dato;Kommentarer\nKari;2026-01-01;"Ringte først\nVi møttes\nAlt bra"\n',
    "a full line beside dates": 'navn;dato;Kommentarer\nKari;2026-01-01;"Ringte\nVi møttes; ; gikk tur\nAlt bra"\n',
    "a date in a comment": 'navn,dato,Kommentarer\nKari,2026-01-01,"Ringte\nOla, 01.02.2026\nAlt bra"\n',
    "an address beside minutes": 'navn,minutter,bosted\nKari,60,"Storgata 1\nBlokk C, 2\n0155 Oslo"\n',
    "an address between": 'navn,bosted,minutter\nKari,"Storgata 1\n0155, Oslo",60\n',
}
DESCRIBED = f'{TYPES}\na,visit,Besøk,60,15,"Vi går ut:\nTur, kafe, prat\nog mer"\n'


@pytest.mark.parametrize("text", UNPROVEN.values(), ids=UNPROVEN)
def test_several_lines_in_a_column_that_is_not_read_are_no_rows(text: str) -> None:
    read = read_file(".csv", text.encode(), max_items=10)
    assert read["mistakes"] == []
    assert len(read["items"]) == 1


def test_several_lines_of_a_description_in_a_directory_are_no_rows() -> None:
    [row] = read_table("activity_types.csv", DESCRIBED.encode(), directory.FILES["activity_types.csv"], no_rows).rows
    assert row.values["default_minutes"] == 60


@pytest.mark.parametrize("rows", [1, 11])
def test_lines_that_may_be_rows_are_mentioned(rows: int) -> None:
    remark = "a.csv: a cell of several lines was read as one text; if rows are missing, look for a missing quote: row 2"
    text = "organization_id,chapter_id,name,bosted\n" + 'a,n,Nord,"Storgata 1\n0155 Oslo, oppgang B, Norge, Europa"\n' * rows
    table = read_table("a.csv", text.encode(), directory.FILES["chapters.csv"], no_rows)
    assert len(table.rows) == rows
    assert table.remarks[-1] == remark + (", 3, 4, 5, 6, 7, 8, 9, 10, 11, …" if rows == 11 else "")
    plain = 'organization_id,chapter_id,name,bosted\na,n,Nord,"Storgata 1\n0155 Oslo"\n'
    assert read_table("a.csv", plain.encode(), directory.FILES["chapters.csv"], no_rows).remarks == ["a.csv: not read: bosted"]


def test_lines_without_a_number_and_with_few_cells_are_not_mentioned() -> None:
    """Such lines fit a table whose numbers may be missing, as texts do."""
    text = f'{TYPES}\na,visit,Besøk,60,15,"Vi\ngår,ut,nå\nog mer"\n'
    table = read_table("a.csv", text.encode(), directory.FILES["activity_types.csv"], no_rows)
    assert table.remarks == ["a.csv: not read: beskrivelse"]


def test_rows_within_a_cell_are_found_after_a_cell_that_only_may_hold_some() -> None:
    doubtful, proven = '"Ringte\nOla, 01.02.2026\nAlt bra"', '"Storgata\nOla,2026-01-01,a,b\nOslo"'
    text = f"navn,dato,Kommentarer,bosted\nKari,2026-01-01,{doubtful},{proven}\n"
    [mistake] = read_file(".csv", text.encode(), max_items=10)["mistakes"]
    assert (mistake["column"], mistake["detail"][:36]) == ("bosted", "contains what looks like whole rows;")


@pytest.mark.parametrize(
    "text",
    [
        f'{PEOPLE}\na,m1,"Kari,n,,\na,m2,Ola",n,,\n',
        f'{PEOPLE},bosted\na,m1,Kari,n,2026-01-01,,"Storgata\na,m2,Ola,n,2026-01-01,,Oslo"\n',
    ],
)
def test_rows_within_a_cell_of_a_directory_are_a_mistake(text: str) -> None:
    with pytest.raises(BadFileError, match="looks like whole rows"):
        read_table("mentors.csv", text.encode(), directory.FILES["mentors.csv"], no_rows)


def test_only_the_first_lines_of_a_cell_are_tried_as_rows() -> None:
    tried: list[object] = []
    text = "\n".join(["a,b"] * 1_000)

    def is_row(cells: object) -> bool:
        tried.append(cells)
        return False

    assert not holds_rows(["x", text], 1, 2, ",", is_row)
    assert len(tried) <= 102


# --- Two encodings ------------------------------------------------------------------------------------------------------------

FIRST = f"{HEADER}\nkåre,x,{DAY},\n".encode()


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (FIRST + f"b,x,{DAY},blå\n".encode("windows-1252"), 3),
        (FIRST + f"c,x,{DAY},\nb,x,{DAY},".encode() + b"bl\xc3", 4),
        (f"{HEADER}\nb\xe5,x,{DAY},\n".encode("windows-1252") + FIRST, 2),
        (f"{HEADER}\nkåre,x,{DAY},bl".encode() + b"\xc3", 2),
        (f"{HEADER}\nčáhci,x,{DAY},bl".encode() + b"\xe5\n", 2),
        (f"{HEADER}\nřeka,x,{DAY},bl".encode() + b"\xe5\n", 2),
        (f"{HEADER}\nžena,x,{DAY},bl".encode() + b"\xe5\n", 2),
        (f"{HEADER}\nb,x,{DAY},20\xa0kr\n".encode() + b"bl\xe5\n", 3),
        (f"{HEADER}\nb,x,{DAY},\N{RIGHT SINGLE QUOTATION MARK}\n".encode() + b"bl\xe5\n", 3),
    ],
)
def test_text_in_two_encodings_is_refused_with_the_line_of_the_second(raw: bytes, line: int) -> None:
    with pytest.raises(BadFileError) as refusal:
        read_registrations("a.csv", raw)
    assert str(refusal.value).startswith(f"a.csv, line {line}: mixes UTF-8 and Windows-1252 text")


# A space that does not break, or a symbol, after a letter: a letter of UTF-8 has the same bytes.
HARD_TO_TELL = ["også\xa0€ 50", "på\xa0½ time", "så\xa0§ 3", "på\xa0°", "2\xd7½ time", "BOŽÍŠ", "BLÅ™", "BLÅŽ"]


@pytest.mark.parametrize(
    "notes", ["BLÅ»", "«BLÅ»", "“FRA A TIL Å”", "så”…", "æøå ÆØÅ é", "Ø—", "„BLÜ“", "20 °, 5 §", *HARD_TO_TELL]
)
def test_marks_after_letters_of_windows_1252_are_no_utf_8(notes: str) -> None:
    raw = f'{HEADER}\nkåre,x,{DAY},"{notes}"\n'.encode("windows-1252")
    [record] = read_registrations("a.csv", raw).rows
    assert (record.values["mentor_id"], record.values["notes"]) == ("kåre", notes)


def test_an_id_or_a_name_with_a_letter_that_a_program_lost_is_a_mistake() -> None:
    [found] = mistakes(f"{HEADER}\nk\N{REPLACEMENT CHARACTER}re,x,{DAY},bl\N{REPLACEMENT CHARACTER}\n")
    assert "column mentor_id" in found
    assert "a program could not read a letter there" in found
    text = "organization_id,chapter_id,name\na,n,Nordm\N{REPLACEMENT CHARACTER}re\n"
    with pytest.raises(BadFileError, match=r"column name.*write the letter again"):
        read_table("chapters.csv", text.encode(), directory.FILES["chapters.csv"], no_rows)


# --- Formulas, errors and titles in place of values ---------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ['="00482"', '= "00482"', '=+"00482"', '=T("00482")', ' = t( "00482" ) '])
def test_a_formula_that_only_holds_a_text_is_that_text(cell: str) -> None:
    quoted = '"' + cell.replace('"', '""') + '"'
    [record] = read_registrations("a.csv", f"{HEADER}\n{quoted},x,{DAY},\n".encode()).rows
    assert record.values["mentor_id"] == "00482"


def test_an_empty_text_in_a_formula_is_a_blank_cell() -> None:
    assert mistakes(f'{HEADER}\n"=""""",x,{DAY},\n') == ['a.csv, row 2, column mentor_id: "" is empty']


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("=00482", "is a formula in a text; write the id itself"),
        ("=A1", "is a formula in a text; write the id itself"),
        *((error, "is the error of a formula") for error in ("#N/A", "#REF!", "#NAME?", "#NAVN?", "#I/T", "#VERDI!", "Err:502")),
        ("########", "is what a spreadsheet program shows if a column is too narrow; widen the column and save the file again"),
    ],
)
def test_what_stands_in_place_of_an_id_is_a_mistake(cell: str, reason: str) -> None:
    assert mistakes(f"{HEADER}\n{cell},x,{DAY},\n") == [f'a.csv, row 2, column mentor_id: "{cell}" {reason}']


@pytest.mark.parametrize("error", ["#N/A", "#NAVN?"])
def test_an_error_in_place_of_notes_is_a_mistake(error: str) -> None:
    [found] = mistakes(f"{HEADER}\nm,x,{DAY},{error}\n")
    assert found.startswith("a.csv, row 2, column notes: is ")
    corrections = read_corrections("a.csv", f"item_id,notes\n{ITEM},{error}\n".encode())
    item = {"item_id": ITEM, "status": "failed", "attempt": 1, "notes": "n"}
    item |= {"mentor_id": "m", "activity_type": "x", "activity_date": "2026-01-01", "duration_minutes": 60}
    with pytest.raises(BadFileError, match="row 2, column notes: is "):
        corrections.against([item])


@pytest.mark.parametrize("notes", ["###", "########"])
def test_notes_that_are_only_hashes_are_read_with_a_remark(notes: str) -> None:
    table = read_registrations("a.csv", f"{HEADER}\nm,x,{DAY},{notes}\nn,x,{DAY}, {notes} \n".encode())
    assert [row.values["notes"] for row in table.rows] == [notes, notes]
    remark = "a.csv: the notes are only #; if the column was too narrow, widen it and save the file again: row 2, 3"
    assert table.remarks == [remark]
    corrections = read_corrections("a.csv", f"item_id,notes\n{ITEM},{notes}\n".encode())
    item = {"item_id": ITEM, "status": "failed", "attempt": 1, "notes": "n"}
    item |= {"mentor_id": "m", "activity_type": "x", "activity_date": "2026-01-01", "duration_minutes": 60}
    assert corrections.against([item]).corrections == [{"item_id": ITEM, "notes": notes}]
    assert corrections.remarks == [remark.removesuffix(", 3")]


@pytest.mark.parametrize("notes", ["#1", "##", "#tur", "#N/A i dag", "= bra", "Err"])
def test_notes_may_begin_like_an_error_or_a_formula(notes: str) -> None:
    [record] = read_registrations("a.csv", f"{HEADER}\nm,x,{DAY},{notes}\n".encode()).rows
    assert record.values["notes"] == notes


@pytest.mark.parametrize("line", ["organization_id,chapter_id,name", "Organization ID, chapter-id ,NAME"])
def test_a_header_that_is_repeated_is_a_mistake(line: str) -> None:
    text = f"organization_id,chapter_id,name\na,n,Nord\n{line}\nb,s,Name\n"
    with pytest.raises(BadFileError) as refusal:
        read_table("chapters.csv", text.encode(), directory.FILES["chapters.csv"], no_rows)
    assert str(refusal.value) == "chapters.csv, row 3: repeats the header; remove this row"


def test_values_in_a_column_without_a_title_are_mentioned() -> None:
    text = "mentor_id,,activity_type,activity_date,duration_minutes, \nm,,x,2026-01-01,60,more\nn,,x,2026-01-01,60,more\n"
    assert read_registrations("a.csv", text.encode()).remarks == ["a.csv: column F has no title and is not read"]
    wide = f"mentor_id,activity_type,activity_date,duration_minutes{',' * 23}\nm,x,{DAY}{',' * 22}Z,AA\n"
    assert read_registrations("a.csv", wide.encode()).remarks == ["a.csv: columns Z, AA have no title and are not read"]
    many = f"mentor_id,activity_type,activity_date,duration_minutes{',' * 11}\nm,x,{DAY}{',v' * 11}\n"
    assert read_registrations("a.csv", many.encode()).remarks == [
        "a.csv: columns E, F, G, H, I, J, K, L, M, N, … have no title and are not read"
    ]


# --- Titles of a list for the console -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", ["Navn", "Likeperson"])
@pytest.mark.parametrize("above", ["Likepersoner\n", "Likepersoner\nApril;\n"])
def test_a_list_for_the_console_may_have_a_title_above_one_known_column(above: str, title: str) -> None:
    read = read_file(".csv", f"{above}{title};Telefon\nKari Foss;99\n".encode(), max_items=10)
    assert [mistake["code"] for mistake in read["mistakes"] if mistake["code"] != "not_an_id"] == []
    assert len(read["items"]) == 1
    assert read["ignored_columns"] == ["Telefon"]


@pytest.mark.parametrize("text", ["Liste\nDato;Telefon\n2026-01-01;99\n", "Person;Rolle\nKari;likeperson\nOla;leder\n"])
def test_one_known_word_below_other_titles_is_no_header(text: str) -> None:
    read = read_file(".csv", text.encode(), max_items=10)
    assert [mistake["code"] for mistake in read["mistakes"]] == ["missing_column"]
