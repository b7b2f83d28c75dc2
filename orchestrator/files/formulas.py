"""Texts that a spreadsheet program would interpret as formulas. Exports quote them (docs/http.md), and reading a file removes the quotes.

A spreadsheet program may split an exported line at another separator than our comma, even within quotes; a Norwegian Excel splits at semicolons.
So each place after a separator counts as the beginning of a cell.
"""

import re
from typing import Any

# Commas, semicolons, tabs and bars, and all characters that some program treats as the end of a line.
_SEPARATORS = r",;|\t\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
# The first characters of formulas, including those of East Asian keyboards; tab and carriage return, because programs skip them.
_BEGINNING = r"=+\-@\t\r＝＋－＠"  # noqa: RUF001 - the characters to find
# Characters before a formula that programs skip, or treat as the quotes of a cell.
_SKIPPED = rf"[^\S{_SEPARATORS}]|[\"'\ufeff\u200b-\u200f\u2060]"
_FORMULA = rf"(?:{_SKIPPED})*[{_BEGINNING}]"

_PLACE = rf"(?:^|(?<=[{_SEPARATORS}]))"
_UNSAFE = re.compile(rf"{_PLACE}(?={_FORMULA})")
_QUOTED = re.compile(rf"{_PLACE}'(?={_FORMULA})")

# A formula that only contains a text. People write it so that a spreadsheet program does not change the text.
_TEXT_FORMULA = re.compile(r'\s*=\s*(?:\+\s*)?(?:"((?:[^"]|"")*)"|T\(\s*"((?:[^"]|"")*)"\s*\))\s*', re.IGNORECASE)


def neutral(value: str) -> str:
    """The text for an export: with a quote before each place at which a formula could begin."""
    return _UNSAFE.sub("'", value)


def original(cell: Any) -> Any:
    """The value from which `neutral` made this cell."""
    return _QUOTED.sub("", cell) if type(cell) is str else cell


class FormulaText(str):
    """The text of a formula that only contains this text. Somebody has written it like that, and no program has changed it."""

    __slots__ = ()


def text_of_formula(cell: str) -> str:
    """The text in the quotes of a cell like `="00482"` or `=T("00482")`. Any other cell is returned unchanged."""
    match = _TEXT_FORMULA.fullmatch(cell)
    return cell if match is None else FormulaText((match[1] or match[2] or "").replace('""', '"'))


def is_plain_text(cell: Any) -> bool:
    """Whether the cell is a text and nothing else: no format shows it differently, and it has no error."""
    return type(cell) in (str, FormulaText)
