"""Every body of the HTTP contract (docs/http.md): requests and responses.

Requests forbid unknown fields and coerce no values. The models of the responses are for the documentation (OpenAPI) and for the tests, which
compare the API's responses with them. The API itself writes plain dicts, because 10,000 models for a batch of 10,000 items would be too slow.
"""

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError, PydanticKnownError

from schemas.corrections import Correction
from schemas.fields import CalendarDate, Flag, Id, Int32, Label, Name, Notes, Reason, RevocationReason, canonical_id, one_of
from schemas.groupings import Grouping
from schemas.mistakes import (
    MOST_MISTAKES,
    Entries,
    Mistake,
    duplicate_mentors,
    first_of,
    mentor_type_and_date,
    mistakes_in,
    pointer,
    size_mistakes,
)
from schemas.statuses import BatchStatus, ItemStatus, KeptBecause, Outcome

# --- Requests -----------------------------------------------------------------------------------------------------------------


class Request(BaseModel):
    """The base of all requests: an unknown field is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    REPEATABLE: ClassVar[frozenset[str]] = frozenset()
    """The parameters of a query that may be given several times."""


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


# Enough for a letter for each of a million items, and the signature.
MAX_PLAN_LENGTH = 2 * 1024 * 1024

# `size_mistakes` checks this limit, because pydantic's own counts only well-formed entries.
_NOT_EMPTY = Field(json_schema_extra={"minItems": 1})


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
            max_length=MAX_PLAN_LENGTH,
            description="The plan of a preview. The submission is accepted only if every prediction still holds, else 412.",
            strict=True,
        ),
    ] = None

    def as_items(self) -> Sequence[SubmissionItem]:
        """The items, in either form."""
        raise NotImplementedError


class ItemsSubmission(Submission):
    """A submission that spells out each item."""

    items: Annotated[tuple[SubmissionItem, ...], _NOT_EMPTY]

    def as_items(self) -> Sequence[SubmissionItem]:
        """The items as sent."""
        return self.items


class MentorsSubmission(Submission):
    """A submission of one activity that several mentors did together."""

    mentor_ids: Annotated[tuple[Id, ...], _NOT_EMPTY]
    activity: SharedActivity

    def as_items(self) -> Sequence[SubmissionItem]:
        """One item for each mentor."""
        shared = dict(self.activity)
        return [
            SubmissionItem.model_construct(mentor_id=mentor_id, client_reference=None, **shared) for mentor_id in self.mentor_ids
        ]


class TemplateChange(Request):
    """The values of a template: the mentors that a coordinator registers repeatedly, and their activity. It has no notes."""

    name: Name
    mentor_ids: Annotated[tuple[Id, ...], _NOT_EMPTY]
    activity_type: Id
    duration_minutes: Annotated[int, Field(ge=1, le=1_440, strict=True)]
    weekday: Annotated[
        int | None, Field(ge=1, le=7, strict=True, description="1 for Monday to 7 for Sunday; null for no particular day.")
    ] = None


class NewTemplate(TemplateChange):
    """A template to be saved."""

    coordinator_id: Annotated[
        Id | None, Field(description="The coordinator who owns the template. Default: the token's subject.")
    ] = None


class Relabelling(Request):
    """An edited label; null removes it."""

    label: Label | None


class CancellingUpdate(Request):
    """A cancellation in the form of an update."""

    status: Annotated[BatchStatus, one_of(BatchStatus.CANCELLED)]
    cancellation_reason: Reason | None = None


class Cancellation(Request):
    """Why a batch is cancelled. The whole body may be left out; `reason` is short for `cancellation_reason`."""

    cancellation_reason: Annotated[Reason | None, Field(validation_alias=AliasChoices("cancellation_reason", "reason"))] = None


# A field that is left out differs from null: a correction with `"notes": null` removes the notes. Read `model_fields_set`, never these values.
_LEFT_OUT: Any = Field(default_factory=lambda: None)


class ItemCorrection(Request):
    """New values for a failed item; a field that is left out keeps its value."""

    item_id: UUID
    mentor_id: Id = _LEFT_OUT
    activity_type: Id = _LEFT_OUT
    activity_date: CalendarDate = _LEFT_OUT
    duration_minutes: Int32 = _LEFT_OUT
    notes: Notes | None = _LEFT_OUT
    override_duplicates: Flag = _LEFT_OUT

    def correction(self) -> Correction:
        """The fields that were sent."""
        sent = {name: getattr(self, name) for name in sorted(self.model_fields_set - {"item_id"})}
        return cast("Correction", sent)


class Retry(Request):
    """Which failed items to retry: the named ones, or those whose error is retryable, and those with a correction. By default all.

    The whole body may be left out.
    """

    item_ids: Annotated[tuple[UUID, ...], _NOT_EMPTY] | None = None
    only_retryable: Annotated[
        Flag,
        Field(description="Retry items whose error is retryable, and those with a correction. Not together with `item_ids`."),
    ] = False
    corrections: Annotated[
        Annotated[tuple[ItemCorrection, ...], _NOT_EMPTY] | None, Field(description="A correction selects its item.")
    ] = None


class BatchRevocation(Request):
    """Which activities of a batch to revoke, and why: those of the named items, or all."""

    reason: Annotated[RevocationReason, Field(description="For auditors.")]
    item_ids: Annotated[tuple[UUID, ...], _NOT_EMPTY] | None = None
    dry_run: Annotated[Flag, Field(description="Only return what would be revoked; change nothing.")] = False


class ActivityRevocation(Request):
    """Why an activity is revoked."""

    reason: Annotated[RevocationReason, Field(description="For auditors.")]


ItemState = Annotated[ItemStatus, one_of(*ItemStatus)]
BatchState = Annotated[BatchStatus, one_of(*BatchStatus)]


def _without_unit(value: Any) -> Any:
    return value.removesuffix("s") if isinstance(value, str) else value


# pydantic alone would also accept a number of seconds since 1970.
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}.*")


# A time in a query whose `+` was not encoded.
_BLANK_FOR_PLUS = re.compile(r".*:\d{2}(\.\d+)? \d{2}(:?\d{2})?")


def _written_out(value: Any) -> Any:
    if isinstance(value, str) and _BLANK_FOR_PLUS.fullmatch(value):
        raise PydanticCustomError("blank_for_plus", "a blank before the offset")
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise PydanticKnownError("datetime_parsing", {"error": "not written out"})
    return value


def _in_utc(value: datetime) -> datetime:
    """The time in UTC, because PostgreSQL accepts no offset beyond 16 hours, and no year 0 or 10,000."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise PydanticKnownError("datetime_parsing", {"error": "out of range"}) from None


