"""Whether a number in a text is a quantity, or part of a date or another id: then it is not a person's id.

docs/decisions/0045-forgetting.md has the reasons. Texts have up to 10,000 characters, so the pattern takes time in proportion to them: each
of its alternatives begins at the beginning of a word, and repeats without a bound only what it does not give back.
"""

import re
from bisect import bisect_right
from functools import cached_property

_UNITS = (
    *("%", "‰", "€", "£", "$", "kr", "nok", "sek", "dkk", "eur", "usd", "gbp", "chf"),
    *("sec", "second", "seconds", "sekund", "sekunder", "min", "mins", "minute", "minutes", "minutt", "minutter"),
    *("hr", "hrs", "hour", "hours", "time", "timer", "am", "pm", "day", "days", "dag", "dager", "week", "weeks", "uke", "uker"),
    *("month", "months", "måned", "måneder", "year", "years", "år", "times", "ganger"),
    *("cm", "km", "mil", "kg", "dl"),
    *("people", "persons", "personer", "mentors", "mentees", "participants", "deltakere", "children", "kids", "barn"),
    *("pages", "sider"),
)
_CURRENCIES = ("€", "£", "$", "kr", "nok", "sek", "dkk", "eur", "usd", "gbp", "chf")
_CLEAR_MONTHS = (
    *("january", "february", "july", "september", "october", "november", "december"),
    *("januar", "februar", "mars", "oktober", "desember"),
)
"""Names of months that are no other word."""
_OTHER_MONTHS = (
    *("april", "june", "august", "mai", "juni", "juli"),
    *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "okt", "nov", "dec", "des"),
)
"""Names of months that are also names of people, or short."""
_SEASONS = ("kvartal", "quarter", "våren", "sommeren", "høsten", "vinteren", "spring", "summer", "autumn", "winter", "året")


