"""Which timelines of a database a process believes."""

from uuid import uuid4

import pytest

from orchestrator.storage.timelines import FormerPrimaryError, note

HERE, THERE = "db 5432", "copy 5432"


@pytest.fixture
def system() -> str:
    """A database that no other test has seen."""
    return uuid4().hex


def test_a_server_that_writes_an_older_timeline_is_a_former_primary(system: str) -> None:
    note({}, HERE, system, "0000000A")
    with pytest.raises(FormerPrimaryError, match="timeline 9"):
        note({}, HERE, system, "00000009")
    note({}, HERE, system, "0000000A")
    note({}, HERE, system, "0000000B")
    with pytest.raises(FormerPrimaryError):
        note({}, HERE, system, "0000000A")


def test_a_restored_copy_at_another_place_and_another_database_at_the_same_place_have_timelines_of_their_own(system: str) -> None:
    note({}, HERE, system, "0000000A")
    note({}, THERE, system, "00000002")
    note({}, HERE, uuid4().hex, "00000001")
    with pytest.raises(FormerPrimaryError):
        note({}, THERE, system, "00000001")
