"""A value that only a spreadsheet program has changed is no correction. Any other change is one."""

import csv
import io
from datetime import date, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import forms, number_formats
from orchestrator.files.cells import Cell, FormulaError, Number, ShownText
from orchestrator.files.corrections import read_corrections
from orchestrator.files.formulas import text_of_formula
from orchestrator.files.mistakes import BadFileError
from tests.support.read_submissions import item_of
from tests.support.workbooks import moment
from tests.unit.test_files_saved_again import FIRST, corrected


@pytest.mark.parametrize(
    ("exported", "cells"),
    [
        ("00482", ["482", Number(482), Number(482, "0.00"), "482,0", "'00482"]),
        ("kåre-07", ["kÃ¥re-07", "kÃƒÂ¥re-07", "k?re-07", "k\N{REPLACEMENT CHARACTER}re-07", "k√•re-07", "k├Ñre-07", "k_re-07"]),
        ("kåre-07", ["ka\N{COMBINING RING ABOVE}re-07", "kåre-07\N{ZERO WIDTH SPACE}", " kåre-07\N{NO-BREAK SPACE}"]),
        ("1E5", ["100000", "1E+05", "1,00E+05", Number(100_000), "100 000", "100,000"]),
        ("1-2", [moment(2026, 2, 1), moment(2026, 1, 2), "01.02.2026", "01.feb", "1-Feb", "02.jan", "Jan-02", Number(46_054)]),
        ("2026-02-01 00:00:00", [moment(2026, 2, 1), "2026-02-01", "01.02.2026", "01.02.2026 00:00"]),
        ("MAR5", [moment(2026, 3, 5), "05.mar", "5-Mar", "mars-05"]),
        ("12-2026", [moment(2026, 12, 1), "des.26", "01.12.2026", "Dec-26"]),
        ("1.2", ["01.02.2026", "1,2", "01.feb"]),
        ("1/2/2026", [moment(2026, 2, 1), "01.02.2026", "2026-02-01"]),
        ("1:30", [time(1, 30), timedelta(hours=1, minutes=30), "01:30:00", Number(0.0625)]),
        ("1234567890123456", ["1,23E+15", "1.23457E+15", Number(1_234_567_890_123_450), "1234567890123450"]),
        ("true", [True, "TRUE", "SANN", "WAHR", "VRAI"]),
        ("false", [False, "FALSE", "USANN"]),
        ("+47", ["47", "'+47", Number(47)]),
        ("1000", ["1 000", "1\N{NO-BREAK SPACE}000", "1.000", "1,000", "1’000"]),  # noqa: RUF001
        ("50%", [Number(0.5), "0,5", "50,00%"]),
        ("two\nlines", ["two\r\nlines", "two lines", "two\nlines "]),
        ("=1+1", ["'=1+1"]),
        ("a;=1", ["a;'=1"]),
        ("010", [ShownText("10", "010")]),
    ],
)
def test_a_value_in_another_form_is_the_same(exported: str, cells: list[Cell]) -> None:
    assert [cell for cell in cells if not forms.is_same_text(cell, exported)] == []


