"""A correction is one type from the request body to the history (schemas/corrections.py)."""

from datetime import date

import pytest
from pydantic import ValidationError

from orchestrator.batches.model import ItemError
from orchestrator.replay.rebuild import _correction
from orchestrator.storage.people import ForgottenPeople
from schemas.api.reading import read
from schemas.api.retries import ItemCorrection
from schemas.corrections import CORRECTION
from schemas.events import RetriedItem

ITEM_ID = "01a20651-14d3-8a55-8b41-6a1a3bd00002"
SENT = {"activity_date": "2026-03-25", "notes": None, "mentor_id": "m"}


def test_the_sent_correction_is_the_one_in_the_history() -> None:
    """Absent fields stay absent, and null notes stay null."""
    sent = read(ItemCorrection, {"item_id": ITEM_ID, **SENT}).correction()
    assert sent == {"activity_date": date(2026, 3, 25), "notes": None, "mentor_id": "m"}
    assert CORRECTION.validate_python(CORRECTION.dump_python(sent, mode="json")) == sent


@pytest.mark.parametrize("wrong", [{"duration_minutes": "60"}, {"mentor_id": ""}, {"mentor_id": None}, {"activity_date": 1}])
def test_a_value_that_no_request_could_have_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CORRECTION.validate_python(wrong)


@pytest.mark.parametrize(
    ("said", "read_as"),
    [
        (None, None),
        ({}, None),
        ({"mentor_id": None, "notes": "private", "of a later version": 1}, None),
        (SENT, '{"mentor_id":"m","activity_date":"2026-03-25"}'),
    ],
)
def test_a_replay_reads_the_correction_of_an_event(said: dict[str, object] | None, read_as: str | None) -> None:
    """It has no notes, and null means the same as an absent field."""
    assert _correction(RetriedItem(position=0, attempt=2, correction=said), "org", ForgottenPeople(None)) == read_as


def test_an_error_is_read_from_a_row_as_it_was_stored() -> None:
    """Its fields have one order, whatever the order in the row, so that a repeated event has the same bytes."""
    error = ItemError("duplicate_activity", "It exists", retryable=False, conflicting_activity_id=ITEM_ID)
    assert list(error.as_json()) == ["code", "conflicting_activity_id", "message", "retryable"]
    assert ItemError.from_json(dict(reversed(error.as_json().items()))) == error
