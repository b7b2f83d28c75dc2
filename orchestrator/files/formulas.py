"""Texts that a spreadsheet program would take for formulas: quoted in what is exported (docs/http.md), and read back as they were.

A spreadsheet may split an exported line at another separator than the comma that we write, whatever stands in quotes: a Norwegian Excel
at semicolons. So each place behind a separator counts like the beginning of a cell.
"""

import re
from typing import Any

# Commas, semicolons, tabs and bars, and whatever some program takes for the end of a line.
_SEPARATORS = r",;|\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# How a formula begins, in the forms of East Asian keyboards too; tab and carriage return, because programs skip them.
_BEGINNING = r"=+\-@\t\r＝＋－＠"  # noqa: RUF001 - they are what is looked for
# What can stand before that, and be skipped or taken for the quotes of a cell.
_SKIPPED = rf"[^\S{_SEPARATORS}]|[\"'\ufeff\u200b-\u200f\u2060]"
_FORMULA = rf"(?:{_SKIPPED})*[{_BEGINNING}]"

_PLACE = rf"(?:^|(?<=[{_SEPARATORS}]))"
_UNSAFE = re.compile(rf"{_PLACE}(?={_FORMULA})")
_QUOTED = re.compile(rf"{_PLACE}'(?={_FORMULA})")

# How people keep a spreadsheet program from changing a text: a formula that is nothing but the text.
_TEXT_FORMULA = re.compile(r'\s*="((?:[^"]|"")*)"\s*')


def neutral(value: str) -> str:
    """What is exported for a text: a quote before whatever in it could begin a formula."""
    return _UNSAFE.sub("'", value)


def original(cell: Any) -> Any:
    """The value that `neutral` made this of."""
    return _QUOTED.sub("", cell) if type(cell) is str else cell


def text_of_formula(cell: str) -> str:
    """What a cell of text means that says `="00482"`: the text in the quotes. Any other is as it is."""
    match = _TEXT_FORMULA.fullmatch(cell)
    return cell if match is None else match[1].replace('""', '"')