@pytest.mark.parametrize(
    ("exported", "cells"),
    [
        # Programs remove zeros and never add them. An added zero means that a person corrected the value.
        ("482", ["00482", "483", "4 83", Number(482.5), text_of_formula('="00482"')]),
        ("2026-02-01 00:00:00", [moment(2026, 2, 2), "2026-02-02 00:00:00", "2026-02-01 09:00:00"]),
        ("00482", ["00483", "4820", Number(483)]),
        ("m-001", ["m-010", "m-1", "M-001", "m-001x"]),
        ("kåre-07", ["kare-07", "kåre-08", "k??????re-07", "kÃ¥re-08"]),
        ("1-2", ["2-1", "1-3", "03.02.2026", moment(2026, 3, 1), "1--2"]),
        ("1E5", ["1E6", "100001", Number(1_000)]),
        ("1234567890123456", ["1234567890123457", "1,24E+15", "123456789012345", Number(1_234_567_890_123_400)]),
        ("1:30", ["1:31", time(13, 30)]),
        ("true", [False, "yes", "1"]),
        ("1", ["TRUE", True]),
        ("x", [FormulaError("#N/A")]),
        ("#N/A", [FormulaError("#N/A")]),
    ],
)
def test_an_edited_value_is_another_one(exported: str, cells: list[Cell]) -> None:
    assert [cell for cell in cells if forms.is_same_text(cell, exported)] == []


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), st.text(max_size=12))
def test_comparing_never_fails(exported: str, cell: str) -> None:
    assert forms.is_same_text(exported, exported) or not exported.strip()
    forms.is_same_text(cell, exported)
    forms.is_same_date(cell, date(2026, 2, 3), "dmy")
    forms.is_same_duration(cell, 60)


def test_dates_in_the_forms_of_several_languages() -> None:
    day = date(2027, 2, 10)
    same: list[Cell] = [
        "10.02.2027",
        "10.2.2027",
        "2027-02-10 00:00:00",
        "10.02.27",
        "10-Feb-27",
        "10. februar 2027",
        "2027/02/10",
    ]
    same += [Number(46_428), moment(2027, 2, 10), moment(2027, 2, 10, 12), day]
    assert [cell for cell in same if not forms.is_same_date(cell, day, "ymd")] == []
    other: list[Cell] = ["11.02.2027", "02.10.2027", "10.02.2026", moment(2027, 10, 2), "10", "soon", Number(25)]
    assert [cell for cell in other if forms.is_same_date(cell, day, "ymd")] == []


def test_durations_in_other_forms() -> None:
    same: list[Cell] = ["60", "60,0", "60.00", "1:00", "01:00:00", time(1), timedelta(hours=1), Number(60), "60 min"]
    assert [cell for cell in same if not forms.is_same_duration(cell, 60)] == []
    other: list[Cell] = ["61", "6,0", "600", "1:01", "1 t", Number(60.5), Number(60, '0" t"')]
    assert [cell for cell in other if forms.is_same_duration(cell, 60)] == []
    assert all(forms.is_same_duration(cell, 1_440) for cell in ("1 440", "1,440", "1.440", "24:00"))


# --- Languages, limits and neighbours -----------------------------------------------------------------------------------------

MONTHS = (
    ("January", "januar", "jan"),
    ("February", "Februar", "feb"),
    ("March", "mars", "mar", "März", "mär"),
    ("April", "apr"),
    ("May", "mai"),
    ("June", "juni", "jun"),
    ("July", "juli", "jul"),
    ("August", "aug"),
    ("September", "sept", "sep"),
    ("October", "oktober", "oct", "okt"),
    ("November", "nov"),
    ("December", "desember", "Dezember", "dec", "des", "dez"),
)


@pytest.mark.parametrize(("month", "name"), [(number, name) for number, names in enumerate(MONTHS, start=1) for name in names])
def test_months_have_names_in_three_languages(month: int, name: str) -> None:
    day = date(2027, month, 10)
    for written in (f"10. {name} 2027", f"{name} 10, 2027", f"10-{name}-27", f"10 {name.upper()} 2027"):
        assert forms.is_same_date(written, day, "dmy"), written
        assert not forms.is_same_date(written, date(2027, month % 12 + 1, 10), "dmy")
    assert forms.is_same_text(f"10.{name}", f"10-{month}")
    assert forms.is_same_text(f"{name}.27", f"{month}-2027")


TRUE = ["true", "sann", "wahr", "vrai", "verdadero", "vero", "waar", "sant", "tosi", "prawda"]
FALSE = ["false", "usann", "falsch", "faux", "falso", "onwaar", "falskt", "falsk", "epätosi", "fałsz"]


