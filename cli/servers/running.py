"""What runs on this machine: the stack of a home."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cli.terminal.failures import UnreachableError

if TYPE_CHECKING:
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile

DEFAULT_HOME = Path(".bulkreg")


def running_stack(home: Path | None) -> tuple["Home", "StackFile"]:
    """What runs in a home (BULKREG_HOME, or .bulkreg). Raises UnreachableError when nothing does."""
    # Imported here: shell completion need not wait for it.
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile

    path = home or Path(os.environ.get("BULKREG_HOME", DEFAULT_HOME))
    place = Home(path)
    stack = StackFile.read(place)
    if stack is None:
        raise UnreachableError(f"Nothing runs in {place.path}. Start it with: bulkreg up --detach --home {path}")
    return place, stack
