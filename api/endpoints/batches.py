"""The endpoints on batches and items: from a request to an operation to a response (docs/http.md)."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from aiohttp import web

from api.endpoints import presentation
from api.endpoints.calls import Call, Reply, Service, key_of_our_own, replayed, seen_edits
from api.http import cursors
from api.http.etag import etag, none_matches, query_hash
from api.http.problems import ProblemError
from api.load.watching import Watch, is_settled
from orchestrator.batches import erasing, operations
from orchestrator.batches.model import (
    Actor,
    AttemptView,
    BatchFilter,
    BatchView,
    Cancelled,
    CorrectedItem,
    ItemFilter,
    ItemValues,
    ItemView,
    NewBatch,
    NewItem,
    RetryRequest,
    StatusView,
    Submitted,
)
from orchestrator.batches.repository import ActivityRepository
from orchestrator.batches.submit import SubmissionRequest
from orchestrator.directory.reading import DirectoryReader, Names
from orchestrator.process import tracing
from orchestrator.registration.port import Prediction
from schemas.api.batches import BatchesQuery, Cancellation, CancellingUpdate, OneBatchQuery, Relabelling, read_update
from schemas.api.items import NamesQuery
from schemas.api.reading import RefusedRequestError, read
from schemas.api.retries import read_retry
from schemas.api.submissions import Submission, read_submission
from schemas.envelope import id_of_trace, is_sampled, new_trace, span_id_of, trace_of
from schemas.ids import new_batch_id
from schemas.mistakes import Mistake
from schemas.paths import API_PATH

# The polling interval: a batch of 25 finishes well within it, and clients that want to know sooner follow the event stream.
LOOK_AGAIN = {"Retry-After": "1"}

# A long poll tells of the progress within this time once, as a stream does. It tells of the end at once.
_GATHERS_S = 0.2


def submit(call: Call) -> Reply:
    """`POST`: 202 and the batch as it stands."""
    started_ns = tracing.now_ns()
    submission = submission_in(call)
    actor = call.actor(submission.organization_id)
    batch = new_batch(submission, actor, trace=call.headers.get("traceparent"))
    idempotency = call.idempotency(
        "submit",
        batch.coordinator_id,
        batch.label,
        batch.override_duplicates,
        [_compared(item, batch) for item in batch.items],
    )

    request = SubmissionRequest(actor, batch, idempotency)
    _admit(call.service, request)
    submitted = _submit(call.service, request, submission.plan)
    call.service.wake_relays()
    if is_sampled(batch.trace_id) and not submitted.replayed:
        _send_span(batch, call.headers.get("traceparent"), started_ns)
    headers = {"Location": f"{API_PATH}/{submitted.batch.batch_id}", **LOOK_AGAIN, **replayed(submitted.replayed)}
    return Reply(202, presentation.batch(submitted.batch), headers)


def _send_span(batch: NewBatch, traceparent: str | None, started_ns: int) -> None:
    """Sends the first span of the batch, if this process sends traces."""
    if (tracer := tracing.current()) is None:
        return
    parent = traceparent if trace_of(traceparent) is not None else None
    place = tracing.beginning(batch.trace_id, batch.batch_id)
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": API_PATH,
        "http.response.status_code": 202,
        "bulkreg.batch_id": str(batch.batch_id),
        "bulkreg.items": len(batch.items),
    }
    tracer.send(
        tracing.Span(
            f"POST {API_PATH}",
            tracing.Kind.SERVER,
            place.trace_id,
            place.span_id,
            parent and span_id_of(parent),
            started_ns,
            tracing.now_ns(),
            attributes,
        )
    )


def _compared(item: NewItem, batch: NewBatch) -> Sequence[object]:
    """The values of an item that are part of its request's hash. The item's own flag is only part of it if it differs from the submission's,
    so that a key from before items had flags still has the same hash."""
    values = item.values
    own_flag = [] if values.override_duplicates == batch.override_duplicates else [values.override_duplicates]
    return (values.identity, values.duration_minutes, values.notes, item.client_reference, *own_flag)


def submission_in(call: Call) -> Submission:
    """The submission in the body. Raises RefusedRequestError, BadJsonError."""
    limit = call.service.settings.max_batch_bytes
    if len(call.body) > limit:
        raise RefusedRequestError(
            [Mistake("", "too_large", f"has {len(call.body):,} bytes; the limit of a batch is {limit:,}, so split it")]
        )
    return read_submission(call.json(), max_items=call.service.settings.max_items)


def _admit(service: Service, request: SubmissionRequest) -> None:
    """Returns if the submission may be stored, or was already stored under its key. Raises ProblemError `overloaded`."""
    try:
        service.admission.admit(len(request.batch.items))
    except ProblemError:
        if not _is_repeated(service, request):
            raise


def _is_repeated(service: Service, request: SubmissionRequest) -> bool:
    """Whether this was accepted before. Then it adds nothing to the backlog, and the caller gets the first response again."""
    idempotency = request.idempotency
    if idempotency is None:
        return False
    used = service.database.read(
        request.actor.organization_id, lambda repository: repository.used_key(request.actor, idempotency)
    )
    return used is not None and used.request_hash == idempotency.request_hash


def _submit(service: Service, request: SubmissionRequest, plan: str | None) -> Submitted:
    if plan is None:
        return service.submissions.submit(request)

    def work(repository: ActivityRepository, prediction: Prediction) -> Submitted:
        hold_to_plan = partial(service.planner.hold_to, plan, repository, prediction, request.actor)
        return operations.submit_bulk_registration(repository, request.actor, request.batch, request.idempotency, hold_to_plan)

    return service.database.change_as_planned(request.actor.organization_id, work)


def new_batch(submission: Submission, actor: Actor, *, trace: str | None) -> NewBatch:
    """Converts the submission for the domain. Without a coordinator_id the caller is the coordinator."""
    coordinator_id = actor.subject if submission.coordinator_id is None else submission.coordinator_id
    override = submission.override_duplicates
    items = [
        NewItem(
            ItemValues(
                item.mentor_id,
                item.activity_type,
                item.activity_date,
                item.duration_minutes,
                item.notes,
                override if item.override_duplicates is None else item.override_duplicates,
            ),
            item.client_reference,
        )
        for item in submission.as_items()
    ]
    return NewBatch(new_batch_id(), coordinator_id, submission.label, override, items, _trace(trace))


def _trace(traceparent: str | None) -> str:
    """The trace of a new batch: the client's, or a new one."""
    of_client = trace_of(traceparent)
    trace_id = secrets.token_hex(16) if of_client is None else id_of_trace(of_client)
    return new_trace(trace_id, sampled=tracing.sampled(trace_id, of_client))


