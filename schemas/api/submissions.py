"""Submissions, in either form."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Annotated, Any

from pydantic import Field

from schemas.api.base import NOT_EMPTY, Request
from schemas.api.reading import read, read_with
from schemas.fields import CalendarDate, Flag, Id, Int32, Label, Notes, canonical_id
from schemas.mistakes import MOST_MISTAKES, Mistake, duplicate_mentors, mentor_type_and_date, pointer, size_mistakes


class SubmissionItem(Request):
    """One mentor's registration."""

    mentor_id: Id
    activity_type: Id
    activity_date: CalendarDate
    duration_minutes: Int32
    notes: Notes | None = None
    client_reference: Annotated[Id | None, Field(description="The sender's own name for the item, e.g. `row 7`.")] = None
    override_duplicates: Annotated[
        Flag | None,
        Field(description="Register this item even if the same activity is already registered. Default: the submission's."),
    ] = None


class SharedActivity(Request):
    """The activity that all mentors of a submission did together."""

    activity_type: Id
    activity_date: CalendarDate
    duration_minutes: Int32
    notes: Notes | None = None


class Submission(Request):
    """The fields that both forms of a submission have in common."""

    organization_id: Annotated[Id | None, Field(description="Required for a service token with several organizations.")] = None
    coordinator_id: Annotated[Id | None, Field(description="The coordinator who registers. Default: the token's subject.")] = None
    label: Label | None = None
    override_duplicates: Annotated[Flag, Field(description="Register items even if the same activity is already registered.")] = (
        False
    )
    plan: Annotated[
        str | None,
        Field(
            description="The plan of a preview. The submission is accepted only if every prediction still holds, else 412.",
            strict=True,
        ),
    ] = None

    def as_items(self) -> Sequence[SubmissionItem]:
        """The items, in either form."""
        raise NotImplementedError


class ItemsSubmission(Submission):
    """A submission that spells out each item."""

    items: Annotated[tuple[SubmissionItem, ...], NOT_EMPTY]

    def as_items(self) -> Sequence[SubmissionItem]:
        """The items as sent."""
        return self.items


class MentorsSubmission(Submission):
    """A submission of one activity that several mentors did together."""

    mentor_ids: Annotated[tuple[Id, ...], NOT_EMPTY]
    activity: SharedActivity

    def as_items(self) -> Sequence[SubmissionItem]:
        """One item for each mentor."""
        shared = dict(self.activity)
        return [
            SubmissionItem.model_construct(mentor_id=mentor_id, client_reference=None, **shared) for mentor_id in self.mentor_ids
        ]


def _mentor(entry: Any) -> Hashable:
    # Non-strings are reported separately and never treated as duplicates.
    return canonical_id(entry) if isinstance(entry, str) else object()


def read_submission(raw: Any, *, max_items: int, most_mistakes: int | None = MOST_MISTAKES) -> Submission:
    """A submission in either form. Raises one RefusedRequestError with all its mistakes."""
    if not isinstance(raw, dict):
        return read(ItemsSubmission, raw)
    is_shared = "items" not in raw and not raw.keys().isdisjoint({"mentor_ids", "activity"})
    field = "mentor_ids" if is_shared else "items"
    entries = raw.get(field)
    sizes: Sequence[Mistake] = ()
    duplicates: Iterable[Mistake] = ()
    if isinstance(entries, list):
        sizes = size_mistakes(pointer(field), entries, max_items)
        if sizes:
            entries = entries[:max_items]
            raw = raw | {field: entries}
        if is_shared:
            duplicates = duplicate_mentors(map(_mentor, entries), lambda position: pointer(field, position))
        else:
            duplicates = duplicate_mentors(
                map(mentor_type_and_date, entries), lambda position: pointer(field, position, "mentor_id")
            )
    if is_shared:
        return read_with(MentorsSubmission, raw, {"mentor_ids": Id}, sizes=sizes, others=duplicates, most=most_mistakes)
    return read_with(ItemsSubmission, raw, {"items": SubmissionItem}, sizes=sizes, others=duplicates, most=most_mistakes)
