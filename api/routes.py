"""Every route, in one table: the function that serves it, and its documentation."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from api.endpoints import (
    activities,
    batches,
    directory,
    events,
    exports,
    files,
    forgetting,
    me,
    periods,
    previews,
    receipts,
    revocations,
    templates,
    webhooks,
)
from api.endpoints.calls import Call, Reply
from schemas.api.activities import (
    ActivitiesQuery,
    ActivitiesResponse,
    ActivityExportQuery,
    ActivitySummaryQuery,
    ActivitySummaryResponse,
    OneActivityResponse,
)
from schemas.api.base import Request, Response
from schemas.api.batches import (
    BatchesQuery,
    BatchesResponse,
    BatchResponse,
    BatchWithItemsResponse,
    Cancellation,
    CancelledResponse,
    CancellingUpdate,
    EventsQuery,
    ExportQuery,
    OneBatchQuery,
    Relabelling,
    TicketResponse,
    UpdatedResponse,
)
from schemas.api.directory import (
    ActivityTypesResponse,
    ChaptersQuery,
    ChaptersResponse,
    CoordinatorsQuery,
    CoordinatorsResponse,
    DirectoryQuery,
    MentorsQuery,
    MentorsResponse,
)
from schemas.api.files import ReadFileResponse
from schemas.api.forgetting import ForgettingResponse, MentorToForget
from schemas.api.items import NamesQuery, OneItemResponse
from schemas.api.me import MeResponse
from schemas.api.periods import PeriodClosing, PeriodHistoryResponse, PeriodQuery, PeriodResponse
from schemas.api.previews import PreviewResponse
from schemas.api.receipts import CheckpointResponse, ConsistencyQuery, ConsistencyResponse, ReceiptKeysResponse, ReceiptResponse
from schemas.api.retries import RetriedResponse, Retry
from schemas.api.revocations import ActivityRevocation, BatchRevocation, RevokedActivityResponse, RevokedResponse
from schemas.api.submissions import ItemsSubmission, MentorsSubmission
from schemas.api.templates import NewTemplate, TemplateChange, TemplateResponse, TemplatesQuery, TemplatesResponse
from schemas.api.webhooks import (
    DeliveriesQuery,
    DeliveriesResponse,
    DeliveryResponse,
    NewWebhook,
    WebhookChangesQuery,
    WebhookChangesResponse,
    WebhookResponse,
    WebhooksResponse,
    WebhookWithSecretResponse,
)
from schemas.paths import (
    ACTIVITIES_PATH,
    API_PATH,
    API_ROOT,
    CLOSED_PERIOD_PATH,
    FORGETTINGS_PATH,
    RECEIPTS_PATH,
    WEBHOOK_CHANGES_PATH,
    WEBHOOKS_PATH,
)

Endpoint = Callable[[Call], Reply]
"""Runs in a worker thread, where it may block."""

Conversation = Callable[[web.Request, Call], Awaitable[web.StreamResponse]]
"""Runs on the event loop for as long as the response takes, and hands blocking work to a thread."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `name` is its operation id; the summary is the first line of its function's docstring."""

    method: str
    path: str
    name: str
    endpoint: Endpoint | None = None
    conversation: Conversation | None = None
    changes: bool = False
    """Whether it changes something. Auditors may not call it."""
    takes_ticket: bool = False
    """Whether a ticket is accepted instead of a token."""
    is_download: bool = False
    """Whether a link of the console leads here, so that the browser sends no header of ours."""
    query: type[Request] | None = None
    bodies: Sequence[type[Request]] = ()
    """The forms of the request body."""
    body_is_optional: bool = False
    file_types: Sequence[str] = ()
    """The content types of a body that is a file instead of JSON."""
    request_headers: Sequence[str] = ()
    responses: Mapping[int, type[Response] | str | None] = field(default_factory=dict)
    """By status: a model in JSON, another content type, or no body."""
    refusals: Sequence[str] = ()
    """The codes of problems specific to this route (`api.http.problems`)."""

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        served_by = self.endpoint or self.conversation
        return ((served_by.__doc__ or "").partition("\n")[0]).partition(": ")[2]


TEMPLATES = API_ROOT + "/templates"
DIRECTORY = API_ROOT + "/directory"
BATCH = API_PATH + "/{batch_id}"
WEBHOOK = WEBHOOKS_PATH + "/{webhook_id}"
_SUBMISSIONS = (ItemsSubmission, MentorsSubmission)
_NOT_ONES_OWN = ("not_your_coordinator_id", "coordinator_unknown", "organization_differs")
_NOT_HERE = ("preview_unavailable",)
_NO_WEBHOOKS = ("webhooks_unavailable",)
_NO_ACTIVITIES = ("activities_unavailable",)
_PLAN = ("plan_changed", *_NOT_HERE)
_KEY = ("Idempotency-Key",)
_REUSED = ("idempotency_key_reused",)
_MATCH = ("If-Match",)
_CHANGED = ("changed_since",)
_NOT_CHANGED = ("If-None-Match",)
_NOT_ONES_SCOPE = ("not_your_scope", "coordinator_unknown")