def _any_of(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + ")"


_SPACE = r"[ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]"
_HYPHEN = r"[-_\N{NON-BREAKING HYPHEN}\N{EN DASH}]"
_APOSTROPHE = r"['\N{RIGHT SINGLE QUOTATION MARK}]"
# 90, 1 200, 1.200, 1,200, each also with decimals.
_NUMBER = rf"(?:\d{{1,3}}(?:(?:{_SPACE}|[.,]|{_APOSTROPHE})\d{{3}}){{1,4}}|\d++)(?:[.,]\d{{1,2}})?"
_CAPITAL = "(?-i:[A-ZÀ-ÖØ-Þ])"
_SHORT_UNIT = rf"(?-i:[htxmgl])(?![.]|\s{_CAPITAL})"
_YEAR = r"(?:19|20)\d\d"
_DAY = r"(?:0?[1-9]|[12]\d|3[01])"
_MONTH = r"(?:0?[1-9]|1[0-2])"
_CLEAR = rf"(?:{_any_of(_CLEAR_MONTHS)}|(?-i:March))"
_LOWER = rf"(?-i:{_any_of(_OTHER_MONTHS)})"
_ANY_MONTH = rf"(?:{_any_of((*_CLEAR_MONTHS, *_OTHER_MONTHS, 'may', 'march'))})"
_NOT_VERB = rf"(?:{_any_of((*_CLEAR_MONTHS, *_OTHER_MONTHS))}|(?-i:May|March))"
# 12 og, 12. til: the days before the last one.
_MORE_DAYS = rf"(?:{_DAY}\.?\s(?:og|and|til|to)\s){{0,3}}"
_DOT = r"(?:\.\s?|\s)"

_BEGIN, _END = r"(?<!\w)", r"(?!\w)"
_QUANTITY = re.compile(
    "|".join(
        (
            # Words that are joined: team-12, 2026-03-12.
            rf"(?<![^\W_])[^\W_]++(?:{_HYPHEN}[^\W_]++)++",
            # 90 min, 1 200,50 kr, 2 h.
            rf"{_BEGIN}{_NUMBER}\s?(?:{_any_of(_UNITS)}|{_SHORT_UNIT}){_END}",
            # kr 90.
            rf"{_BEGIN}{_any_of(_CURRENCIES)}\s?{_NUMBER}{_END}",
            # 12 March 2026, 12 og 13. mars, 12. mai.
            rf"{_BEGIN}{_MORE_DAYS}{_DAY}{_DOT}{_ANY_MONTH}\.?,?\s{_YEAR}{_END}",
            rf"{_BEGIN}{_MORE_DAYS}{_DAY}(?:{_DOT}{_CLEAR}|\.\s?{_LOWER}){_END}",
            # March 12, May 12, 2026, mai 2026, Q1 2026.
            rf"{_BEGIN}{_ANY_MONTH}\.?\s{_DAY},?\s{_YEAR}{_END}",
            rf"{_BEGIN}{_CLEAR}\s{_DAY}{_END}",
            rf"{_BEGIN}(?:{_NOT_VERB}\.?|q[1-4]|{_any_of(_SEASONS)})\s{_YEAR}{_END}",
            # uke 12, kl. 12, tlf 22 12 34 56.
            rf"{_BEGIN}(?:uke|week)\s(?:[1-9]|[1-4]\d|5[0-3]){_END}",
            rf"{_BEGIN}(?:kl\.?|klokka|klokken)\s(?:[01]?\d|2[0-4]){_END}",
            rf"{_BEGIN}(?:tlf|telefon|tel|mobil|mob|phone)\.?:?\s\+?\d++(?:{_SPACE}\d{{2,4}}){{1,5}}{_END}",
            # 12/3, 12/3/2026, 3/2026, 2025/2026.
            rf"(?<![\w/]){_DAY}/{_MONTH}(?:/{_YEAR}|/\d\d)?(?![\w/])",
            rf"(?<![\w/])(?:{_MONTH}/{_YEAR}|{_MONTH}/{_DAY}/{_YEAR}|{_YEAR}/{_MONTH}/{_DAY}|{_YEAR}/(?:{_YEAR}|\d\d))(?![\w/])",
            # 10:30.
            r"(?<![\w:])(?:[01]?\d|2[0-4]):[0-5]\d(?::[0-5]\d)?(?!\w|:\d)",
            # 1.5, 12.3.2026, 12'000.
            r"(?<![\w,])\d++(?:\.\d++)++",
            rf"{_BEGIN}\d{{1,3}}(?:{_APOSTROPHE}\d{{3}}){{1,4}}{_END}",
            # 12,5. A list of ids has more than one comma.
            r"(?<![\w,.])\d++,\d{1,2}(?!\w|[,.]\d)",
        )
    ),
    re.IGNORECASE,
)
_NAMED = re.compile(rf"(?<![^\W_])mentor(?:{_HYPHEN}|{_SPACE})$", re.IGNORECASE)
_GOES_ON = re.compile(rf"{_HYPHEN}[^\W_]")
_LONGEST_NAME = len("?mentor-")


class Quantities:
    """The quantities, dates and longer ids of one text. They are searched for once, and only if somebody asks."""

    def __init__(self, text: str) -> None:
        self._text = text

    def have(self, start: int, end: int) -> bool:
        """Whether this piece of the text is a bare number, and stands in a quantity, a date or a longer id."""
        if not self._text[start:end].isdecimal() or self._names_mentor(start, end):
            return False
        starts, ends = self._spans
        number = bisect_right(starts, start) - 1
        return number >= 0 and end <= ends[number]

    def _names_mentor(self, start: int, end: int) -> bool:
        """Whether the text says what the number is: mentor-12, mentor 12."""
        before = self._text[max(0, start - _LONGEST_NAME) : start]
        return _NAMED.search(before) is not None and _GOES_ON.match(self._text, end) is None

    @cached_property
    def _spans(self) -> tuple[list[int], list[int]]:
        found = [match.span() for match in _QUANTITY.finditer(self._text)]
        return [start for start, _ in found], [end for _, end in found]