@pytest.mark.parametrize("words", [TRUE, FALSE], ids=["true", "false"])
def test_true_and_false_are_the_same_in_every_language(words: list[str]) -> None:
    others = FALSE if words is TRUE else TRUE
    for word in words:
        for exported in words:
            assert forms.is_same_text(word.upper(), exported)
        assert forms.is_same_text(words is TRUE, word)
        assert not forms.is_same_text(words is not TRUE, word)
        assert not any(forms.is_same_text(other, word) for other in others)


@pytest.mark.parametrize("encoding", ["windows-1252", "latin-1", "mac-roman", "cp850", "cp437", "cp865"])
def test_letters_in_a_wrong_encoding_are_the_same(encoding: str) -> None:
    exported = "kåre-ø7"
    read = exported.encode().decode(encoding, "replace")
    assert "\N{REPLACEMENT CHARACTER}" not in read
    assert forms.is_same_text(read, exported)
    # Twice, like a file that was opened and saved again.
    assert forms.is_same_text(read.encode().decode(encoding, "replace"), exported) or encoding == "windows-1252"
    assert forms.is_same_text(exported.encode(encoding, "replace").decode("utf-8", "replace"), exported)
    for other in {"windows-1252", "mac-roman", "cp850"} - {encoding}:
        assert forms.is_same_text(exported.encode(encoding, "replace").decode(other, "replace"), exported)
    assert not forms.is_same_text(read.replace("k", "l"), exported)
    assert not forms.is_same_text(read, "kåre-ø8")


@pytest.mark.parametrize("lost", ["?", "_", "\N{REPLACEMENT CHARACTER}"])
def test_a_lost_letter_has_left_one_to_four_marks(lost: str) -> None:
    assert [forms.is_same_text(f"k{lost * count}re", "kåre") for count in range(6)] == [False, True, True, True, True, False]
    assert not forms.is_same_text(f"k{lost}re", "kare")


@pytest.mark.parametrize(
    ("exported", "same", "other"),
    [
        # A program that saves Windows-1252 keeps the letters that it has.
        ("på \N{BICYCLE}", "på ??", "på ?????"),
        ("å我ø", "å?ø", "ø?å"),
        ("å我ø", "??ø", "åø"),
        ("ø?", "??", "ø??"),
        ("ø_1", "?_1", "ø_2"),
        ("\N{REPLACEMENT CHARACTER}1", "\N{REPLACEMENT CHARACTER}1", "å1"),
        ("? kåre", "? k?re", "_ k?re"),
    ],
)
def test_letters_that_an_encoding_has_are_kept_and_others_lost(exported: str, same: str, other: str) -> None:
    assert forms.is_same_text(same, exported)
    assert not forms.is_same_text(other, exported)


@given(st.lists(st.sampled_from(["k", " ", "å", "我", "?", "_", "\N{BICYCLE}"]), min_size=1, max_size=12), st.data())
def test_a_text_that_lost_letters_is_the_same_until_another_letter_differs(exported: list[str], data: st.DataObject) -> None:
    marks = st.text("?_", min_size=1, max_size=4)
    cell = "".join(each if each.isascii() or data.draw(st.booleans()) else data.draw(marks) for each in exported)
    assert forms.is_same_text(f"a{cell}b", f"a{''.join(exported)}b")
    assert not forms.is_same_text(f"a{cell}c", f"a{''.join(exported)}b")


@pytest.mark.parametrize(
    ("exported", "cell"),
    [
        ("我" * 32, "?" * 32 + " ok"),
        ("我?" * 32, "?" * 100 + " ok"),
        ("我_å " * 2_500, "?? " * 2_500 + "ok"),
        ("å" * 10_000, "?" * 40_000 + " ok"),
        ("å" * 9_000, "Ã¥" * 8_999 + "Ã¦"),
    ],
    ids=len,
)
def test_a_long_text_with_lost_letters_is_compared_in_linear_time(exported: str, cell: str) -> None:
    """With time that grows exponentially, none of these ever ends."""
    assert not forms.is_same_text(cell, exported)


