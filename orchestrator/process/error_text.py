"""How errors are written in logs."""

import traceback
from pathlib import Path

from sqlalchemy.exc import DBAPIError


def without_values(error: BaseException | None) -> str:
    """An error's type, SQLSTATE and place, without its message: those of the database and the drivers quote rows, and so notes."""
    if error is None:
        return "nothing"
    name = type(error).__name__
    if isinstance(error, DBAPIError):
        name += f"({type(error.orig).__name__} {getattr(error.orig, 'pgcode', None)})"
    frames = traceback.extract_tb(error.__traceback__)
    # The outermost frame and the two innermost: usually a line of ours, and one of the library's.
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[:1] + frames[-2:]]
    return f"{name} at {' > '.join(dict.fromkeys(places))}"
