"""Which batch a submission on the topic names, for the search for batches that a restored database has forgotten."""

import orjson
import pytest

from consumers.reading.forgotten import _batch_of
from schemas.envelope import Envelope
from schemas.events import BATCH_SUBMITTED
from schemas.ids import new_batch_id

BATCH_ID = new_batch_id()
ITEM = {"position": 0, "mentor_id": "m", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
GOOD = orjson.dumps({"batch_id": BATCH_ID, "organization_id": "org", "coordinator_id": "c", "items": [ITEM], "unknown": "x"})


def submission(value: bytes) -> Envelope:
    return Envelope("event-1", "/services/attendance", BATCH_SUBMITTED, value, None)


@pytest.mark.parametrize("unknown", [b'"x"', b'"\\ud800"', b"1" + b"0" * 60], ids=["a text", "a surrogate", "a huge number"])
def test_every_submission_that_the_splitter_accepts_names_its_batch(unknown: bytes) -> None:
    assert _batch_of(submission(GOOD.replace(b'"x"', unknown))) == BATCH_ID


@pytest.mark.parametrize(
    "value", [b"{", b"[]", b"{}", b'{"batch_id": 5}', b'{"batch_id": "x"}', GOOD.replace(b'"org"', b'"\\ud800"')]
)
def test_what_is_put_aside_names_none(value: bytes) -> None:
    assert _batch_of(submission(value)) is None