ROUTES: Sequence[Route] = (
    Route("GET", API_ROOT + "/me", "getMe", me.me, responses={200: MeResponse}),
    Route(
        "GET",
        CLOSED_PERIOD_PATH,
        "getClosedPeriod",
        periods.get,
        query=PeriodQuery,
        request_headers=_NOT_CHANGED,
        responses={200: PeriodHistoryResponse, 304: None},
    ),
    Route(
        "PUT",
        CLOSED_PERIOD_PATH,
        "changeClosedPeriod",
        periods.change,
        changes=True,
        bodies=(PeriodClosing,),
        request_headers=(*_KEY, *_MATCH),
        responses={200: PeriodResponse},
        refusals=("role_may_not", "period_changed", *_REUSED),
    ),
    Route(
        "GET",
        TEMPLATES,
        "listTemplates",
        templates.list_templates,
        query=TemplatesQuery,
        request_headers=_NOT_CHANGED,
        responses={200: TemplatesResponse, 304: None},
    ),
    Route(
        "POST",
        TEMPLATES,
        "createTemplate",
        templates.create,
        changes=True,
        bodies=(NewTemplate,),
        request_headers=_KEY,
        responses={201: TemplateResponse},
        refusals=("not_your_coordinator_id", "coordinator_unknown", "template_deleted", *_REUSED),
    ),
    Route(
        "GET",
        TEMPLATES + "/{template_id}",
        "getTemplate",
        templates.get,
        request_headers=_NOT_CHANGED,
        responses={200: TemplateResponse, 304: None},
    ),
    Route(
        "PUT",
        TEMPLATES + "/{template_id}",
        "replaceTemplate",
        templates.replace,
        changes=True,
        bodies=(TemplateChange,),
        request_headers=_MATCH,
        responses={200: TemplateResponse},
        refusals=("template_changed",),
    ),
    Route(
        "DELETE",
        TEMPLATES + "/{template_id}",
        "deleteTemplate",
        templates.delete,
        changes=True,
        request_headers=_MATCH,
        responses={204: None},
        refusals=("template_changed",),
    ),
    Route(
        "GET",
        DIRECTORY + "/mentors",
        "listMentors",
        directory.mentors,
        query=MentorsQuery,
        request_headers=_NOT_CHANGED,
        responses={200: MentorsResponse, 304: None},
        refusals=_NOT_ONES_SCOPE,
    ),
    Route(
        "GET",
        DIRECTORY + "/chapters",
        "listChapters",
        directory.chapters,
        query=ChaptersQuery,
        request_headers=_NOT_CHANGED,
        responses={200: ChaptersResponse, 304: None},
        refusals=_NOT_ONES_SCOPE,
    ),
    Route(
        "GET",
        DIRECTORY + "/activity-types",
        "listActivityTypes",
        directory.activity_types,
        query=DirectoryQuery,
        request_headers=_NOT_CHANGED,
        responses={200: ActivityTypesResponse, 304: None},
    ),
    Route(
        "GET",
        DIRECTORY + "/coordinators",
        "listCoordinators",
        directory.coordinators,
        query=CoordinatorsQuery,
        request_headers=_NOT_CHANGED,
        responses={200: CoordinatorsResponse, 304: None},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        FORGETTINGS_PATH,
        "forgetMentor",
        forgetting.ask,
        changes=True,
        bodies=(MentorToForget,),
        responses={202: ForgettingResponse},
        refusals=("role_may_not", "mentor_in_running_batch", "mentor_coordinates", "mentor_unknown"),
    ),
    Route(
        "GET",
        FORGETTINGS_PATH + "/{forgetting_id}",
        "getForgetting",
        forgetting.get,
        responses={200: ForgettingResponse},
        refusals=("role_may_not", "forgetting_not_found"),
    ),
    Route(
        "POST",
        API_PATH,
        "submit",
        batches.submit,
        changes=True,
        bodies=_SUBMISSIONS,
        request_headers=(*_KEY, "traceparent"),
        responses={202: BatchResponse},
        refusals=(*_NOT_ONES_OWN, *_REUSED, *_PLAN, "batch_deleted"),
    ),
    Route(
        "GET",
        API_PATH,
        "listBatches",
        batches.list_batches,
        query=BatchesQuery,
        responses={200: BatchesResponse},
    ),
    Route(
        "POST",
        API_PATH + "/preview",
        "preview",
        previews.preview,
        changes=True,
        query=NamesQuery,
        bodies=_SUBMISSIONS,
        responses={200: PreviewResponse},
        refusals=(*_NOT_ONES_OWN, *_NOT_HERE),
    ),
    Route(
        "POST",
        API_PATH + "/read-file",
        "readFile",
        conversation=files.read_file,
        changes=True,
        file_types=tuple(files.CONTENT_TYPES),
        responses={200: ReadFileResponse},
        refusals=("not_a_table", "file_too_costly"),
    ),
    Route(
        "GET",
        BATCH,
        "getBatch",
        conversation=batches.get_batch,
        query=OneBatchQuery,
        request_headers=_NOT_CHANGED,
        responses={200: BatchWithItemsResponse, 304: None},
    ),
    Route(
        "PUT",
        BATCH,
        "updateBatch",
        batches.update,
        changes=True,
        bodies=(Relabelling, CancellingUpdate),
        request_headers=(*_KEY, *_MATCH),
        responses={200: UpdatedResponse},
        refusals=(*_CHANGED, *_REUSED, "batch_finished"),
    ),
    Route(
        "DELETE",
        BATCH,
        "deleteBatch",
        batches.delete,
        changes=True,
        request_headers=_MATCH,
        responses={204: None},
        refusals=(*_CHANGED, "batch_running"),
    ),
    Route(
        "POST",
        BATCH + "/retry",
        "retryBatch",
        batches.retry,
        changes=True,
        bodies=(Retry,),
        body_is_optional=True,
        request_headers=_KEY,
        responses={202: RetriedResponse, 200: RetriedResponse},
        refusals=(*_REUSED, "batch_cancelled", "item_not_failed", "item_retried_already", "item_in_doubt"),
    ),
    Route(
        "POST",
        BATCH + "/cancel",
        "cancelBatch",
        batches.cancel,
        changes=True,
        bodies=(Cancellation,),
        body_is_optional=True,
        request_headers=(*_KEY, *_MATCH),
        responses={200: CancelledResponse},
        refusals=(*_CHANGED, *_REUSED, "batch_finished"),
    ),
    Route(
        "POST",
        BATCH + "/revoke",
        "revokeBatch",
        revocations.revoke_batch,
        changes=True,
        bodies=(BatchRevocation,),
        request_headers=(*_KEY, *_MATCH),
        responses={200: RevokedResponse},
        refusals=(*_CHANGED, *_REUSED, "batch_running", "revocation_unavailable"),
    ),
    Route(
        "GET",
        ACTIVITIES_PATH,
        "listActivities",
        activities.list_activities,
        query=ActivitiesQuery,
        responses={200: ActivitiesResponse},
        refusals=_NO_ACTIVITIES,
    ),
    Route(
        "GET",
        ACTIVITIES_PATH + ".csv",
        "downloadActivitiesCsv",
        conversation=activities.download_csv,
        query=ActivityExportQuery,
        responses={200: "text/csv"},
        refusals=_NO_ACTIVITIES,
    ),
    Route(
        "GET",
        ACTIVITIES_PATH + ".ndjson",
        "downloadActivitiesNdjson",
        conversation=activities.download_ndjson,
        query=ActivityExportQuery,
        responses={200: "application/x-ndjson"},
        refusals=_NO_ACTIVITIES,
    ),
    # Before the path with an id, which it would fit too.
    Route(
        "GET",
        ACTIVITIES_PATH + "/summary",
        "summarizeActivities",
        activities.summarize_activities,
        query=ActivitySummaryQuery,
        responses={200: ActivitySummaryResponse},
        refusals=_NO_ACTIVITIES,
    ),
    Route(
        "GET",
        ACTIVITIES_PATH + "/{activity_id}",
        "getActivity",
        activities.get_activity,
        responses={200: OneActivityResponse},
        refusals=(*_NO_ACTIVITIES, "activity_not_found"),
    ),
    Route(
        "POST",
        ACTIVITIES_PATH + "/{activity_id}/revoke",
        "revokeActivity",
        revocations.revoke_activity,
        changes=True,
        bodies=(ActivityRevocation,),
        request_headers=_KEY,
        responses={200: RevokedActivityResponse},
        refusals=(*_REUSED, "activity_not_found", "period_closed", "revocation_window_over", "revocation_unavailable"),
    ),
    Route(
        "POST",
        BATCH + "/dismiss",
        "dismissBatch",
        batches.dismiss,
        changes=True,
        request_headers=_KEY,
        responses={200: BatchResponse},
        refusals=_REUSED,
    ),
    Route(
        "GET",
        WEBHOOKS_PATH,
        "listWebhooks",
        webhooks.list_webhooks,
        responses={200: WebhooksResponse},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        WEBHOOKS_PATH,
        "createWebhook",
        webhooks.create,
        changes=True,
        bodies=(NewWebhook,),
        request_headers=_KEY,
        responses={201: WebhookWithSecretResponse},
        refusals=("role_may_not", "too_many_webhooks", "webhook_deleted", *_NO_WEBHOOKS, *_REUSED),
    ),
    Route(
        "GET",
        WEBHOOK_CHANGES_PATH,
        "listWebhookChanges",
        webhooks.list_changes,
        query=WebhookChangesQuery,
        responses={200: WebhookChangesResponse},
        refusals=("role_may_not",),
    ),
    Route("GET", WEBHOOK, "getWebhook", webhooks.get, responses={200: WebhookResponse}, refusals=("role_may_not",)),
    Route(
        "DELETE",
        WEBHOOK,
        "deleteWebhook",
        webhooks.delete,
        changes=True,
        responses={204: None},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        WEBHOOK + "/rotate-secret",
        "rotateWebhookSecret",
        webhooks.rotate_secret,
        changes=True,
        request_headers=_KEY,
        responses={200: WebhookWithSecretResponse},
        refusals=("role_may_not", *_NO_WEBHOOKS, *_REUSED),
    ),
    Route(
        "POST",
        WEBHOOK + "/enable",
        "enableWebhook",
        webhooks.enable,
        changes=True,
        responses={200: WebhookResponse},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        WEBHOOK + "/test",
        "testWebhook",
        webhooks.send_test,
        changes=True,
        responses={201: DeliveryResponse},
        refusals=("role_may_not", "webhook_disabled"),
    ),
    Route(
        "GET",
        WEBHOOK + "/deliveries",
        "listDeliveries",
        webhooks.list_deliveries,
        query=DeliveriesQuery,
        responses={200: DeliveriesResponse},
        refusals=("role_may_not",),
    ),
    Route(
        "POST",
        WEBHOOK + "/deliveries/{event_id}/redeliver",
        "redeliver",
        webhooks.redeliver,
        changes=True,
        responses={200: DeliveryResponse},
        refusals=("role_may_not", "webhook_disabled", "delivery_not_found"),
    ),
    Route(
        "GET",
        BATCH + "/receipt",
        "getReceipt",
        receipts.get_receipt,
        is_download=True,
        responses={200: ReceiptResponse},
        refusals=("batch_running", "nothing_registered", "receipt_not_ready", "receipts_unavailable", "receipts_unsigned"),
    ),
    Route(
        "GET",
        RECEIPTS_PATH + "/checkpoint",
        "getCheckpoint",
        receipts.get_checkpoint,
        responses={200: CheckpointResponse},
        refusals=("receipt_not_ready", "receipts_unsigned"),
    ),
    Route(
        "GET",
        RECEIPTS_PATH + "/consistency",
        "getConsistency",
        receipts.get_consistency,
        query=ConsistencyQuery,
        responses={200: ConsistencyResponse},
        refusals=("receipt_not_ready", "receipts_unsigned"),
    ),
    Route("GET", RECEIPTS_PATH + "/keys", "getReceiptKeys", receipts.get_keys, responses={200: ReceiptKeysResponse}),
    Route("POST", BATCH + "/events", "issueTicket", events.issue_ticket, responses={201: TicketResponse}),
    Route(
        "GET",
        BATCH + "/events",
        "followBatch",
        conversation=events.stream,
        takes_ticket=True,
        query=EventsQuery,
        request_headers=("Last-Event-ID",),
        responses={200: "text/event-stream", 204: None},
    ),
    Route(
        "GET",
        BATCH + "/results.csv",
        "downloadCsv",
        conversation=exports.download_csv,
        is_download=True,
        query=ExportQuery,
        responses={200: "text/csv"},
        refusals=("role_may_not",),
    ),
    Route(
        "GET",
        BATCH + "/results.ndjson",
        "downloadNdjson",
        conversation=exports.download_ndjson,
        is_download=True,
        query=ExportQuery,
        responses={200: "application/x-ndjson"},
        refusals=("role_may_not",),
    ),
    Route(
        "GET",
        BATCH + "/items/{item_id}",
        "getItem",
        batches.get_item,
        query=NamesQuery,
        responses={200: OneItemResponse},
        refusals=("item_not_found",),
    ),
    Route(
        "DELETE",
        BATCH + "/items/{item_id}/notes",
        "eraseNotes",
        batches.erase_notes,
        changes=True,
        responses={204: None},
        refusals=("item_not_found", "item_in_doubt"),
    ),
)
