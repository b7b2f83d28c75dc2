"""Golden events: for each type and version, the oldest form with every optional field left out, and its meaning, which never changes."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden_events"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The oldest form, and the same event with all its defaults written out. `name` is the name of the version's JSON Schema."""
    document = json.loads((FOLDER / name).read_text())
    return document["oldest"], document["means"]