Time = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    BeforeValidator(_written_out, json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": "date-time"})]),
]


class NamesQuery(Request):
    """Whether to return items with names."""

    names: Annotated[
        bool,
        Field(
            description="Add `mentor_name` and `activity_type_name`, and to `duplicate_activity` who registered the other one and when. "
            "Only for mentors in the caller's scope."
        ),
    ] = False


class OneBatchQuery(NamesQuery):
    """Which items of a batch to show, and how long to wait for a change."""

    items: Annotated[ItemState | None, Field(description="Only items in this state.")] = None
    item_limit: Annotated[int, Field(ge=1, le=1_000)] = 200
    item_cursor: Annotated[str | None, Field(pattern=r"^[0-9]{1,7}$", description="`next_item_cursor` of the previous page.")] = (
        None
    )
    wait: Annotated[
        int,
        BeforeValidator(_without_unit, json_schema_input_type=Annotated[str, Field(pattern=r"^([0-9]|[1-5][0-9]|60)s?$")]),
        Field(
            ge=0,
            le=60,
            description="With If-None-Match: how many seconds to wait for a change, e.g. `20s`.",
            # As a query writes it.
            json_schema_extra={"default": "0"},
        ),
    ] = 0


class ExportQuery(Request):
    """What a download contains."""

    notes: Annotated[bool, Field(description="Include the notes, which may contain health data. Not for auditors.")] = False


