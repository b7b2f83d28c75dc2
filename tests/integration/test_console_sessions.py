"""Sessions of the console in their table: each by itself, also for a role from which row level security hides no other."""

from collections.abc import Mapping
from datetime import datetime

import pytest
from sqlalchemy import Connection, Engine, text

from orchestrator.batches.model import Role
from orchestrator.storage.console_sessions import begin_session, end_session, remove_ended_sessions, use_session

OURS = b"\x02" * 32
ROLES = (Role.ADMIN, Role.COORDINATOR, Role.AUDITOR)


def used(connection: Connection) -> Mapping[bytes, datetime]:
    """When each session was used."""
    rows = connection.execute(text("SELECT session_hash, used_at FROM orchestrator.console_session"))
    return {bytes(session_hash): at for session_hash, at in rows}


@pytest.fixture
def sessions(owner: Engine) -> list[bytes]:
    """Three sessions, all last used five minutes ago."""
    hashes = [b"\x01" * 32, OURS, b"\x03" * 32]
    with owner.begin() as connection:
        for number, session_hash in enumerate(hashes):
            begin_session(
                connection, session_hash, organization_id=f"org-{number}", subject=f"person-{number}", role=ROLES[number]
            )
        connection.execute(text("UPDATE orchestrator.console_session SET used_at = used_at - interval '5 minutes'"))
    return hashes


def test_the_use_and_the_end_of_a_session_are_its_own(owner: Engine, sessions: list[bytes]) -> None:
    with owner.begin() as connection:
        before = used(connection)
        for extends in (False, True):
            found = use_session(connection, OURS, extends=extends)
            assert found is not None
            assert found[:3] == ("org-1", "person-1", ROLES[1])
            assert (used(connection)[OURS] > before[OURS]) is extends
        after = used(connection)
        assert {each for each in sessions if after[each] != before[each]} == {OURS}
        end_session(connection, OURS)
        assert used(connection) == {each: at for each, at in before.items() if each != OURS}


def test_ended_sessions_that_are_in_use_are_left_for_the_next_time(owner: Engine, sessions: list[bytes]) -> None:
    with owner.begin() as connection:
        connection.execute(text("UPDATE orchestrator.console_session SET used_at = used_at - interval '1 hour'"))
    with owner.connect() as using, owner.begin() as removing:
        using.execute(text("SELECT FROM orchestrator.console_session WHERE session_hash = :ours FOR UPDATE"), {"ours": OURS})
        removing.execute(text("SET LOCAL lock_timeout = 1"))
        assert remove_ended_sessions(removing, max_sessions=10) == 2
    with owner.begin() as connection:
        assert remove_ended_sessions(connection, max_sessions=10) == 1
