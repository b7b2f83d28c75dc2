"""What a forgotten person's name and id are replaced by in texts, and which numbers are no ids (docs/decisions/0045-forgetting.md)."""

import calendar
import re
from collections.abc import Iterator
from re import _parser
from typing import Any
from unittest.mock import Mock

import pytest

from orchestrator.storage import quantities
from orchestrator.storage.people import ForgottenPeople, Replacement
from tests.support.forgetting import KEY

PEOPLE = ForgottenPeople(KEY, [Replacement("org", word, "P") for word in KEY.words("org", "m-1", "Åse Bø")])


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("m-1", "P"),
        ("M-1 and m-1.", "P and P."),
        ("m-12, xm-1, m-1x", "m-12, xm-1, m-1x"),
        ("(m-1)m-1", "(P)P"),
        ("with ÅSE BØ today", "with P today"),
        ("with A\N{COMBINING RING ABOVE}se Bø", "with P"),
        ("m-1\N{COMBINING ACUTE ACCENT}", "m-1\N{COMBINING ACUTE ACCENT}"),
        ("åse", "åse"),
        ("", ""),
    ],
)
def test_texts_are_searched_for_whole_words(given: str, wanted: str) -> None:
    assert PEOPLE.text("org", given) == wanted
    assert PEOPLE.text("another", given) == given


NUMERIC_IDS = ("12", "90", "482", "2026")


NUMBERS = ForgottenPeople(
    KEY, [Replacement("org", word, "P") for number in NUMERIC_IDS for word in KEY.words("org", number, None)]
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        # An id that stands alone.
        ("12", "P"),
        ("ask 482, 12 and 90.", "ask P, P and P."),
        ("#482 (12) 90: ill", "#P (P) P: ill"),
        ("90 minutes with 90", "90 minutes with P"),
        ("12 came in 2026", "P came in P"),
        # These numbers may be the person's id, so they are replaced. They stand before initials, before words that only look like units or
        # months, in lists, or in something that is not a date.
        *((given, given.replace("12", "P")) for given in ("12 M. Hansen", "12 T Berg", "12 s", "12 may not come", "12. May I ask", "12 Jan")),
        *((given, given.replace("12", "P")) for given in ("ids: 7,12,19", "12/13", "12:75", "mentor-12", "Mentor_12", "mentor 12 min")),
        # Longer ids, and numbers that are joined.
        *((kept, kept) for kept in ("4821", "x12", "team-12", "12-b", "mentor-482-b", "12.5", "12,5", "10:12", "12'000", "0.12")),
        # Quantities and amounts.
        *((kept, kept) for kept in ("90 min", "90min", "90 minutter", "12 %", "1 482 kr", "kr 482", "€90", "12\N{NO-BREAK SPACE}km")),
        *((kept, kept) for kept in ("12 482,90 kr", "2 h", "tlf 90 12 34 56")),
        *((f"12 {unit}", f"12 {unit}") for unit in ("cm", "km", "mil", "kg", "dl", "sider", "pages", "barn", "uker", "måneder", "ganger")),
        # Dates and times.
        *((kept, kept) for kept in ("2026-12-12", "12.12.2026", "12/12", "12 March 2026", "March 2026", "12. mars", "December 12, 2026")),
        *((kept, kept) for kept in ("12.mars", "12 og 13. mars", "12. mai", "12 may 2026", "uke 12", "kl 12", "Q1 2026", "2025/2026")),
    ],
)  # fmt: skip
def test_an_id_that_is_a_number_is_replaced_where_it_stands_alone(given: str, wanted: str) -> None:
    assert NUMBERS.text("org", given) == wanted


MONTHS = [
    *(name for name in calendar.month_name[1:] if name != "May"),
    *("januar", "februar", "mars", "april", "mai", "juni", "juli", "august", "september", "oktober", "november", "desember"),
]
CURRENCIES = ("kr", "nok", "sek", "dkk", "eur", "usd", "gbp", "chf", "€", "£", "$")


@pytest.mark.parametrize(
    "written",
    [
        *(f"12. {month.lower()}" for month in MONTHS if month != "March"),
        *(f"12 {month} 2026" for month in (*MONTHS, "May")),
        *(f"{month} 2026" for month in (*MONTHS, "May")),
        *(
            f"12 {month} 2026"
            for month in ("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "okt", "nov", "dec", "des")
        ),
        *(f"12 {currency} and {currency} 90" for currency in CURRENCIES),
        "12 sekund, 12 sekunder, 12 min, 12 minutt, 12 minutter, 12 time, 12 timer, 12 dag, 12 dager, 12 uke, 12 uker",
        "12 sec, 12 second, 12 seconds, 12 mins, 12 minute, 12 minutes, 12 hr, 12 hrs, 12 hour, 12 hours, 12 day, 12 days, 12 week, 12 weeks",
        "12 måned, 12 måneder, 12 år, 12 month, 12 months, 12 year, 12 years, 12 times, 12 ganger, 12 am, 12 pm",
        "12 %, 12 ‰, 12 cm, 12 km, 12 mil, 12 kg, 12 dl, 12 sider, 12 pages, 12 deltakere, 12 personer, 12 barn",
        "12 people, 12 persons, 12 mentors, 12 mentees, 12 participants, 12 children, 12 kids",
        "våren 2026, sommeren 2026, høsten 2026, vinteren 2026, året 2026, 2. kvartal 2026",
        "spring 2026, summer 2026, autumn 2026, winter 2026, quarter 2026, week 12",
        "kl 12, kl. 12, klokka 12, klokken 12, tlf. 22 12 90 12, telefon 22 12 90 12, mobil 90 12 90 12, phone 22 12 90 12",
    ],
)
def test_dates_and_quantities_of_both_languages_are_kept(written: str) -> None:
    assert NUMBERS.text("org", f"Talked, {written}, then left") == f"Talked, {written}, then left"


def test_a_long_text_is_searched_for_quantities_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes have up to 10,000 characters, and are searched while the locks of batches are held."""
    given = "12 min, 12 came " * 600
    searched = Mock(wraps=quantities._QUANTITY)
    monkeypatch.setattr(quantities, "_QUANTITY", searched)
    assert NUMBERS.text("org", given) == "12 min, P came " * 600
    assert searched.finditer.call_count == 1
    NUMBERS.text("org", "nobody, and 7 min")
    assert searched.finditer.call_count == 1, "a text without a hit is not searched"


def test_what_a_quantity_is_costs_time_in_proportion_to_the_text() -> None:
    """Each alternative begins where a word begins, and gives back nothing that it repeats without a bound."""

    def repeats(parsed: Any) -> Iterator[tuple[Any, Any]]:
        for operation, argument in parsed:
            yield operation, argument
            for inner in argument if isinstance(argument, tuple | list) else ():
                if isinstance(inner, _parser.SubPattern):
                    yield from repeats(inner)
                elif isinstance(inner, list):
                    for branch in inner:
                        yield from repeats(branch) if isinstance(branch, _parser.SubPattern) else ()

    [(operation, (_, branches))] = _parser.parse(quantities._QUANTITY.pattern, re.IGNORECASE)
    assert (str(operation), len(branches) > 10) == ("BRANCH", True)
    for branch in branches:
        first, (direction, _) = branch[0]
        assert (str(first), direction) == ("ASSERT_NOT", -1), branch
    found = list(repeats(_parser.parse(quantities._QUANTITY.pattern, re.IGNORECASE)))
    assert {str(operation) for operation, _ in found} >= {"POSSESSIVE_REPEAT", "MAX_REPEAT"}
    unbounded = [argument for operation, argument in found if str(operation) in ("MAX_REPEAT", "MIN_REPEAT") and argument[1] > 10]
    assert unbounded == []


def test_an_id_in_json_is_a_whole() -> None:
    submitted = [{"mentor_id": "m-1", "notes": "m-1"}, {"mentor_id": "m-1.b", "notes": None}]
    assert PEOPLE.value("org", submitted) == [{"mentor_id": "P", "notes": "P"}, {"mentor_id": "m-1.b", "notes": None}]


def test_only_the_exact_id_is_a_persons() -> None:
    assert [PEOPLE.id("org", each) for each in ("m-1", "M-1", "m-12")] == ["P", "M-1", "m-12"]
    assert not ForgottenPeople(None)