class EventsQuery(Request):
    """Which items the events of a stream contain, and how to open it when no header can be sent."""

    items: Annotated[
        ItemState | None,
        Field(
            description="Only items in this state: with `failed`, the event of 10,000 items is small. The counts include all items."
        ),
    ] = None
    ticket: Annotated[str | None, Field(max_length=2_000, description="A ticket from `POST …/events`, instead of a token.")] = (
        None
    )


class BatchesQuery(Request):
    """Which batches to list."""

    REPEATABLE: ClassVar[frozenset[str]] = frozenset({"status"})

    status: Annotated[
        tuple[BatchState, ...], Field(description="Only batches in one of these states: `status=partial&status=failed`.")
    ] = ()
    needs_attention: Annotated[
        bool, Field(description="Only batches with failed items, except for cancelled ones, whose items can't be retried.")
    ] = False
    coordinator_id: Id | None = None
    submitted_from: Annotated[Time | None, Field(description="Only batches submitted at this time or later.")] = None
    submitted_to: Annotated[Time | None, Field(description="Only batches submitted before this time.")] = None
    q: Annotated[Label | None, Field(description="Only batches whose label contains this text.")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    page: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    cursor: Annotated[
        str | None, Field(max_length=100, description="`next_cursor` of the previous page; `page` is then ignored.")
    ] = None


_Q = Field(description="Only entries whose name or id contains this text, in any case; o finds ø, ae finds æ, a finds å.")
_SCOPE_OF = Field(
    description="Only entries in this coordinator's scope. Coordinators can name only themselves, which is their default."
)


class DirectoryQuery(Request):
    """Which page of the directory's entries to list, by id."""

    limit: Annotated[int, Field(ge=1, le=1_000)] = 200
    # Enough for the longest id, with characters of four bytes.
    cursor: Annotated[str | None, Field(max_length=600, description="`next_cursor` of the previous page.")] = None


class MentorsQuery(DirectoryQuery):
    """Which mentors to list."""

    coordinator_id: Annotated[Id | None, _SCOPE_OF] = None
    q: Annotated[Label | None, _Q] = None
    chapter_id: Id | None = None
    active_on: Annotated[
        CalendarDate | None, Field(description="The date for `active`; default: today. It leaves nobody out.")
    ] = None


class ChaptersQuery(DirectoryQuery):
    """Which chapters to list."""

    coordinator_id: Annotated[Id | None, _SCOPE_OF] = None


class CoordinatorsQuery(DirectoryQuery):
    """Which coordinators to list."""

    q: Annotated[Label | None, _Q] = None


class TemplatesQuery(Request):
    """Which templates to list."""

    coordinator_id: Annotated[Id | None, Field(description="Only templates of this coordinator.")] = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


_GROUPINGS = "|".join(Grouping)


class _Period(Request):
    """The dates of activities. Both are included."""

    date_from: Annotated[CalendarDate | None, Field(alias="from", description="Only activities on this date or later.")] = None
    date_to: Annotated[CalendarDate | None, Field(alias="to", description="Only activities on this date or earlier.")] = None


class ActivityExportQuery(_Period):
    """Which activities to download."""

    activity_type: Id | None = None
    chapter_id: Annotated[Id | None, Field(description="The mentor's chapter at registration.")] = None
    coordinator_id: Id | None = None
    mentor_id: Id | None = None
    revoked: Annotated[bool | None, Field(description="Only activities that are revoked, or only those that are not.")] = None


class ActivitiesQuery(ActivityExportQuery):
    """Which activities to list."""

    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: Annotated[str | None, Field(max_length=100, description="`next_cursor` of the previous page.")] = None


class ActivitySummaryQuery(_Period):
    """Which activities to sum, and how to group them."""

    group_by: Annotated[
        str,
        Field(
            pattern=f"^({_GROUPINGS})(,({_GROUPINGS}))*$",
            description="One or more of activity_type, month, chapter and coordinator, separated by commas.",
        ),
    ] = "activity_type"

    @property
    def groupings(self) -> frozenset[Grouping]:
        """The ways of grouping the activities."""
        return frozenset(map(Grouping, self.group_by.split(",")))


# --- Reading requests ---------------------------------------------------------------------------------------------------------


class RefusedRequestError(ValueError):
    """A request is invalid. `mistakes` has all mistakes, or the first ones and an entry that says that there are more."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__(f"{len(mistakes)} mistakes")
        self.mistakes = tuple(mistakes)


RequestModel = TypeVar("RequestModel", bound=Request)

_ENTRIES: Entries = {"items": SubmissionItem, "mentor_ids": Id, "item_ids": UUID, "corrections": ItemCorrection}


def read(model: type[RequestModel], raw: Any, *, at: str = "") -> RequestModel:
    """A request from its parsed JSON. Raises RefusedRequestError. `at` is the pointer to `raw` in the whole request."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        found = first_of(mistakes_in(model, raw, error, {}))
        raise RefusedRequestError([each._replace(pointer=at + each.pointer) for each in found]) from error


def _read_with(
    model: type[RequestModel], raw: Any, sizes: Sequence[Mistake], others: Iterable[Mistake], most: int | None
) -> RequestModel:
    """As `read`, for a request with further mistakes that its model can't find. Raises RefusedRequestError with the first `most` of all: the
    sizes, then those of the model, then the others."""
    try:
        request = model.model_validate(raw)
    except ValidationError as error:
        # Don't keep the iterator in a variable: it refers to the error, whose traceback refers to the variables, and that cycle would stay in
        # memory.
        raise RefusedRequestError(first_of(chain(sizes, mistakes_in(model, raw, error, _ENTRIES), others), most)) from error
    if mistakes := first_of(chain(sizes, others), most):
        raise RefusedRequestError(mistakes)
    return request


def read_update(raw: Any) -> Relabelling | CancellingUpdate:
    """An update. With a status it is a cancellation. Raises RefusedRequestError."""
    if isinstance(raw, dict) and "status" in raw:
        return read(CancellingUpdate, raw)
    return read(Relabelling, raw)


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
    return _read_with(MentorsSubmission if is_shared else ItemsSubmission, raw, sizes, duplicates, most_mistakes)


TemplateModel = TypeVar("TemplateModel", bound=TemplateChange)


def read_template(model: type[TemplateModel], raw: Any, *, max_items: int) -> TemplateModel:
    """A template. Raises one RefusedRequestError with all its mistakes."""
    sizes: Sequence[Mistake] = ()
    if isinstance(raw, dict) and isinstance(entries := raw.get("mentor_ids"), list):
        sizes = size_mistakes(pointer("mentor_ids"), entries, max_items)
        raw = raw | {"mentor_ids": entries[:max_items]}
    return _read_with(model, raw, sizes, (), MOST_MISTAKES)


def read_retry(raw: Any, *, max_items: int, most_mistakes: int | None = MOST_MISTAKES) -> Retry:
    """A retry. Raises one RefusedRequestError with all mistakes that can be found without the batch."""
    sizes: list[Mistake] = []
    for field in ("item_ids", "corrections"):
        if isinstance(raw, dict) and isinstance(entries := raw.get(field), list):
            sizes += size_mistakes(pointer(field), entries, max_items)
            raw = raw | {field: entries[:max_items]}
    if isinstance(raw, dict) and raw.get("only_retryable") is True and raw.get("item_ids") is not None:
        # Ambiguous: it could mean the intersection or the union, so it is rejected.
        sizes.append(Mistake("/only_retryable", "not_with_item_ids", "can't be combined with item_ids; send one of them"))
    return _read_with(Retry, raw, sizes, (), most_mistakes)


def read_revocation(raw: Any, *, max_items: int, most_mistakes: int | None = MOST_MISTAKES) -> BatchRevocation:
    """A revocation. Raises one RefusedRequestError with all mistakes that can be found without the batch."""
    sizes: list[Mistake] = []
    if isinstance(raw, dict) and isinstance(entries := raw.get("item_ids"), list):
        sizes += size_mistakes(pointer("item_ids"), entries, max_items)
        raw = raw | {"item_ids": entries[:max_items]}
    return _read_with(BatchRevocation, raw, sizes, (), most_mistakes)


# --- Responses ------------------------------------------------------------------------------------------------------------------


class Response(BaseModel):
    """The base of all responses. Fields may be added, so clients must ignore unknown ones."""

    model_config = ConfigDict(frozen=True)


class ProgressResponse(Response, title="ProgressAnswer"):
    """How far a processing batch is, measured from its own results since its last attempts began."""

    percent: Annotated[float, Field(description="Share of the items that are not pending, rounded down.")]
    items_per_second: Annotated[float, Field(description="Since the submission, or the last retry.")]
    estimated_completion_at: Annotated[AwareDatetime, Field(description="At that speed.")]


class BatchResponse(Response, title="BatchAnswer"):
    """The present state of a batch. `total_items = pending + completed + failed + cancelled`, always."""

    batch_id: UUID
    organization_id: str
    coordinator_id: str
    submitted_by: str
    label: str | None
    status: BatchState
    total_items: int
    pending: int
    completed: int
    failed: int
    cancelled: int
    revoked: Annotated[int, Field(description="How many of the completed items have a revoked activity.")] = 0
    errors_by_code: Annotated[Mapping[str, int], Field(description="How many items failed, by error code.")]
    needs_attention: Annotated[bool, Field(description="Whether a person has to look at failed items.")]
    progress: Annotated[
        ProgressResponse | None,
        Field(description="Only while the batch is processing; null until there is something to measure. Not part of the ETag."),
    ] = None
    submitted_at: AwareDatetime
    completed_at: AwareDatetime | None = None
    cancelled_at: AwareDatetime | None = None
    cancelled_by: str | None = None
    cancellation_reason: str | None = None


class RetriedResponse(BatchResponse, title="RetriedAnswer"):
    """The batch, and how many of its items begin a new attempt."""

    retried: int


class CancelledResponse(BatchResponse, title="CancelledAnswer"):
    """The batch with its final counts. `unresolved` items still await the decision of an external registration service; without one it is 0."""

    unresolved: int


class KeptResponse(Response):
    """An item whose activity was not revoked, and why."""

    item_id: UUID
    code: Annotated[KeptBecause, one_of(*KeptBecause)]


class RevokedResponse(BatchResponse, title="RevokedResponse"):
    """The batch, and the result of the revocation."""

    revoked: Annotated[int, Field(description="How many activities this call revoked.")]
    total_revoked: Annotated[int, Field(description="How many activities of the whole batch this and earlier calls revoked.")]
    already_revoked: Annotated[int, Field(description="How many of the activities had been revoked before this call.")]
    kept: tuple[KeptResponse, ...]


class RevokedActivityResponse(Response):
    """A revoked activity. `revoked` is 1 if this call revoked it, `already_revoked` is 1 if an earlier one did."""

    activity_id: UUID
    batch_id: UUID
    item_id: UUID
    revoked: int
    already_revoked: int
    revoked_at: AwareDatetime
    revoked_by: str
    revocation_reason: str


class UpdatedResponse(BatchResponse, title="UpdatedAnswer"):
    """The updated batch. `unresolved` is present if it was cancelled."""

    unresolved: int | None = None


class ItemErrorResponse(Response, title="ItemErrorAnswer"):
    """Why an item failed."""

    code: str
    message: str
    retryable: bool
    field: str | None = None
    conflicting_activity_id: UUID | None = None
    registered_by_name: Annotated[
        str | None, Field(description="With `names=true`: the coordinator who registered the conflicting activity.")
    ] = None
    registered_at: Annotated[AwareDatetime | None, Field(description="With `names=true`: when it was registered.")] = None


_MENTOR_NAME = Field(
    description="With `names=true`; null if the directory does not have the mentor, or not in the caller's scope."
)
_TYPE_NAME = Field(description="With `names=true`; null if the directory does not have the type.")


class ItemResponse(Response, title="ItemAnswer"):
    """The present state of an item, without its notes."""

    item_id: UUID
    position: int
    mentor_id: str
    activity_type: str
    activity_date: date
    duration_minutes: int
    mentor_name: Annotated[str | None, _MENTOR_NAME] = None
    activity_type_name: Annotated[str | None, _TYPE_NAME] = None
    client_reference: str | None = None
    status: ItemState
    attempt: int
    activity_id: UUID | None = None
    error: ItemErrorResponse | None = None
    revoked_at: Annotated[AwareDatetime | None, Field(description="When the activity was revoked; the item stays `success`.")] = (
        None
    )
    revoked_by: str | None = None
    revocation_reason: str | None = None
    plan_changed: Annotated[bool, Field(description="The item failed although its preview predicted another result.")] = False


class BatchWithItemsResponse(BatchResponse, title="BatchWithItemsAnswer"):
    """A batch and some of its items, by position, in one snapshot."""

    items: tuple[ItemResponse, ...]
    next_item_cursor: str | None


class ActivityResponse(Response):
    """An activity without its notes. `chapter_id` is the mentor's chapter at registration."""

    activity_id: UUID
    mentor_id: str
    coordinator_id: str
    chapter_id: str | None
    activity_type: str
    activity_date: date
    duration_minutes: int
    overrides_duplicate: Annotated[
        bool, Field(description="Registered beside another activity of the same mentor, type and date.")
    ]
    registered_at: AwareDatetime
    revoked_at: AwareDatetime | None
    revoked_by: str | None
    revocation_reason: str | None
    batch_id: UUID
    item_id: UUID


class ActivitiesResponse(Response):
    """A page of activities, the latest date first."""

    data: tuple[ActivityResponse, ...]
    next_cursor: str | None


class ActivityEventResponse(Response):
    """An event in the history of an activity. Fields that do not apply are left out."""

    at: AwareDatetime
    kind: Literal["submitted", "failed", "retried", "registered", "revoked"]
    by: str | None = None
    channel: Annotated[str | None, Field(description="`api` or `event`: how the request came in.")] = None
    attempt: Annotated[int | None, Field(description="Which attempt failed, or began with the retry.")] = None
    error: ItemErrorResponse | None = None
    correction: Annotated[Mapping[str, Any] | None, Field(description="The values that the retry changed, without notes.")] = None
    reason: str | None = None


class OneActivityResponse(ActivityResponse):
    """An activity and its history, in the order of time."""

    history: tuple[ActivityEventResponse, ...]


class SumResponse(Response):
    """The number of activities, and the sum of their minutes."""

    activities: int
    minutes: int


class ActivityGroupResponse(Response):
    """The activities that share these values. Only fields that `group_by` names are present; `chapter_id` is null without a chapter."""

    activity_type: str | None = None
    month: Annotated[str | None, Field(description="Such as `2026-03`.")] = None
    chapter_id: str | None = None
    coordinator_id: str | None = None
    live: SumResponse
    revoked: SumResponse


class ActivitySummaryResponse(Response):
    """Sums by group, and of all groups together."""

    groups: tuple[ActivityGroupResponse, ...]
    live: SumResponse
    revoked: SumResponse


class Pagination(Response):
    """The position of a page in a listing. `page` is null if the request had a cursor."""

    page: int | None
    limit: int
    total: int
    next_cursor: str | None


class BatchesResponse(Response, title="BatchesAnswer"):
    """A page of batches, newest first."""

    data: tuple[BatchResponse, ...]
    pagination: Pagination


class AttemptResponse(Response, title="AttemptAnswer"):
    """A finished attempt, and the correction that began the next one."""

    attempt: int
    submitted: Mapping[str, Any]
    error: ItemErrorResponse
    attempted_at: AwareDatetime
    correction: Mapping[str, Any] | None
    retried_by: str
    retried_at: AwareDatetime


class OneItemResponse(ItemResponse, title="OneItemAnswer"):
    """An item with its notes and its finished attempts."""

    notes: Annotated[str | None, Field(description="Always null for an auditor.")]
    override_duplicates: bool
    history: tuple[AttemptResponse, ...]


class WarningResponse(Response):
    """Something unusual about an item. The item can be registered nevertheless."""

    code: Literal["shorter_than_usual"]
    message: str
    field: str


class PredictedItem(Response):
    """The predicted outcome of one item."""

    position: int
    mentor_id: str
    mentor_name: Annotated[str | None, _MENTOR_NAME] = None
    activity_type_name: Annotated[str | None, _TYPE_NAME] = None
    client_reference: str | None = None
    outcome: Annotated[Outcome, one_of(Outcome.SUCCESS, Outcome.FAILED)]
    error: ItemErrorResponse | None = None
    warnings: tuple[WarningResponse, ...] = ()


class PredictedCounts(Response):
    """How many items would succeed, and how many would fail."""

    success: int
    failed: int


class PreviewResponse(Response, title="PreviewAnswer"):
    """The result of a dry run, and a plan that the submission can be held to for 15 minutes."""

    plan: str
    items: tuple[PredictedItem, ...]
    counts: PredictedCounts


class TemplateResponse(Response):
    """A template of a coordinator."""

    template_id: UUID
    coordinator_id: str
    name: str
    mentor_ids: tuple[str, ...]
    activity_type: str
    duration_minutes: int
    weekday: Annotated[int | None, Field(description="1 for Monday to 7 for Sunday.")]
    version: int
    changed_at: AwareDatetime


class TemplatesResponse(Response):
    """A page of templates, oldest first."""

    data: tuple[TemplateResponse, ...]
    next_cursor: Annotated[str | None, Field(description="The `cursor` of the next page; null on the last one.")]


class FileItemResponse(Response):
    """The readable values of one row. A missing value was not in the file, or is among the mistakes."""

    row: Annotated[int, Field(description="As a spreadsheet program shows it; the header is usually row 1.")]
    client_reference: str
    mentor_id: str | None = None
    mentor_name: Annotated[str | None, Field(description="Instead of `mentor_id`, if the cell has a name.")] = None
    activity_type: str | None = None
    activity_date: date | None = None
    duration_minutes: int | None = None
    notes: str | None = None


class FileMistakeResponse(Response):
    """One mistake in a file."""

    row: Annotated[int | None, Field(description="Null for a mistake of the whole file.")]
    column: Annotated[str | None, Field(description="The title in the file's header.")]
    code: str
    detail: Annotated[str, Field(description="A message that completes `the cell …` or `the file …`.")]
    value: Annotated[str | None, Field(description="The content of the cell; never notes.")]


class ReadFileResponse(Response):
    """The contents of a file. Nothing was stored."""

    items: tuple[FileItemResponse, ...]
    mistakes: tuple[FileMistakeResponse, ...]
    ignored_columns: Annotated[tuple[str, ...], Field(description="Columns with unknown names.")]


class TicketResponse(Response, title="TicketAnswer"):
    """A ticket that opens one event stream."""

    ticket: str
    expires_at: AwareDatetime


class BatchEvent(BatchResponse, title="BatchEvent"):
    """The data of a server-sent event: the batch, and the items that changed since the last event (all items if `full`)."""

    items: tuple[ItemResponse, ...]
    full: bool


class MistakeResponse(Response, title="ProblemEntry"):
    """One mistake in a request."""

    pointer: Annotated[
        str,
        Field(
            description="JSON pointer into the body; it begins with `/query` for the query and with `/headers` for the headers."
        ),
    ]
    code: str
    detail: str


class PlanDifferenceResponse(Response, title="PlanDifferenceAnswer"):
    """An item whose predicted result has changed since the plan. Each result is `success` or an error code."""

    position: int
    mentor_id: str
    planned: str
    now: str


class ProblemResponse(Response, title="ProblemAnswer"):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="The last part of `type`.")]
    errors: tuple[MistakeResponse, ...] | None = None
    differences: Annotated[tuple[PlanDifferenceResponse, ...] | None, Field(description="Only with `plan_changed`.")] = None


