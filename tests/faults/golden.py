"""Golden events: of each type and version, what was written first, with nothing that it may leave out, and what that means for good."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "golden_events"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data as it was written, and the same with everything said; `name` is that of the version's JSON Schema."""
    document = json.loads((FOLDER / name).read_text())
    return document["oldest"], document["means"]
