"""When output has colours and bold text: on a terminal, or where FORCE_COLOR asks for them, unless NO_COLOR or `--no-color` forbids them.

Rich and Typer read more variables than that. Typer prints the help and the messages on wrong usage before a command has its options.
"""

import os
from collections.abc import Sequence

# The first three make them take any file for a terminal, and a width that is no number ends Typer with a traceback.
_NOT_HEEDED = ("GITHUB_ACTIONS", "PY_COLORS", "TTY_COMPATIBLE", "TERMINAL_WIDTH")


def settle_styles(arguments: Sequence[str]) -> None:
    """Makes everything that this process prints follow the rule. Call it before Typer prints anything."""
    for name in _NOT_HEEDED:
        os.environ.pop(name, None)
    if are_forbidden(by_option="--no-color" in arguments):
        from typer import rich_utils  # only here, because it takes a tenth of the start

        rich_utils.COLOR_SYSTEM = None


def are_forbidden(*, by_option: bool) -> bool:
    """Whether there are no styles even on a terminal. Rich takes NO_COLOR to forbid only colours; bold text is of no use in a log either."""
    return by_option or bool(os.environ.get("NO_COLOR"))
