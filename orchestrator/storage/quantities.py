"""Whether a number in a text is a quantity, or part of a date or an id: then it is not a person's id.

docs/decisions/0045-forgetting.md has the reasons.
"""

import re

_UNITS = (
    *("%", "‰", "€", "£", "$", "kr", "nok", "sek", "dkk", "eur", "usd", "gbp", "chf"),
    *("s", "sec", "second", "seconds", "sek", "sekund", "sekunder", "min", "mins", "minute", "minutes", "minutt", "minutter"),
    *(
        "h",
        "hr",
        "hrs",
        "hour",
        "hours",
        "t",
        "time",
        "timer",
        "am",
        "pm",
        "day",
        "days",
        "dag",
        "dager",
        "week",
        "weeks",
        "uke",
        "uker",
    ),
    *("month", "months", "måned", "måneder", "year", "years", "år", "times", "ganger", "x"),
    *("m", "cm", "km", "mil", "g", "kg", "l", "dl"),
    *(
        "people",
        "persons",
        "personer",
        "mentors",
        "mentees",
        "participants",
        "deltakere",
        "children",
        "kids",
        "barn",
        "pages",
        "sider",
    ),
)
_CURRENCIES = ("€", "£", "$", "kr", "nok", "sek", "dkk", "eur", "usd", "gbp", "chf")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"),
    *("januar", "februar", "mars", "mai", "juni", "juli", "oktober", "desember"),
    *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "okt", "nov", "dec", "des"),
)


def _any_of(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


_SPACE = r"[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]"
_NUMBER = rf"\d+(?:{_SPACE}\d{{3}})*"
_QUANTITY = re.compile(
    "|".join(
        (
            # Words that are joined: team-12, 2026-03-12, mentor_12.
            r"[^\W_]+(?:[-_\N{NON-BREAKING HYPHEN}\N{EN DASH}][^\W_]+)+",
            # Numbers that are joined: 1.5, 12/3, 10:30, 12'000.
            r"(?<!\w)\d+(?:[./:,'\N{RIGHT SINGLE QUOTATION MARK}]\d+)+",
            # 90 min, 1 200 kr, kr 90.
            rf"(?<!\w){_NUMBER}\s?{_any_of(_UNITS)}(?!\w)",
            rf"(?<!\w){_any_of(_CURRENCIES)}\s?{_NUMBER}(?!\w)",
            # 12 March, 12. mars 2026, March 12, March 2026.
            rf"(?<!\w)\d{{1,2}}(?:\.|st|[nr]d|th)?\s{_any_of(_MONTHS)}\.?(?:,?\s\d{{4}})?(?!\w)",
            rf"(?<!\w){_any_of(_MONTHS)}\.?\s\d{{1,4}}(?:,?\s\d{{4}})?(?!\w)",
        )
    ),
    re.IGNORECASE,
)


def is_of_quantity(text: str, start: int, end: int) -> bool:
    """Whether this piece of the text is a bare number, and stands in a quantity, a date or a longer id."""
    if not text[start:end].isdecimal():
        return False
    return any(found.start() <= start and end <= found.end() for found in _QUANTITY.finditer(text))
