"""Batches: reading, listing, following, updating and cancelling them."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import AliasChoices, AwareDatetime, BeforeValidator, Field

from schemas.api.base import Request, Response
from schemas.api.items import ItemResponse, ItemState, NamesQuery
from schemas.api.reading import read
from schemas.api.times import Time
from schemas.fields import Id, Label, Reason, one_of
from schemas.statuses import BatchStatus

BatchState = Annotated[BatchStatus, one_of(*BatchStatus)]


def _without_unit(value: Any) -> Any:
    return value.removesuffix("s") if isinstance(value, str) else value


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


def read_update(raw: Any) -> Relabelling | CancellingUpdate:
    """An update. With a status it is a cancellation. Raises RefusedRequestError."""
    if isinstance(raw, dict) and "status" in raw:
        return read(CancellingUpdate, raw)
    return read(Relabelling, raw)


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


class CancelledResponse(BatchResponse, title="CancelledAnswer"):
    """The batch with its final counts. `unresolved` items still await the decision of an external registration service; without one it is 0."""

    unresolved: int


class UpdatedResponse(BatchResponse, title="UpdatedAnswer"):
    """The updated batch. `unresolved` is present if it was cancelled."""

    unresolved: int | None = None


class BatchWithItemsResponse(BatchResponse, title="BatchWithItemsAnswer"):
    """A batch and some of its items, by position, in one snapshot."""

    items: tuple[ItemResponse, ...]
    next_item_cursor: str | None


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


class TicketResponse(Response, title="TicketAnswer"):
    """A ticket that opens one event stream."""

    ticket: str
    expires_at: AwareDatetime


class BatchEvent(BatchResponse, title="BatchEvent"):
    """The data of a server-sent event: the batch, and the items that changed since the last event (all items if `full`)."""

    items: tuple[ItemResponse, ...]
    full: bool
