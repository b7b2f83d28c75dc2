"""A workbook's number is read as its cell shows it, and a number format whose display is not known is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.files import number_formats
from tests.support.read_tables import mistakes, values
from tests.support.workbooks import DAY, formatted


@pytest.mark.parametrize(
    ("stored", "code", "shown"),
    [
        (482, "00000", "00482"),
        (10, '"A-"000', "A-010"),
        (10, r"\A\-000", "A-010"),
        (482, "00000;@", "00482"),
        (482, "[Red]00000", "00482"),
        (482, "[$-414]00000", "00482"),
        (12345678, r"00\-00\-0000", "12-34-5678"),
        (1234567, "00 00 00 00", "01 23 45 67"),
        (7, '"M"#', "M7"),
        (482, "#,##0", "482"),
        (482, "General", "482"),
        (482.0, "0", "482"),
        (-5, "0", "-5"),
        (5, '@"-x"', "5-x"),
        ("010", '"A-"@', "A-010"),
        ("010", "00000", "010"),
        (99_999_999_999, "General", "99999999999"),
        (123_456_789_012_345, "0", "123456789012345"),
    ],
)
def test_an_id_is_what_the_cell_shows(stored: object, code: str, shown: str) -> None:
    raw = formatted([stored, "x", DAY, 60, None], formats={"A2": code})
    assert values("a.xlsx", raw)[0]["mentor_id"] == shown


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (482, "0.00"),
        (1_482, "#,##0"),
        (0.5, "0%"),
        (482, "0.00E+00"),
        (482, "# ?/?"),
        (482, "[$kr-414] 0"),
        (482, "[>100]000;0"),
        (482.5, "General"),
        (123_456_789_012, "General"),
        (1_234_567_890_123_456, "0"),
        (1e300, "0"),
        (482, "0,"),
        (46_106, "yyyy-mm-dd"),
        (0.0625, "h:mm"),
        (25, "dd.mm.yyyy"),
        (True, "General"),
        (482, ";;;"),
    ],
)
def test_an_id_whose_display_is_not_known_is_named(stored: object, code: str) -> None:
    raw = formatted([stored, "x", DAY, 60, None], formats={"A2": code})
    [found] = mistakes("a.xlsx", raw)
    assert found.startswith("a.xlsx, row 2, column mentor_id: ")


@given(st.integers(0, 10**15 - 1), st.integers(1, 20))
def test_zeros_are_added_to_any_width(value: int, width: int) -> None:
    assert number_formats.shown(value, "0" * width) == str(value).zfill(width)


@given(st.floats(), st.text('0#?.,;@"\\_*[]%E+-/ dmyhsAGeneral$€x', max_size=12))
def test_no_format_makes_the_reader_crash(value: float, code: str) -> None:
    shown = number_formats.shown(value, code)
    assert shown is None or shown == shown.strip()
    number_formats.shown_text("x", code)
    number_formats.is_date(code)
    number_formats.is_mixed(code)
    number_formats.alters_amount(code)
    number_formats.is_rounded(value, code)


@pytest.mark.parametrize(
    ("stored", "code", "minutes"),
    [
        (2, '0" t"', 120),
        (1.5, '0.0" h"', 90),
        (1.25, '0.00" t"', 75),
        (1.5, '0.##" t"', 90),
        (0.1 + 0.2, '0.0" t"', 18),
        (3.3000000000000003, '0.0" t";-0.0" t";"-"', 198),
        (90.0000000000001, '0" min"', 90),
        (90, '0" min"', 90),
        (90, "0.00", 90),
        (0.0625, "h:mm", 90),
        (1.5, "[h]:mm", 2_160),
        (130, '0":"00', 90),
        (130, "0:00", 90),
        (9, '0"0"', 90),
        (1_440, "#,##0.00", 1_440),
        (90, "0.00E+00", 90),
        (90, "_-* #,##0_-", 90),
    ],
)
def test_a_duration_has_the_unit_that_the_cell_shows(stored: float, code: str, minutes: int) -> None:
    raw = formatted(["m", "x", DAY, stored, None], formats={"D2": code})
    assert values("a.xlsx", raw)[0]["duration_minutes"] == minutes


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (1.25, '0.0" t"'),
        (1.5, '0" t"'),
        (1 / 3, '0.00" t"'),
        (1.25, '0.#" t"'),
        (1.25, '0.0" t";-0.00" t"'),
        (130.5, '0":"00'),
        (90.4, '0" min"'),
    ],
)
def test_a_duration_that_the_cell_shows_rounded_is_a_mistake(stored: float, code: str) -> None:
    [found] = mistakes("a.xlsx", formatted(["m", "x", DAY, stored, None], formats={"D2": code}))
    assert "row 2, column duration_minutes: " in found
    assert found.endswith(" shows a rounded number; write minutes")


@pytest.mark.parametrize(
    ("stored", "code"),
    [
        (0.5, '0.0" [h]"'),
        (90, '0" [m]"'),
        (1e12, '0" [h]"'),
        (2, "0 t"),
        (2, "0!t"),
        (2, "0[$ t]"),
        (2, "0[$t-414]"),
        (2, "0*t"),
        (2, "0 h"),
        (0.5, "0.0 h"),
        (60, "0%"),
        (1_000, "0,"),
        (1_000, "0.0,"),
    ],
)
def test_a_duration_whose_display_is_not_known_is_named(stored: float, code: str) -> None:
    raw = formatted(["m", "x", DAY, stored, None], formats={"D2": code})
    [found] = mistakes("a.xlsx", raw)
    assert found.startswith("a.xlsx, row 2, column duration_minutes: ")