def list_batches(call: Call) -> Reply:
    """`GET`: a page of batches, newest first."""
    query = call.read_query(BatchesQuery)
    actor = call.actor()
    wanted = BatchFilter(
        statuses=query.status,
        needs_attention=query.needs_attention,
        coordinator_id=query.coordinator_id,
        submitted_from=query.submitted_from,
        submitted_to=query.submitted_to,
        label_contains=query.q,
        limit=query.limit,
        page=query.page,
        after=None if query.cursor is None else cursors.decode(query.cursor),
    )
    page = call.service.database.read(
        actor.organization_id, lambda repository: operations.list_batches(repository, actor, wanted)
    )
    next_cursor = None if page.next_after is None else cursors.encode(page.next_after)
    number = query.page if query.cursor is None else None
    return Reply(200, presentation.batches(page, number=number, limit=query.limit, next_cursor=next_cursor))


@dataclass(frozen=True, slots=True)
class _Found:
    reply: Reply
    version: int
    is_settled: bool


async def get_batch(request: web.Request, call: Call) -> web.Response:
    """`GET /{batch_id}`: status and items in one snapshot; 304 if the client already has it, after up to `wait` seconds."""
    query = call.read_query(OneBatchQuery)
    watchers = call.service.watchers
    if not query.wait or "If-None-Match" not in call.headers or request.method == "HEAD":
        return (await _read_batch(call, query, call.service.database.run)).reply.response()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + query.wait
    with watchers.watch(call.batch_id(), call.actor().organization_id) as watch:
        shown = call.actor(), call.tags("If-None-Match")
        known = None if watchers.closing else watchers.recent.unchanged(shown, str(call.batch_id()))
        if known is None:
            found = await _read_batch(call, query, call.service.database.run)
        else:
            # The client continues from what it has just been shown.
            watch.version = known
            await _changed(watch, deadline)
            found = await _read_batch(call, query, watchers.read)
        while found.reply.status == 304 and not found.is_settled and not watchers.closing:
            watch.version = found.version
            if not await _changed(watch, deadline):
                break
            found = await _read_batch(call, query, watchers.read)
        return found.reply.response()


