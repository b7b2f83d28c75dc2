"""Ids that look the same are the same, wherever they come in."""

import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from api.access.authentication import _identity
from api.access.identity import Identity
from orchestrator.batches.model import Role
from schemas.api.batches import BatchesQuery
from schemas.api.reading import RefusedRequestError, read
from schemas.api.retries import ItemCorrection
from schemas.api.submissions import read_submission
from schemas.events import SubmittedItem
from schemas.fields import Id, Label
from schemas.spelling import canonical

ITEM = {"mentor_id": "kåre-07", "activity_type": "påske", "activity_date": "2026-03-25", "duration_minutes": 60}

# Each spelling of kåre-07 that looks the same on a screen.
DISGUISES = [
    unicodedata.normalize("NFD", "kåre-07"),
    "ka\N{COMBINING RING ABOVE}re-07\N{ZERO WIDTH SPACE}",
    "\N{ZERO WIDTH NO-BREAK SPACE}kåre-07",
    "kå\N{SOFT HYPHEN}re-07",
    "kåre\N{WORD JOINER}-07",
    "\N{LEFT-TO-RIGHT MARK}kåre-07\N{POP DIRECTIONAL FORMATTING}",
    "kåre-0\N{VARIATION SELECTOR-16}7",
    "k\N{ZERO WIDTH JOINER}å\N{ZERO WIDTH NON-JOINER}re-07",
    "kåre-07\N{TAG LATIN SMALL LETTER A}",
]


@pytest.mark.parametrize("written", DISGUISES, ids=ascii)
def test_a_disguised_id_is_the_plain_one_everywhere(written: str) -> None:
    assert canonical(written) == "kåre-07"
    item = ITEM | {"mentor_id": written, "client_reference": written}
    submission = read_submission({"coordinator_id": written, "organization_id": written, "items": [item]}, max_items=1)
    assert (submission.coordinator_id, submission.organization_id) == ("kåre-07", "kåre-07")
    assert {submission.as_items()[0].mentor_id, submission.as_items()[0].client_reference} == {"kåre-07"}
    assert SubmittedItem.model_validate({"position": 0, **item}).mentor_id == "kåre-07"
    correction = {"item_id": "01a20651-14d3-8a55-8b41-6a1a3bd00002", "activity_type": written}
    assert read(ItemCorrection, correction).correction() == {"activity_type": "kåre-07"}
    assert read(BatchesQuery, {"coordinator_id": written}).coordinator_id == "kåre-07"
    made = _identity({"sub": written, "role": "coordinator", "org": written, "exp": time.time()}, leeway_s=0)
    assert (made.subject, made.organizations) == ("kåre-07", ("kåre-07",))
    service = Identity("s", Role.SERVICE, ("kåre-07",), 0.0)
    assert service.actor(header=written).organization_id == "kåre-07"
    assert service.actor(header=written, in_body="kåre-07").organization_id == "kåre-07"


@pytest.mark.parametrize("written", DISGUISES, ids=ascii)
@pytest.mark.parametrize("form", ["items", "mentor_ids"])
def test_one_mentor_in_two_spellings_is_a_duplicate(written: str, form: str) -> None:
    activity = {name: value for name, value in ITEM.items() if name != "mentor_id"}
    bodies: dict[str, Any] = {
        "items": {"items": [ITEM, ITEM | {"mentor_id": written}]},
        "mentor_ids": {"mentor_ids": ["kåre-07", written], "activity": activity},
    }
    with pytest.raises(RefusedRequestError) as refusal:
        read_submission(bodies[form], max_items=2)
    assert [mistake.code for mistake in refusal.value.mistakes] == ["duplicate_mentor"] * 2


def test_blanks_of_every_width_become_plain_ones() -> None:
    assert canonical("kari\N{NO-BREAK SPACE}n\N{NARROW NO-BREAK SPACE}07\N{IDEOGRAPHIC SPACE}") == "kari n 07 "


def test_an_id_of_nothing_visible_is_empty() -> None:
    with pytest.raises(ValidationError, match="at least 1 character"):
        TypeAdapter(Id).validate_python("\N{ZERO WIDTH SPACE}\N{SOFT HYPHEN}")


def test_visible_characters_stay() -> None:
    for text in ("m-001", "Ærlig Østby", "ملاحظة", "点-1", "m\u0601", "A\t1", "１２"):  # noqa: RUF001
        assert canonical(text) == unicodedata.normalize("NFC", text)


def test_a_label_is_composed_and_keeps_the_characters_that_shape_it() -> None:
    family = "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}"
    assert TypeAdapter(Label).validate_python(f"Pa\N{COMBINING RING ABOVE}ske {family}") == f"Påske {family}"


def test_a_text_that_is_costly_to_compose_is_refused_before_that() -> None:
    marks = "\N{COMBINING CEDILLA}\N{COMBINING RING ABOVE}" * 500_000
    with pytest.raises(ValidationError, match="at most 100 characters"):
        TypeAdapter(Id).validate_python(f"a{marks}")


@given(st.text(max_size=20))
def test_spelling_an_id_twice_changes_nothing(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)