@pytest.mark.parametrize("date_of", ["{}.03.2026", "2026-03-{}", "2026-{}-01", "{}.mars 2026", "1.3.{}", "{}/3/2026"])
@pytest.mark.parametrize("number", ["99999999999", "9" * 45])
def test_a_date_with_a_huge_number_is_no_date(date_of: str, number: str) -> None:
    text = date_of.format(number)
    assert not any(forms.is_same_date(text, date(2026, 3, 1), order) for order in ("dmy", "mdy", "ymd"))
    assert not forms.is_same_text(text, "1-3")
    with pytest.raises(BadFileError, match=r"row 2, column activity_date"):
        corrected("c.csv", [FIRST, "00482", "x", text, 60])


@pytest.mark.parametrize(
    ("exported", "cell", "is_named"),
    [
        ("1. mai", "1. mai 2025", True),
        ("1. mai", "01.05.2025", True),
        ("12.30", "12:30", True),
        ("på tur", "pÃ¥ tur", True),
        ("two\nlines", "two\r\nlines ", False),
        ("+47", "'+47", False),
        ("på tur", "pa\N{COMBINING RING ABOVE} tur", False),
    ],
)
def test_notes_that_were_kept_in_another_form_are_named_without_their_text(exported: str, cell: str, is_named: bool) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([["item_id", "notes", "mentor_id"], [FIRST, cell, "482"]])
    found = read_corrections("c.csv", text.getvalue().encode()).against([item_of(FIRST, notes=exported, mentor_id="00482")])
    assert found.corrections == [{"item_id": FIRST}]
    [remark] = found.remarks
    assert remark.endswith("row 2, mentor_id 482 for 00482; row 2, notes" if is_named else "row 2, mentor_id 482 for 00482")


@pytest.mark.parametrize(
    ("exported", "same", "other"),
    [
        ("x" * 61, "x" * 61, "x" * 62),
        # A longer text is no number.
        ("0" * 59 + "7", "7", "8"),
        ("1234567890123456", "1234567890123450", "1234567890123470"),
        ("1234567890123456", "1234567890123460", "1234567890123440"),
        ("123456789012345678", "123456789012346000", "123456789012347000"),
        ("1234567890123445", "1234567890123450", "1234567890123460"),
        ("-123456789012345678", "-123456789012346000", "123456789012346000"),
        ("9999999999999999", "10000000000000000", "1000000000000000"),
        ("12250", "1,23E+04", "1,24E+04"),
        ("1234567890123456", "1234567890123450", "12345678901234500"),
        ("1234567890123456", "1234567890123450", "123456789012345"),
        ("123456789012345", "123456789012345", "123456789012340"),
        ("0.5", "50%", "50"),
        ("-5", "-5,0", "5"),
        ("5", "5.", "0,5"),
        (".5", "0,5", "5"),
        ("1,234.5", "1234.5", "1.2345"),
        ("1.234,5", "1234,5", "1.2345"),
        ("1.234.567", "1,234,567", "1234.567"),
        ("1E5", "1,0E5", "1,1E5"),
        ("12345", "1,23E+04", "1,24E+04"),
        ("12345", "1,2E+04", "1,3E+04"),
        ("1:30", "1.30", "1.31"),
        ("1:30:15", "01:30:15", "01:30:16"),
        ("1:30:15", "1:30:15,0", "1:30:15,5"),
        ("1:30", "01:30:00", "01:30:01"),
        ("26:00", "26:00:00", "2:00"),
    ],
)
def test_the_next_value_is_another_one(exported: str, same: str, other: str) -> None:
    assert forms.is_same_text(same, exported)
    assert not forms.is_same_text(other, exported)


def test_a_value_that_is_longer_than_a_number_is_compared_as_text() -> None:
    assert not forms.is_same_text("7", "0" * 60 + "7")
    assert not forms.is_same_text("0" * 60 + "7", "7")
    assert not forms.is_same_duration(" " * 10 + "0" * 59 + "60", 60)
    assert forms.is_same_duration("0" * 58 + "60", 60)