async def _changed(watch: Watch, deadline: float) -> bool:
    """Whether the batch has changed before the deadline, on the event loop's clock. Progress gathers for a moment."""
    loop = asyncio.get_running_loop()
    if not await watch.wait(deadline - loop.time()):
        return False
    await watch.gather(min(_GATHERS_S, deadline - loop.time()))
    return True


async def _read_batch(call: Call, query: OneBatchQuery, run: Callable[[Callable[[], _Found]], Awaitable[_Found]]) -> _Found:
    recent = call.service.watchers.recent
    read_at = recent.clock()
    found = await run(partial(_get_batch, call, query))
    # With names the tag stands for more than the batch.
    if not found.is_settled and not query.names:
        recent.shown((call.actor(), found.reply.headers["ETag"]), str(call.batch_id()), found.version, read_at)
    return found


def _get_batch(call: Call, query: OneBatchQuery) -> _Found:
    batch_id, actor = call.batch_id(), call.actor()
    items = ItemFilter(
        status=query.items,
        after_position=-1 if query.item_cursor is None else int(query.item_cursor),
        limit=query.item_limit,
    )
    view, names = _with_names(call, actor, batch_id, items) if query.names else _without_names(call, actor, batch_id, items)
    # Names change without the batch: they are part of what the tag stands for.
    tag = etag(view.batch, query_hash(query.model_dump(exclude={"wait"}) | {"shown": names}))
    if none_matches(call.tags("If-None-Match"), tag):
        reply = Reply(200, presentation.batch_with_items(view, names), {"ETag": tag, **_private(names)})
    else:
        reply = Reply(304, headers={"ETag": tag})
    return _Found(reply, view.batch.version, is_settled(view.batch))


def _without_names(call: Call, actor: Actor, batch_id: UUID, items: ItemFilter) -> tuple[StatusView, None]:
    view = call.service.database.look(
        actor.organization_id,
        lambda repository: operations.get_bulk_submission_status(repository, actor, batch_id, items),
    )
    return view, None


def _with_names(call: Call, actor: Actor, batch_id: UUID, items: ItemFilter) -> tuple[StatusView, Names]:
    def work(repository: ActivityRepository, directory: DirectoryReader) -> tuple[StatusView, Names]:
        view = operations.get_bulk_submission_status(repository, actor, batch_id, items)
        return view, directory.names(actor, [item.values for item in view.items], [item.error for item in view.items])

    return call.service.database.read_with_directory(actor.organization_id, work)


def _private(names: Names | None) -> dict[str, str]:
    """Names of mentors are health data: no cache keeps them."""
    return {} if names is None else {"Cache-Control": "no-store"}


def update(call: Call) -> Reply:
    """`PUT /{batch_id}`: an edited label, or a cancellation."""
    batch_id, actor, request = call.batch_id(), call.actor(), read_update(call.json())
    if isinstance(request, CancellingUpdate):
        return _cancel(call, actor, batch_id, request.cancellation_reason)
    return _relabel(call, actor, batch_id, request)


def _relabel(call: Call, actor: Actor, batch_id: UUID, request: Relabelling) -> Reply:
    idempotency = key_of_our_own()

    def work(repository: ActivityRepository) -> BatchView:
        return operations.relabel_batch(
            repository, actor, batch_id, request.label, edit_versions=seen_edits(call), idempotency=idempotency
        )

    batch = call.service.database.change(actor.organization_id, work)
    call.service.wake_relays()
    return Reply(200, presentation.batch(batch))


