"""What people write into a cell, and what it means."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import cells
from orchestrator.files.cells import BadCellError, Cell, FormulaError, Number, UnsavedFormula
from orchestrator.files.formulas import text_of_formula


@given(st.dates())
def test_a_date_means_the_same_in_every_form(day: date) -> None:
    forms: list[Cell] = [
        day,
        datetime.combine(day, time(13, 45)),
        f"{day.year:04}-{day.month:02}-{day.day:02}",
        f"{day.day:02}.{day.month:02}.{day.year:04}",
        f" {day.day}.{day.month}.{day.year:04} ",
    ]
    assert [cells.calendar_date(form) for form in forms] == [day] * len(forms)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "is empty"),
        ("25/03/2026", "slashes.*2026-03-25"),
        ("2026/03/25", "slashes"),
        ("31.04.2026", "not a valid date"),
        ("2026-02-29", "not a valid date"),
        ("25.03.26", "not a date"),  # The century is not known.
        ("2026-3-25", "not a date"),
        ("25.03.2026 10:00", "not a date"),
        ("٢٥.٠٣.٢٠٢٦", "not a date"),
        (46126, "not a date"),  # A date in a workbook whose cell is formatted as a number.
        (FormulaError("#N/A"), "error of a formula"),
    ],
)
def test_a_value_that_is_no_date_is_refused_with_the_reason(written: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.calendar_date(written)


@given(st.integers(min_value=0, max_value=9_999 * 60 + 59))
def test_a_duration_means_the_same_in_every_form(minutes: int) -> None:
    clock = f"{minutes // 60}:{minutes % 60:02}"
    forms: list[Cell] = [minutes, float(minutes), str(minutes), f" {minutes} min", clock, timedelta(minutes=minutes)]
    assert [cells.minutes(form) for form in forms] == [minutes] * len(forms)


@given(st.integers(min_value=0, max_value=24 * 60 - 1))
def test_a_time_of_the_spreadsheet_program_is_a_duration(minutes: int) -> None:
    # Excel stores it as a fraction of a day, which is read back with an error of some microseconds.
    moment = datetime(2026, 1, 1) + timedelta(minutes=minutes)  # noqa: DTZ001
    assert cells.minutes(moment.time()) == minutes
    assert cells.minutes((moment + timedelta(microseconds=4)).time()) == minutes


@given(st.integers(min_value=0, max_value=100_000), st.sampled_from(",."), st.sampled_from(["h", " h", "t", " T"]))
def test_hours_may_have_a_comma_or_a_point(twentieths: int, point: str, unit: str) -> None:
    hours = f"{twentieths // 20}{point}{twentieths % 20 * 5:02}{unit}"
    assert cells.minutes(hours) == twentieths * 3


@pytest.mark.parametrize("midnight", [" 00:00", " 0:00:00", "T00:00:00", " 00.00", " 00:00:00.000"])
def test_a_date_may_be_followed_by_midnight_and_by_no_other_time(midnight: str) -> None:
    for written in ("2026-03-25", "25.03.2026"):
        assert cells.calendar_date(written + midnight) == date(2026, 3, 25)
        with pytest.raises(BadCellError, match="is not a date"):
            cells.calendar_date(written + midnight.replace("0", "1", 1))


@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        ("1:30:00", 90),
        ("01:30:00", 90),
        ("90 minutter", 90),
        ("1 minutt", 1),
        ("90 minutes", 90),
        ("90 mins", 90),
        ("1,5 timer", 90),
        ("1 time", 60),
        ("2 hours", 120),
        ("1.5 hrs.", 90),
        ("1 t 30 min", 90),
        ("1t30m", 90),
        ("1 time 5 minutter", 65),
        ("2 timar", 120),
        ("1,5 timar", 90),
        ("1,5 tim", 90),
        ("1 time og 30 min", 90),
        ("1 t og 30 min", 90),
        ("2 timar og 30 minutt", 150),
        ("1 time og 30 minutter", 90),
        ("1 hour and 30 minutes", 90),
        ("1 t, 30 min", 90),
    ],
)
def test_a_duration_is_read_with_its_words_and_with_seconds_that_are_0(written: str, minutes: int) -> None:
    assert cells.minutes(written) == minutes


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "is empty"),
        ("1:30:10", "not a duration"),
        ("90:00:00:00", "not a duration"),
        ("1,5 t 30 min", "not a duration"),
        ("1 t 60 min", "not a duration"),
        ("1t30", "not a duration"),
        ("1 og 30 min", "not a duration"),
        ("1 t og", "not a duration"),
        ("90 meter", "not a duration"),
        ("an hour", "not a duration"),
        ("-5", "not a duration"),
        ("1,5", "not a duration"),  # It could be hours or minutes.
        (1.5, "not a duration"),
        ("1:60", "not a duration"),
        ("1:3", "not a duration"),
        ("0,33 h", "not a whole number of minutes"),
        (time(1, 30, 20), "not a whole number of minutes"),
        ("2147483648", "too large"),
        ("9" * 5000, "too large"),
        (datetime(2026, 3, 25), "is a date"),  # noqa: DTZ001
        (True, "not a duration"),
    ],
)
def test_a_value_that_is_no_duration_is_refused_with_the_reason(written: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.minutes(written)


def test_a_value_that_only_a_rule_forbids_is_accepted_here() -> None:
    """A well-formed item that breaks a registration rule is accepted and fails alone (docs/rules.md)."""
    assert cells.minutes("0") == 0
    assert cells.minutes("25:00") == 1_500
    assert cells.calendar_date("2999-12-31") == date(2999, 12, 31)


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("mentor-1", "mentor-1"),
        (482, "482"),
        (482.0, "482"),
        (" x ", "x"),
        ("1E5", "1E5"),
        ("1.00", "1.00"),
        ("a.0", "a.0"),
        ("'+47", "+47"),
        ("'-12", "-12"),
        ("o'brien", "o'brien"),
        ("'t-hooft", "'t-hooft"),
        ('"', '"'),
        ("Null", "Null"),
        ("2026-02-01", "2026-02-01"),
        ("12E+05", "12E+05"),
    ],
)
def test_an_id_is_what_a_person_sees(cell: Cell, meant: str) -> None:
    assert cells.identifier(cell) == meant


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "is empty"),
        ("x" * 101, "longer than 100"),
        ("a\0b", "NUL"),
        (datetime(2026, 12, 3), "has changed into a date"),  # noqa: DTZ001
        (FormulaError("#REF!"), "error of a formula"),
        ("1E+05", "has shortened"),
        ("'00482", "has quotes"),
        ("'m-1'", "has quotes"),
        ("'", "has quotes"),
        ('"00482"', "has quotes"),
        ("'=1+1", "is a formula"),
        ("482.0", "number with decimals"),
        ("00482,0", "number with decimals"),
        ("2026-02-01 00:00:00", "into a date"),
        ("NULL", "for an empty value"),
        ("\\N", "for an empty value"),
        ("NaN", "for an empty value"),
        ("1,23457E+11", "has shortened"),
        ("1.23457E+11", "has shortened"),
        ("k†re", "read in a wrong encoding"),
    ],
)
def test_a_value_that_is_no_id_is_refused_with_the_reason(cell: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.identifier(cell)


@pytest.mark.parametrize("written", ["NULL", "1E+05", "1.0", "'00482", "2026-02-01 00:00:00", '"m"'])
def test_an_id_that_is_written_as_the_text_of_a_formula_is_this_text(written: str) -> None:
    with pytest.raises(BadCellError, match='="…" in a CSV file'):
        cells.identifier(written)
    quoted = written.replace('"', '""')
    assert cells.identifier(text_of_formula(f'="{quoted}"')) == written
    assert cells.optional_identifier(text_of_formula(f'="{quoted}"')) == written


@pytest.mark.parametrize("written", ["NULL", "\\N", "NaN", "(null)", "[NULL]", "<null>", "<NA>", "NaT"])
def test_what_a_program_writes_for_an_empty_value_is_no_name_and_no_optional_id(written: str) -> None:
    with pytest.raises(BadCellError, match=r"for an empty value; write the name itself.*CSV"):
        cells.name(written)
    with pytest.raises(BadCellError, match="for an empty value; leave the cell empty"):
        cells.optional_identifier(written)
    assert cells.name(text_of_formula(f'="{written}"')) == written
    assert cells.name("Null") == "Null"


@pytest.mark.parametrize(
    ("cell", "is_doubtful"),
    [
        (Number(1.3, '0.00" t"'), True),
        (Number(1.3, '0.0" t"'), False),
        (Number(1.25, '0.00" t"'), False),
        (Number(1.3, "0.00"), False),
        (Number(130, '0":"00'), False),
        (Number(1.3, '0.00" t'), False),
    ],
)
def test_a_number_that_is_shown_with_hours_may_be_a_clock(cell: Cell, is_doubtful: bool) -> None:
    assert cells.may_be_clock(cell) is is_doubtful


def test_a_refusal_never_quotes_the_value() -> None:
    with pytest.raises(BadCellError) as refusal:
        cells.notes("private" * 2_000)
    assert str(refusal.value) == "is longer than 10,000 characters"


# --- Limits and neighbours ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "most"),
    [
        (cells.identifier, 100),
        (cells.optional_reference, 100),
        (cells.name, 200),
        (cells.notes, 10_000),
        (cells.verbatim_notes, 10_000),
    ],
)
def test_the_length_of_a_text_is_limited(read: Callable[[Cell], object], most: int) -> None:
    for length in (1, most - 1, most):
        assert read("x" * length) == "x" * length
    with pytest.raises(BadCellError, match=f"longer than {most:,} characters"):
        read("x" * (most + 1))


def test_the_length_of_an_id_is_that_of_its_stored_form() -> None:
    # Four code points that make one letter.
    letter = "\N{GREEK SMALL LETTER ALPHA}\N{COMBINING REVERSED COMMA ABOVE}\N{COMBINING GREEK PERISPOMENI}"
    letter += "\N{COMBINING GREEK YPOGEGRAMMENI}"
    assert len(cells.identifier(letter * 100)) == 100
    with pytest.raises(BadCellError, match="longer than 100"):
        cells.identifier(letter * 101)


@pytest.mark.parametrize("character", ["\n", "\t", "\x07", "\x85"])
def test_an_id_has_no_control_characters_but_a_reference_may(character: str) -> None:
    with pytest.raises(BadCellError, match="control character"):
        cells.identifier(f"a{character}b")
    assert cells.optional_reference(f"a{character}b") == f"a{character}b"


@pytest.mark.parametrize("read", [cells.identifier, cells.optional_reference, cells.name, cells.notes, cells.verbatim_notes])
def test_no_text_may_have_a_nul_or_a_formulas_error(read: Callable[[Cell], object]) -> None:
    with pytest.raises(BadCellError, match="NUL"):
        read("a\0b")
    with pytest.raises(BadCellError, match="error of a formula"):
        read(FormulaError("#N/A"))
    with pytest.raises(BadCellError, match="without a saved value"):
        read(UnsavedFormula("=A1"))


@pytest.mark.parametrize("cell", ["", "  ", "\N{NO-BREAK SPACE}\n", "\N{ZERO WIDTH SPACE}"])
def test_a_blank_cell_is_none_where_a_value_is_optional(cell: Cell) -> None:
    assert cells.is_blank(cell)
    assert (cells.optional_date(cell), cells.optional_reference(cell)) == (None, None)
    for read in (cells.identifier, cells.calendar_date, cells.minutes):
        with pytest.raises(BadCellError, match="is empty"):
            read(cell)


@pytest.mark.parametrize("cell", [0, 0.0, False, "x", date(2026, 3, 25), FormulaError(" "), UnsavedFormula("")])
def test_which_cells_are_not_blank(cell: Cell) -> None:
    assert not cells.is_blank(cell)


def test_a_name_is_not_empty_and_surrounding_blanks_are_removed() -> None:
    assert cells.name(" Kari Nordmann ") == "Kari Nordmann"
    with pytest.raises(BadCellError, match="is empty"):
        cells.name("  ")


def test_notes_are_read_with_or_without_surrounding_blanks() -> None:
    assert (cells.notes(" x\n"), cells.notes(" \n")) == ("x", None)
    assert (cells.verbatim_notes(" x\n"), cells.verbatim_notes("")) == (" x\n", "")


@pytest.mark.parametrize(
    ("cell", "seen"),
    [
        (True, "TRUE"),
        (False, "FALSE"),
        (12.0, "12"),
        (1.5, "1.5"),
        (Number(1.5, "0.00"), "1.50"),
        (Number(3, '0" ganger"'), "3 ganger"),
        (Number(0.5, "0%"), "0.5"),
        (" x ", "x"),
    ],
)
def test_notes_are_what_the_cell_shows(cell: Cell, seen: str) -> None:
    assert cells.notes(cell) == seen


@pytest.mark.parametrize("cell", [True, time(1, 30), timedelta(hours=1), date(2026, 3, 1)])
def test_an_id_that_a_program_has_changed_is_refused(cell: Cell) -> None:
    with pytest.raises(BadCellError, match=r"has changed into (TRUE or FALSE|a date or time)"):
        cells.identifier(cell)


@pytest.mark.parametrize(
    ("cell", "minutes"),
    [
        (time(1, 29, 59, 999_996), 90),
        (time(1, 29, 59, 500_001), 90),
        (timedelta(minutes=90, milliseconds=-400), 90),
        (timedelta(days=2), 2_880),
        ("2147483647", 2**31 - 1),
        ("0" * 38 + "90", 90),
        ("0:00", 0),
        ("9999:59", 9_999 * 60 + 59),
        ("90min.", 90),
        ("1 H", 60),
        (Number(90, "0.00"), 90),
        (Number(2, '0" t"'), 120),
    ],
)
def test_durations_at_their_limits(cell: Cell, minutes: int) -> None:
    assert cells.minutes(cell) == minutes


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("2147483648", "is too large"),
        ("0" * 39 + "90", "is too large"),
        ("an hour and a half and a quarter and some", "is not a duration"),
        ("10000:00", "is not a duration"),
        ("1,55 h 30 minutter", "is not a duration"),
        (timedelta(minutes=-5), "is negative"),
        (timedelta(seconds=30), "is not a whole number"),
        (Number(-5), "is not a duration"),
        (Number(46_126, "dd.mm.yyyy"), "is a date, not a duration"),
        (Number(2, '0,\\ "t"'), "is not a duration"),
        (date(2026, 3, 25), "is a date, not a duration"),
        (FormulaError("#N/A"), "error of a formula"),
    ],
)
def test_durations_just_beyond_the_limits(cell: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.minutes(cell)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (Number(2_026, "dd.mm.yyyy"), "number in a cell formatted as a date"),
        (Number(46_126, "0"), "^is not a date; write"),
        ("0000-01-01", "not a valid date"),
        ("1.13.2026", "not a valid date"),
        ("125.3.2026", "^is not a date; write"),
        (time(1), "^is not a date; write"),
    ],
)
def test_values_that_are_almost_dates(cell: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.calendar_date(cell)