class OrganizationResponse(Response):
    """An organization. If the directory does not have it, its name is its id."""

    organization_id: str
    name: str
    time_zone: str
    today: Annotated[date, Field(description="Today's date in that time zone. No activity may have a later date.")]


class LimitsResponse(Response):
    """The limits on a submission. With an external registration service, some limits are up to the service, and null here."""

    max_items: int
    max_batch_bytes: Annotated[int, Field(description="The largest body of a submission.")]
    max_file_bytes: Annotated[int, Field(description="The largest file that is read.")]
    max_notes_length: Annotated[int, Field(description="In characters.")]
    max_duration_minutes: int | None
    earliest_date: Annotated[date | None, Field(description="No activity may be earlier.")]


class FeaturesResponse(Response):
    """What this deployment can do."""

    preview: Annotated[bool, Field(description="Not available with an external registration service.")]
    revoke: Annotated[bool, Field(description="Whether registered activities can be revoked.")]


class MeResponse(Response):
    """The caller, in the organization of the request."""

    subject: str
    name: Annotated[str | None, Field(description="From the directory; null if the directory does not have the caller.")]
    role: Literal["coordinator", "admin", "service", "auditor"]
    organization: OrganizationResponse
    limits: LimitsResponse
    features: FeaturesResponse
    session_ends_at: Annotated[AwareDatetime | None, Field(description="When the token expires; null if it never does.")]


