"""What is read of a table of registrations."""

from typing import Any

import pytest

from orchestrator.files.mistakes import BadFileError
from orchestrator.files.registrations import read_registrations


def values(name: str, raw: bytes) -> list[dict[str, Any]]:
    return [dict(record.values) for record in read_registrations(name, raw).rows]


def mistakes(name: str, raw: bytes) -> list[str]:
    with pytest.raises(BadFileError) as refusal:
        read_registrations(name, raw)
    return [str(mistake) for mistake in refusal.value.mistakes]
