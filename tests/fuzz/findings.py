"""What a fuzz run has found: each thing once, with the input that showed it kept as a file."""

import hashlib
import re
from pathlib import Path

MOST_OF_A_KIND = 3
"""The same fault found again and again would fill the disk."""


class Findings:
    """Collects what `run` returns. `Findings(folder)` makes the folder when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: dict[str, int] = {}
        self.found: list[str] = []

    def note(self, wrong: str, given: bytes, *, what: str) -> None:
        """Keeps an input that showed something wrong. `what` says how the input was made."""
        # Figures differ each time; the fault is the same.
        kind = re.sub(r"[\d.,]+", "#", f"{what}: {wrong}")
        self._times[kind] = self._times.get(kind, 0) + 1
        if self._times[kind] > MOST_OF_A_KIND:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{hashlib.sha256(given).hexdigest()[:16]}.input"
        path.write_bytes(given)
        self.found.append(f"{what}: {wrong} ({len(given):,} bytes: {path})")
