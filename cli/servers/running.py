"""Finds the stack that runs in a home on this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cli.terminal.failures import BadInputError, UnreachableError

if TYPE_CHECKING:
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile

DEFAULT_HOME = Path(".bulkreg")


def running_stack(home: Path | None, *, otherwise: str) -> tuple["Home", "StackFile"]:
    """Returns what runs in a home (BULKREG_HOME, or .bulkreg). Raises UnreachableError when nothing does, and BadInputError
    when that can't be read. `otherwise` tells somebody whose product is not in a home how to name it."""
    # Imported here, so that shell completion does not wait for it.
    from compose.embedded.home import Home, HomeError
    from compose.embedded.stack_file import StackFile

    path = home or Path(os.environ.get("BULKREG_HOME") or DEFAULT_HOME)
    try:
        place = Home(path)
        stack = StackFile.read(place)
    except HomeError as error:
        raise BadInputError(str(error)) from error
    if stack is None:
        raise UnreachableError(f"Nothing runs in {place.path}. {otherwise}, or start it with: bulkreg up --detach --home {path}")
    return place, stack