def dismiss(call: Call) -> Reply:
    """`POST /{batch_id}/dismiss`: the batch needs no attention until another of its items fails."""
    batch_id, actor = call.batch_id(), call.actor()
    idempotency = call.idempotency("dismiss", batch_id) or key_of_our_own()
    batch = call.service.database.change(
        actor.organization_id,
        lambda repository: operations.dismiss_batch(repository, actor, batch_id, idempotency=idempotency),
    )
    return Reply(200, presentation.batch(batch))


def cancel(call: Call) -> Reply:
    """`POST /{batch_id}/cancel`: 200 with the final counts."""
    batch_id, actor = call.batch_id(), call.actor()
    request = read(Cancellation, call.json(default={}))
    return _cancel(call, actor, batch_id, request.cancellation_reason)


def _cancel(call: Call, actor: Actor, batch_id: UUID, reason: str | None) -> Reply:
    idempotency = call.idempotency("cancel", batch_id, reason)

    def work(repository: ActivityRepository) -> Cancelled:
        return operations.cancel_batch(
            repository, actor, batch_id, reason, edit_versions=seen_edits(call), idempotency=idempotency
        )

    cancelled = call.service.database.change(actor.organization_id, work)
    call.service.wake_relays()
    body = {**presentation.batch(cancelled.batch), "unresolved": cancelled.unresolved}
    return Reply(200, body, replayed(cancelled.replayed))


def delete(call: Call) -> Reply:
    """`DELETE /{batch_id}`: 204, and the batch is no longer visible; 204 again if it was already deleted."""
    batch_id, actor = call.batch_id(), call.actor()
    call.service.database.change(
        actor.organization_id,
        lambda repository: operations.delete_batch(repository, actor, batch_id, edit_versions=seen_edits(call)),
    )
    call.service.wake_relays()
    return Reply(204)


def retry(call: Call) -> Reply:
    """`POST /{batch_id}/retry`: 202 with how many items begin a new attempt; 200 if none does."""
    batch_id, actor = call.batch_id(), call.actor()
    request = read_retry(call.json(default={}), max_items=call.service.settings.max_items)
    wanted = RetryRequest(
        item_ids=request.item_ids,
        only_retryable=request.only_retryable,
        corrections=[CorrectedItem(corrected.item_id, corrected.correction()) for corrected in request.corrections or ()],
    )
    corrections = [(corrected.item_id, corrected.correction) for corrected in wanted.corrections]
    asked = ("retry", batch_id, wanted.item_ids, wanted.only_retryable, corrections)
    idempotency = call.idempotency(*asked) or key_of_our_own()
    retried = call.service.database.change(
        actor.organization_id,
        lambda repository: operations.retry_failed_items(repository, actor, batch_id, wanted, idempotency),
    )
    call.service.wake_relays()
    headers = {
        "Location": f"{API_PATH}/{batch_id}",
        **(LOOK_AGAIN if retried.retried else {}),
        **replayed(retried.replayed),
    }
    body = {**presentation.batch(retried.batch), "retried": retried.retried}
    return Reply(202 if retried.retried else 200, body, headers)


def erase_notes(call: Call) -> Reply:
    """`DELETE /{batch_id}/items/{item_id}/notes`: 204, and the item's notes are erased everywhere; 204 again if it has none."""
    batch_id, item_id, actor = call.batch_id(), call.item_id(), call.actor()
    call.service.database.change_notes(
        actor.organization_id, lambda repository, notes: erasing.erase_notes(repository, notes, actor, batch_id, item_id)
    )
    return Reply(204)


def get_item(call: Call) -> Reply:
    """`GET /{batch_id}/items/{item_id}`: one item with its history."""
    query, batch_id, item_id, actor = call.read_query(NamesQuery), call.batch_id(), call.item_id(), call.actor()

    def work(repository: ActivityRepository, directory: DirectoryReader) -> tuple[ItemView, Sequence[AttemptView], Names | None]:
        item, attempts = operations.get_item(repository, actor, batch_id, item_id)
        errors = [item.error, *(attempt.error for attempt in attempts)]
        return item, attempts, directory.names(actor, [item.values], errors) if query.names else None

    item, attempts, names = call.service.database.read_with_directory(actor.organization_id, work)
    return Reply(200, presentation.one_item(item, attempts, names), _private(names))
