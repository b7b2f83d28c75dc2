"""Errors in logs."""

import traceback
from pathlib import Path

from sqlalchemy.exc import DBAPIError


def without_values(error: BaseException | None) -> str:
    """An error's type, SQLSTATE and place. Not its message: the database's and the drivers' quote rows, so notes, too."""
    if error is None:
        return "nothing"
    name = type(error).__name__
    if isinstance(error, DBAPIError):
        name += f"({type(error.orig).__name__} {getattr(error.orig, 'pgcode', None)})"
    frames = traceback.extract_tb(error.__traceback__)
    # From the outside in, the last two: which line of ours, as a rule, and which of the library's.
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:1] + frames[-2:]]
    return f"{name} at {' > '.join(dict.fromkeys(places))}"
