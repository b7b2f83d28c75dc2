"""Computes what a workbook's cell shows for a number, for the number formats that have one certain result.

With other formats the result depends on the program's language or the column's width. For those there is no shown text here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

GENERAL = "General"

BUILTIN = {
    0: GENERAL,
    1: "0",
    2: "0.00",
    3: "#,##0",
    4: "#,##0.00",
    9: "0%",
    10: "0.00%",
    11: "0.00E+00",
    12: "# ?/?",
    13: "# ??/??",
    14: "mm-dd-yy",
    15: "d-mmm-yy",
    16: "d-mmm",
    17: "mmm-yy",
    18: "h:mm AM/PM",
    19: "h:mm:ss AM/PM",
    20: "h:mm",
    21: "h:mm:ss",
    22: "m/d/yy h:mm",
    # Dates of East Asian languages.
    **dict.fromkeys([*range(27, 37), *range(50, 59)], "yyyy-mm-dd"),
    37: "#,##0_);(#,##0)",
    38: "#,##0_);(#,##0)",
    39: "#,##0.00_);(#,##0.00)",
    40: "#,##0.00_);(#,##0.00)",
    45: "mm:ss",
    46: "[h]:mm:ss",
    47: "mmss.0",
    48: "##0.0E+0",
    49: "@",
}
"""The formats that a workbook refers to only by number."""

# A spreadsheet program keeps fifteen digits of a number. It shows up to eleven without an exponent.
_KEPT_DIGITS = 15
_GENERAL_DIGITS = 11
_SEPARATED_DIGITS = 3

# The sum of 0.1 and 0.2 is 0.30000000000000004. Nobody writes a duration as exactly as this.
_MOST_NOISE = Decimal("1e-9")

# A list has few formats and many cells, so the parts of a format are kept.
_KEPT_FORMATS = 256

_TOKEN = re.compile(
    r"""
    "(?P<quoted>[^"]*)" | \\(?P<escaped>.) | _(?P<space>.) | \*(?P<fill>.) | \[(?P<bracket>[^\]]*)\]
    | (?P<general>General|Standard) | (?P<exponent>E[-+]) | (?P<digit>[0#?]) | (?P<point>\.) | (?P<comma>,) | (?P<text>@)
    | (?P<plain>[-+$():!^&'~{}<>=\x20]) | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_SECTION = re.compile(r'((?:"[^"]*"|\\.|\[[^\]]*\]|[^;])*)(;|$)', re.DOTALL)
_COLOUR = re.compile(r"black|blue|cyan|green|magenta|red|white|yellow|colou?r ?\d+|\$-[0-9a-f]+", re.IGNORECASE)
_NOT_OF_DATES = re.compile(r'"[^"]*"|\[(?!hh?\]|mm?\]|ss?\])[^\]]*\]|General|Standard|[_\\*].', re.DOTALL | re.IGNORECASE)
_DATE_LETTER = re.compile(r"[dmhys]", re.IGNORECASE)
_ELAPSED = re.compile(r"\[(?:hh?|mm?|ss?)\]", re.IGNORECASE)
_FRACTION_OF_SECOND = re.compile(r"[.,]0+")
_DIGIT = re.compile(r"[0#?]")
# The text that a bracket shows, such as `kr` in `[$kr-414]`. `[$-414]` shows none.
_BRACKET_TEXT = re.compile(r"\$\s*[^-\s]")


class _NotFollowedError(ValueError):
    """The format has an element that this module does not support."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


@lru_cache(_KEPT_FORMATS)
def is_date(code: str) -> bool:
    """Whether a number in this format is shown as a date or a time."""
    return _DATE_LETTER.search(_date_elements(code)) is not None


@lru_cache(_KEPT_FORMATS)
def is_elapsed(code: str) -> bool:
    """Whether a number in this format is shown as a time that continues after 24 hours."""
    return _ELAPSED.search(_date_elements(code)) is not None


@lru_cache(_KEPT_FORMATS)
def is_mixed(code: str) -> bool:
    """Whether the format has elements of dates and places for the digits of a number, such as `0 h`. It has no certain meaning."""
    return is_date(code) and _DIGIT.search(_FRACTION_OF_SECOND.sub("", _date_elements(code))) is not None


@lru_cache(_KEPT_FORMATS)
def alters_amount(code: str) -> bool:
    """Whether a number can mean another amount than it stores: with a unit (`0" min"`), a colon or digits beside it (`0":"00`), in percent,
    or in thousands (`0,`)."""
    return any(_is_scaled(tokens) or any(map(_has_meaning, tokens)) for tokens in map(_tokens, _sections(code)))


def shown(value: float, code: str, *, with_decimals: bool = False) -> str | None:
    """The text that a cell shows for a number, without surrounding blanks; None if it is unknown.

    Programs show decimals with a comma or a point, depending on the language. This returns a point, and decimals only `with_decimals`.
    """
    try:
        return _shown(Decimal(repr(float(value))), code, with_decimals=with_decimals).strip()
    except (_NotFollowedError, ArithmeticError):
        return None


def is_rounded(value: float, code: str) -> bool:
    """Whether a cell shows fewer decimals than its number has, such as 1.3 for 1.25. The last digits of a computed number do not count.

    False if the text that the cell shows is unknown.
    """
    exact = Decimal(repr(float(value)))
    tokens = _tokens(_section_of(exact, code)[1])
    if not any(token.kind == "digit" for token in tokens):
        return False
    places = sum(token.kind == "digit" for token in tokens[_point(tokens) :])
    try:
        return abs(exact - _rounded(exact, places)) > _MOST_NOISE
    except ArithmeticError:
        return False


def shown_text(value: str, code: str) -> str | None:
    """The text that a cell shows for a text, because a format can add to it or replace it. None if it is unknown."""
    sections = _sections(code)
    tokens = _tokens(sections[3] if len(sections) > 3 else sections[-1])
    if len(sections) <= 3 and not any(token.kind == "text" for token in tokens):
        return value
    try:
        return "".join(value if token.kind == "text" else _literal(token) for token in tokens)
    except _NotFollowedError:
        return None


def plain(value: float) -> str:
    """The number as written without a format."""
    shortest = repr(float(value))
    return str(int(Decimal(shortest))) if float(value).is_integer() else shortest


def _shown(value: Decimal, code: str, *, with_decimals: bool) -> str:
    sign, section = _section_of(value, code)
    return sign + _filled(_tokens(section), abs(value), with_decimals=with_decimals)


def _section_of(value: Decimal, code: str) -> tuple[str, str]:
    """The sign that a cell shows before the number, and the format's section for the number."""
    sections = _sections(code)[:3]
    if value < 0 and len(sections) > 1:
        return "", sections[1]
    if value == 0 and len(sections) > 2:
        return "", sections[2]
    return "-" if value < 0 else "", sections[0]


def _point(tokens: Sequence[_Token]) -> int:
    """The index of the decimal point, or the end."""
    return next((index for index, token in enumerate(tokens) if token.kind == "point"), len(tokens))


def _rounded(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP)


@lru_cache(_KEPT_FORMATS)
def _sections(code: str) -> Sequence[str]:
    found = []
    for match in _SECTION.finditer(code):
        found.append(match[1])
        if not match[2]:
            break
    return found


@lru_cache(_KEPT_FORMATS)
def _tokens(section: str) -> Sequence[_Token]:
    return [_Token(str(match.lastgroup), match[str(match.lastgroup)]) for match in _TOKEN.finditer(section)]


def _date_elements(code: str) -> str:
    """The format's first section without the texts that it shows as they are."""
    return _NOT_OF_DATES.sub("", _sections(code)[0])


def _has_meaning(token: _Token) -> bool:
    """Whether the token shows a text that changes what the number beside it means."""
    if token.kind == "bracket":
        return _BRACKET_TEXT.match(token.text) is not None
    is_text = token.kind in ("quoted", "escaped", "fill", "plain", "other")
    return is_text and any(character.isalnum() or character in ":%" for character in token.text)


def _is_scaled(tokens: Sequence[_Token]) -> bool:
    """Whether a comma divides the number by a thousand. A comma between the places of whole digits only separates them."""
    point = _point(tokens)
    places = [index for index, token in enumerate(tokens[:point]) if token.kind == "digit"]
    commas = [index for index, token in enumerate(tokens) if token.kind == "comma"]
    return any(not places or not places[0] < index < places[-1] for index in commas)


def _literal(token: _Token) -> str:
    """The text that a token other than a digit shows."""
    if token.kind in ("quoted", "escaped", "plain"):
        return token.text
    if token.kind == "space" or (token.kind == "fill" and token.text == " "):
        return " "
    if token.kind == "bracket" and _COLOUR.fullmatch(token.text):
        return ""
    raise _NotFollowedError


def _filled(tokens: Sequence[_Token], value: Decimal, *, with_decimals: bool) -> str:
    """The digits of the value in the section's places, with the texts between them."""
    if not any(token.kind == "digit" for token in tokens):
        return "".join(_general(value) if token.kind in ("general", "text") else _literal(token) for token in tokens)
    point = _point(tokens)
    if point < len(tokens) and not with_decimals:
        raise _NotFollowedError
    places = sum(token.kind == "digit" for token in tokens[point:])
    whole, _, decimals = f"{_rounded(value, places):f}".partition(".")
    if len(whole) > _KEPT_DIGITS:
        raise _NotFollowedError
    return _whole(tokens[:point], whole.lstrip("0")) + _decimals(tokens[point:], decimals)


def _whole(tokens: Sequence[_Token], digits: str) -> str:
    """The digits before the decimal point. From the right, each place takes one digit; the first place takes all that are left."""
    places = [index for index, token in enumerate(tokens) if token.kind == "digit"]
    if digits and not places:
        raise _NotFollowedError
    width = max(len(digits), sum(tokens[index].text == "0" for index in places))
    pieces = []
    for index in range(len(tokens) - 1, -1, -1):
        token = tokens[index]
        if token.kind == "digit":
            taken = digits if index == places[0] else digits[-1:]
            digits = digits[: len(digits) - len(taken)]
            pieces.append(taken or {"0": "0", "?": " ", "#": ""}[token.text])
        elif token.kind != "comma":
            pieces.append(_literal(token))
        elif not places or not places[0] < index < places[-1] or width > _SEPARATED_DIGITS:
            # A comma between the places separates thousands, if there are any. After the last place it divides by a thousand.
            raise _NotFollowedError
    return "".join(reversed(pieces))


def _decimals(tokens: Sequence[_Token], digits: str) -> str:
    if not tokens:
        return ""
    places = [token for token in tokens if token.kind == "digit"]
    required = max((index + 1 for index, token in enumerate(places) if token.text != "#"), default=0)
    kept = digits[:required] + digits[required:].rstrip("0")
    others = "".join(_literal(token) for token in tokens[1:] if token.kind != "digit")
    return f".{kept}{others}" if kept else others


def _general(value: Decimal) -> str:
    if value != value.to_integral_value() or value >= 10**_GENERAL_DIGITS:
        raise _NotFollowedError
    return f"{value:f}".partition(".")[0]
