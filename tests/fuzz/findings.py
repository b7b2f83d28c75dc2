"""What a fuzz run has found: each fault a few times at most, with the input that showed it stored as a file."""

import hashlib
import re
from pathlib import Path

MOST_OF_A_KIND = 3
"""More inputs with the same fault would only fill the disk."""


class Findings:
    """Collects what `run` returns. `Findings(folder)` makes the folder when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: dict[str, int] = {}
        self.found: list[str] = []

    def note(self, wrong: str, given: bytes, *, what: str) -> None:
        """Stores an input that showed a fault. `what` says how the input was made."""
        # The numbers differ each time, but the fault is the same.
        kind = re.sub(r"[\d.,]+", "#", f"{what}: {wrong}")
        self._times[kind] = self._times.get(kind, 0) + 1
        if self._times[kind] > MOST_OF_A_KIND:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(given).hexdigest()[:16]}.input"
        path.write_bytes(given)
        self.found.append(f"{what}: {wrong} ({len(given):,} bytes: {path})")
