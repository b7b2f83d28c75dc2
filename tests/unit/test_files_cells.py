"""What people write in a cell, and what it means."""

from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import cells
from orchestrator.files.cells import BadCellError, Cell, FormulaError


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
        ("31.04.2026", "not a day of the calendar"),
        ("2026-02-29", "not a day of the calendar"),
        ("25.03.26", "not a date"),  # which century?
        ("2026-3-25", "not a date"),
        ("25.03.2026 10:00", "not a date"),
        ("٢٥.٠٣.٢٠٢٦", "not a date"),
        (46126, "not a date"),  # a date in a workbook whose cell is formatted as a number
        (FormulaError("#N/A"), "error of a formula"),
    ],
)
def test_what_is_no_date_is_refused_with_the_reason(written: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.calendar_date(written)


@given(st.integers(min_value=0, max_value=9_999 * 60 + 59))
def test_a_duration_means_the_same_in_every_form(minutes: int) -> None:
    clock = f"{minutes // 60}:{minutes % 60:02}"
    forms: list[Cell] = [minutes, float(minutes), str(minutes), f" {minutes} min", clock, timedelta(minutes=minutes)]
    assert [cells.minutes(form) for form in forms] == [minutes] * len(forms)


@given(st.integers(min_value=0, max_value=24 * 60 - 1))
def test_a_time_of_the_spreadsheet_program_is_a_duration(minutes: int) -> None:
    # Excel stores it as a fraction of a day, which comes back some microseconds off.
    moment = datetime(2026, 1, 1) + timedelta(minutes=minutes)  # noqa: DTZ001
    assert cells.minutes(moment.time()) == minutes
    assert cells.minutes((moment + timedelta(microseconds=4)).time()) == minutes


@given(st.integers(min_value=0, max_value=100_000), st.sampled_from(",."), st.sampled_from(["h", " h", "t", " T"]))
def test_hours_may_have_a_comma_or_a_point(twentieths: int, point: str, unit: str) -> None:
    hours = f"{twentieths // 20}{point}{twentieths % 20 * 5:02}{unit}"
    assert cells.minutes(hours) == twentieths * 3


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "is empty"),
        ("an hour", "not a duration"),
        ("-5", "not a duration"),
        ("1,5", "not a duration"),  # hours or minutes?
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
def test_what_is_no_duration_is_refused_with_the_reason(written: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.minutes(written)


def test_what_only_a_rule_forbids_is_left_to_the_rule() -> None:
    """Specification, 6: a well-formed item that breaks a registration rule is accepted and fails alone."""
    assert cells.minutes("0") == 0
    assert cells.minutes("25:00") == 1_500
    assert cells.calendar_date("2999-12-31") == date(2999, 12, 31)


@pytest.mark.parametrize(("cell", "meant"), [("mentor-1", "mentor-1"), (482, "482"), (482.0, "482"), (" x ", "x")])
def test_an_id_is_what_its_owner_sees(cell: Cell, meant: str) -> None:
    assert cells.identifier(cell) == meant


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("", "is empty"),
        ("x" * 101, "longer than 100"),
        ("a\0b", "NUL"),
        (datetime(2026, 12, 3), "has made a date"),  # noqa: DTZ001
        (FormulaError("#REF!"), "error of a formula"),
    ],
)
def test_what_is_no_id_is_refused_with_the_reason(cell: Cell, reason: str) -> None:
    with pytest.raises(BadCellError, match=reason):
        cells.identifier(cell)


def test_a_refusal_never_quotes_the_value() -> None:
    with pytest.raises(BadCellError) as refusal:
        cells.notes("private" * 2_000)
    assert str(refusal.value) == "is longer than 10,000 characters"