def test_zero_is_not_a_rounded_number() -> None:
    assert not forms.is_same_text("0", "1234567890123456")
    assert not forms.is_same_text("0E5", "1234567890123456")
    assert not forms.is_same_text("1E5", "0")
    assert forms.is_same_text("0,0", "0")


@pytest.mark.parametrize("exported", ["123456789012345678", "1234567890123456", "123456789012345678901234", "9007199254740993"])
def test_the_number_that_a_workbook_stores_of_a_long_id_is_the_same(exported: str) -> None:
    """With all digits of a float, or with fifteen, cut off or rounded; as a number, and in the text file that is saved from it."""
    stored = float(exported)
    for value in (stored, float(f"{stored:.14e}"), float(exported[:15] + "0" * (len(exported) - 15))):
        assert forms.is_same_text(Number(value), exported), value
        assert not forms.is_same_text(Number(value * 1.001), exported)
    assert forms.is_same_text(number_formats.plain(float(f"{stored:.14e}")), exported)


def test_a_whole_number_is_written_with_the_digits_that_a_float_has() -> None:
    values = (0.0, -0.0, 482.0, -7.0, 1.2345678901234568e20, 1e23, 0.5)
    assert list(map(number_formats.plain, values)) == [
        "0", "0", "482", "-7", "123456789012345680000", "1" + "0" * 23, "0.5"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("exported", "same", "other"),
    [
        ("1-2", ["46024", "46054", "46.024", "46024,0"], ["46025", "46024,5", "4602"]),
        ("10:30", ["0,4375", "0.4375", "43,75%"], ["0,4376", "4375", "10,5"]),
        ("10:31", ["0,438194444"], ["0,43"]),
        # A program makes no date before 1930 of it, so this number is an id.
        ("31-12", ["46387"], ["1"]),
    ],
)
def test_a_date_or_time_that_lost_its_format_is_the_same_in_a_text_file(exported: str, same: list[str], other: list[str]) -> None:
    assert [cell for cell in same if not forms.is_same_text(cell, exported)] == []
    assert [cell for cell in other if forms.is_same_text(cell, exported)] == []
    assert forms.is_same_date("46428", date(2027, 2, 10), "dmy")
    assert not forms.is_same_date("46429", date(2027, 2, 10), "dmy")


@pytest.mark.parametrize(
    ("exported", "cell", "is_same"),
    [
        ("1-2", Number(46_054), True),  # 1 February 2026.
        ("1-2", Number(46_055), False),
        ("1-2", Number(46_054.5), False),
        ("1-1", Number(1), False),  # 31 December 1899.
        ("31-12", Number(1), True),
        ("31-12", Number(0), False),
        ("31-12", Number(2_958_465), True),  # 31 December 9999.
        ("1-1", Number(2_958_466), False),
        ("1-2-2026", Number(46_054), True),
        ("1-2-2025", Number(46_054), False),
        ("1-2-26", Number(46_054), True),
        ("1-2-126", Number(46_054), False),
        ("32-1", moment(2032, 1, 1), True),  # A month and a year.
        ("32-1", moment(2032, 1, 2), False),
        ("13-13", moment(2013, 1, 13), False),
        ("1-2-3-4", moment(2003, 2, 1), False),
        ("1:30", Number(0.0625), True),
        ("1:30", Number(0.0626), False),
        ("1:30", time(1, 30, 0, 400_000), True),
        ("1:30", time(1, 30, 1), False),
        ("0:00", time(0), True),
        ("1:30", timedelta(hours=1, minutes=30, seconds=1), False),
    ],
)
def test_dates_and_times_that_a_program_can_make_of_a_text(exported: str, cell: Cell, is_same: bool) -> None:
    assert forms.is_same_text(cell, exported) == is_same