class MentorResponse(Response):
    """A mentor of the directory."""

    mentor_id: str
    name: str
    chapter_id: str
    active_from: Annotated[date | None, Field(description="The first day; null: no limit.")]
    active_until: Annotated[date | None, Field(description="The last day; null: no limit.")]
    active: Annotated[bool, Field(description="Whether the mentor is active on `active_on`, or today.")]


class ChapterResponse(Response):
    """A chapter of the organization."""

    chapter_id: str
    name: Annotated[str, Field(description="The id if the directory has no name.")]


class ActivityTypeResponse(Response):
    """An activity type of the organization."""

    activity_type: str
    name: str
    default_minutes: Annotated[int | None, Field(description="How long it usually takes.")]
    minimum_minutes: Annotated[int | None, Field(description="A preview warns about a shorter activity; it is not refused.")]


class CoordinatorResponse(Response):
    """A coordinator of the organization."""

    coordinator_id: str
    name: str
    role: Annotated[
        Literal["coordinator", "admin", "closed"],
        Field(description="An `admin` may register for everybody, a `closed` coordinator for nobody."),
    ]


_NEXT = Field(description="The `cursor` of the next page; null on the last one.")


class MentorsResponse(Response):
    """A page of mentors, by id."""

    data: tuple[MentorResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class ChaptersResponse(Response):
    """A page of chapters, by id."""

    data: tuple[ChapterResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class ActivityTypesResponse(Response):
    """A page of activity types, by their code."""

    data: tuple[ActivityTypeResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class CoordinatorsResponse(Response):
    """A page of coordinators, by id."""

    data: tuple[CoordinatorResponse, ...]
    next_cursor: Annotated[str | None, _NEXT]


class HealthCheck(Response):
    """One condition of readiness."""

    ok: bool
    detail: str | None = None


class HealthResponse(Response, title="HealthAnswer"):
    """Whether the process is alive or ready, and if not, why not."""

    status: Literal["ok", "unavailable"]
    checks: Mapping[str, HealthCheck]
