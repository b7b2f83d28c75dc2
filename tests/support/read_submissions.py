"""What is read of a file of submissions, and the items that tests compare with one."""

import json
from typing import Any

import pytest

from orchestrator.files.mistakes import BadFileError
from orchestrator.files.submissions import Given, read_submissions

NOTHING = Given()
ITEM = {"mentor_id": "m-1", "activity_type": "x", "activity_date": "2026-03-25", "duration_minutes": 60}


def lines(*documents: Any) -> bytes:
    return "\n".join(json.dumps(each) for each in documents).encode()


def mistakes(name: str, raw: bytes, given: Given = NOTHING) -> list[str]:
    with pytest.raises(BadFileError) as refusal:
        read_submissions(name, raw, given)
    return [str(mistake) for mistake in refusal.value.mistakes]


def item_of(item_id: str, **values: Any) -> dict[str, Any]:
    """An item as the results contain it."""
    return {"item_id": item_id, "status": "failed", **ITEM, "notes": None} | values