@pytest.mark.parametrize(
    ("cell", "is_same"),
    [
        (moment(2027, 2, 10), True),
        (moment(2027, 2, 10, 23, 59), True),
        (moment(2027, 2, 11), False),
        (date(2027, 2, 11), False),
        (Number(46_428), True),
        (Number(46_427), False),
        ("10/2/2027", True),
        ("2/10/2027", False),
        ("10/2/27", True),
        ("10/2/28", False),
        ("10/2/127", False),
        ("10/2", False),
        ("10/feb/2027", False),
        ("10.02.2027 00:00", True),
        ("10.02.2027 0:00:00,000", True),
        ("2027-02-10T00:00:00", True),
        ("10.02.2027 00:01", False),
        ("27-02-10", False),
        ("2027-10-02", False),
        ("02.10.2027", False),
        ("february 10 2027", True),
        ("10.02.2027" + " " * 51, True),
    ],
)
def test_a_date_is_the_same_only_as_its_own_day(cell: Cell, is_same: bool) -> None:
    assert forms.is_same_date(cell, date(2027, 2, 10), "dmy") == is_same


@pytest.mark.parametrize("year", [2027, 27])
@pytest.mark.parametrize(
    ("order", "other", "form"), [("dmy", "mdy", "10/2/{}"), ("mdy", "dmy", "2/10/{}"), ("ymd", "mdy", "{}/02/10")]
)
def test_slashes_are_read_in_their_order(order: str, other: str, form: str, year: int) -> None:
    """A year of two digits can belong to two centuries."""
    text = form.format(year)
    assert forms.is_same_date(text, date(2027, 2, 10), order)
    assert forms.is_same_date(text, date(1927, 2, 10), order) == (year == 27)
    assert not forms.is_same_date(text, date(2027, 10, 2), order)
    assert not forms.is_same_date(text, date(2027, 2, 10), other)


@pytest.mark.parametrize(
    "text", ["31/2/31", "1/2", "1/2/3/4", "a/2/2027", "10/2/20270", "0/0/2027", "\N{ARABIC-INDIC DIGIT ONE}/2/2027"]
)
def test_a_text_that_is_a_date_in_no_order(text: str) -> None:
    assert [forms.slashed_dates(text, order) for order in ("dmy", "mdy", "ymd")] == [set()] * 3


@pytest.mark.parametrize(
    ("cell", "is_same"),
    [
        (time(1, 0), True),
        (time(1, 0, 0, 400_000), True),
        (time(1, 0, 1), False),
        (timedelta(minutes=60), True),
        (timedelta(minutes=61), False),
        (timedelta(hours=25), False),
        (Number(60), True),
        (Number(61), False),
        (Number(60, '0" min"'), False),
        ("60min", True),
        ("60 min.", True),
        ("60,00 min", True),
        ("61 min", False),
        ("60,5", False),
        ("1:00:00,0", True),
        ("1:00:01", False),
        ("1.00", False),
        ("=60", False),
    ],
)
def test_a_duration_is_the_same_only_with_all_its_minutes(cell: Cell, is_same: bool) -> None:
    assert forms.is_same_duration(cell, 60) == is_same


def test_only_a_text_has_slashes() -> None:
    assert forms.has_slashes("10/2/2027") == "10/2/2027"
    assert [forms.has_slashes(cell) for cell in ("10.2.2027", date(2027, 2, 10), ShownText("1/2", "1/2"), Number(1))] == [
        None
    ] * 4


def test_characters_that_a_format_adds_are_no_edit() -> None:
    assert forms.is_same_text(ShownText("10", "A-10"), "A-10")
    assert forms.is_same_text(ShownText("10", "A-10"), "10")
    assert not forms.is_same_text(ShownText("10", None), "A-10")
    assert forms.is_same_text(Number(10, '"A-"0'), "A-10")
    assert forms.is_same_text(Number(10, '"A-"0'), "10")
    assert not forms.is_same_text(Number(11, '"A-"0'), "A-10")
    assert forms.is_same_text("'", "'")
    assert forms.is_same_text("' =1", "' =1")
