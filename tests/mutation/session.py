"""What has been judged so far: one line a mutant, appended as it ends, so that an interrupted run goes on where it was."""

import json
from dataclasses import dataclass
from pathlib import Path

NEVER = ""
"""Stands for the test of a mutant that none noticed."""


@dataclass(slots=True)
class Session:
    """A file of lines `{"id": …, "test": …, "phase": …}`; the last of an id counts."""

    path: Path

    def read(self) -> dict[str, str]:
        """The test that noticed each mutant, or NEVER."""
        if not self.path.exists():
            return {}
        return {line["id"]: line["test"] for line in map(json.loads, self.path.read_text().splitlines())}

    def note(self, mutant_id: str, test: str | None, summary: str) -> None:
        """Adds one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"id": mutant_id, "test": test or NEVER, "summary": summary}) + "\n")
