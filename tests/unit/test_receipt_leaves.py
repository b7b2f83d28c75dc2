"""The leaves that the notary writes are those of `orchestrator.receipts.leaf`, byte for byte."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Literal
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.receipts.leaf import leaf_bytes
from orchestrator.storage.receipt_appending import AuditRow, leaf_of, packed_leaves, unpacked_leaves
from tests.support.merkle_log import leaf

_IDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=2))])


@given(
    change=st.sampled_from(["registered", "revoked"]),
    organization_id=_IDS,
    activity_type=_IDS,
    activity_date=st.dates(date(1, 1, 1)),
    minutes=st.integers(1, 2**31 - 1),
    at=st.datetimes(timezones=_ZONES),
    ids=st.tuples(st.uuids(), st.uuids(), st.uuids()),
    persons=st.tuples(_HASHES, _HASHES),
    attempt=st.none() | st.integers(1, 9),
    is_older=st.booleans(),
)
def test_a_row_gives_the_leaf_of_its_values(
    change: Literal["registered", "revoked"],
    organization_id: str,
    activity_type: str,
    activity_date: date,
    minutes: int,
    at: datetime,
    ids: tuple[UUID, UUID, UUID],
    persons: tuple[str, str],
    attempt: int | None,
    is_older: bool,
) -> None:
    activity_id, batch_id, item_id = ids
    row = AuditRow(
        audit_id=7,
        organization_id=organization_id,
        action=change,
        activity_id=str(activity_id),
        mentor_id="a mentor",
        by_id="a coordinator",
        batch_id=str(batch_id),
        at=at,
        activity_type=activity_type,
        activity_date=activity_date,
        duration_minutes=minutes,
        item_id=str(item_id),
        attempt=attempt,
    )
    expected = leaf_bytes(
        leaf(
            change=change,
            activity_id=activity_id,
            organization_id=organization_id,
            mentor=persons[0],
            activity_type=activity_type,
            activity_date=activity_date,
            duration_minutes=minutes,
            by=persons[1],
            at=at,
            batch_id=batch_id,
            item_id=item_id,
            attempt=attempt,
            before_log=is_older,
        )
    )
    written = leaf_of(row, *persons, before_log=7 if is_older else 6)
    assert written == expected
    assert unpacked_leaves(packed_leaves([written, written])) == [expected, expected]
