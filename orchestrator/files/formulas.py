"""Texts that a spreadsheet program would take for formulas: quoted in what is exported (specification, 6), and read back as they were."""

import re
from typing import Any

# How a formula begins; tab and carriage return, because they are skipped. Quotes before it: one more, so that one can be taken off.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def neutral(value: Any) -> Any:
    """What is exported for a value: a text that begins like a formula with a quote before it, anything else as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def original(cell: Any) -> Any:
    """The value that `neutral` made this of."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell
