"""The verdicts so far. Each is appended as one line, so that an interrupted run continues where it was."""

import json
from dataclasses import dataclass
from pathlib import Path

NEVER = ""
"""Stands for the test of a mutant that no test noticed."""


@dataclass(slots=True)
class Session:
    """A file with lines `{"id": …, "test": …, "phase": …}`. The last line of an id counts."""

    path: Path

    def read(self) -> dict[str, str]:
        """The test that noticed each mutant, or NEVER."""
        if not self.path.exists():
            return {}
        return {line["id"]: line["test"] for line in map(json.loads, self.path.read_text().splitlines())}

    def note(self, mutant_id: str, test: str | None, summary: str) -> None:
        """Adds a verdict."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"id": mutant_id, "test": test or NEVER, "summary": summary}) + "\n")
