"""Every metric of the product: name, meaning, labels. Label values are our own roles and codes, never values from records."""

from importlib.metadata import version

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("bulkreg_records_handled", "Records whose effect is durable and whose events are acknowledged.", ["role"])
BATCH_RECORDS = Histogram(
    "bulkreg_micro_batch_records",
    "Records in one micro-batch.",
    ["role"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 200, 500),
)
# From one commit's fsync to a statement that is about to time out.
STEP_SECONDS = Histogram(
    "bulkreg_micro_batch_step_seconds",
    "Duration of a step of the loop for one micro-batch.",
    ["role", "step"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
DEAD_LETTERS = Counter("bulkreg_dead_letters", "Records that went to the dead-letter topic.", ["role", "reason"])
LATER_EVENTS = Counter(
    "bulkreg_later_events",
    "Events of a type that a later version has added, which the role skipped; upgrade the role if this number keeps rising.",
    ["role"],
)
RETRIES = Counter("bulkreg_micro_batch_retries", "Micro-batches that were retried; why: database, delivery.", ["role", "why"])
BISECTIONS = Counter("bulkreg_micro_batch_bisections", "Micro-batches split in two because one record fails.", ["role"])
POSTPONED_RECORDS = Gauge(
    "bulkreg_postponed_records",
    "Records that failed for a reason that may not be their own, and are retried behind others; see records_postponed in the log.",
    ["role"],
)
UNDELIVERABLE = Counter(
    "bulkreg_undeliverable_events",
    "Events that Kafka will never accept as they are; they are not sent again.",
    ["role", "topic"],
)
ITEMS_DECIDED = Counter(
    "bulkreg_items_decided",
    "Items whose outcome was stored; outcome: success, failed, cancelled; code: the error of a failed item, else empty.",
    ["outcome", "code"],
)
# The limits of the objectives are among the buckets: 5 s for a small batch, 120 s across a failure.
BATCH_COMPLETION_SECONDS = Histogram(
    "bulkreg_batch_completion_seconds",
    "Time from a batch's submission, or its last retry, to its end; lane: small, bulk (more than BULKREG_BULK_THRESHOLD_ITEMS items).",
    ["lane"],
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600),
)
RECORD_AGE_SECONDS = Gauge(
    "bulkreg_record_age_seconds", "Time from the append of the last micro-batch's oldest record to its completion.", ["role"]
)
REGISTRATION_REQUESTS = Counter(
    "bulkreg_registration_requests",
    "Requests to an external registration service; answer: registered, refused, withdrawn, revoked, revocation_refused, unknown.",
    ["answer"],
)
REGISTRATION_BREAKER_OPEN = Gauge(
    "bulkreg_registration_breaker_open", "1 while registration waits for an external service that does not respond, else 0."
)
OUTBOX_PUBLISHED = Counter("bulkreg_outbox_published", "Outbox rows that were published and deleted.")
OUTBOX_FAILURES = Counter(
    "bulkreg_outbox_failures", "Failures of the relay; why: database, delivery (of one row), broker (none responds).", ["why"]
)
OUTBOX_HELD = Counter("bulkreg_outbox_held", "Outbox rows that were held because their place is in trouble.", ["topic"])
OUTBOX_REFUSED = Counter("bulkreg_outbox_refused", "Outbox rows that Kafka will never accept as they are.", ["topic"])
OUTBOX_PLACES_IN_TROUBLE = Gauge(
    "bulkreg_outbox_places_in_trouble", "Topics and partitions that this relay can't publish to now."
)
OUTBOX_SLOTS = Gauge("bulkreg_outbox_slots", "Slots of the outbox that this process owns.")
OUTBOX_OLDEST_SECONDS = Gauge("bulkreg_outbox_oldest_seconds", "How long the oldest row in the slots of this process has waited.")
QUEUE_RECORDS = Gauge(
    "bulkreg_queue_records", "Records of a topic that its consumers have not handled, as of the last sweep.", ["topic"]
)
QUEUE_STANDS_SECONDS = Gauge(
    "bulkreg_queue_stands_seconds",
    "How long a partition of the topic has had records waiting without moving, as of the last sweep.",
    ["topic"],
)
SWEEPER_RESENDS = Counter("bulkreg_sweeper_resends", "Items that the sweeper sent again because their command was lost.")
ROLE_STARTS = Gauge("bulkreg_role_starts", "Starts of the role on this host in the 10 minutes up to its last start.", ["role"])
SWEEP_FAILURES = Counter(
    "bulkreg_sweep_failures", "Steps of a sweep that failed for every batch; the next sweep retries them.", ["step"]
)
SWEEP_SET_ASIDE = Counter(
    "bulkreg_sweep_set_aside", "Batches that a step of a sweep skipped because they make it fail.", ["step"]
)
RECEIPT_LEAVES_APPENDED = Counter("bulkreg_receipt_leaves_appended", "Leaves that this notary added to the logs of receipts.")
RECEIPT_CHECKPOINTS_SIGNED = Counter("bulkreg_receipt_checkpoints_signed", "Checkpoints that this notary signed.")
RECEIPT_CHECKPOINTS_IGNORED = Counter(
    "bulkreg_receipt_checkpoints_ignored",
    "Records of the topic lifecycle that say they are checkpoints, and that no known key has signed.",
)
WEBHOOK_ATTEMPTS = Counter(
    "bulkreg_webhook_attempts",
    "Attempts to deliver an event to a webhook, by their result: `delivered`, or the problem.",
    ["result"],
)
API_SECONDS = Histogram(
    "bulkreg_api_request_seconds",
    "Time from a request's headers to the end of its response (for streams and long polls: until the client stops following).",
    ["method", "route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
API_REFUSED = Counter(
    "bulkreg_api_refused",
    "Requests that were refused only for now; why: the problem's code.",
    ["why"],
)
DATABASE_POOL_IN_USE = Gauge("bulkreg_database_pool_in_use", "Connections of the API's pool that requests use now.")
BUILD_INFO = Gauge("bulkreg_build_info", "1, with the version of the program.", ["version"])
BUILD_INFO.labels(version("bulk-registration-orchestrator")).set(1)

# The gauges below describe the whole product or the process's loops. They are read when somebody asks for the metrics, so no registry holds
# them: `consumers/upkeep/observer.py` and `compose/roles.py` do.
LOOP_AGE_SECONDS = Gauge(
    "bulkreg_loop_age_seconds", "Time since the role's loop last completed an iteration.", ["role"], registry=None
)
OUTBOX_ROWS = Gauge(
    "bulkreg_outbox_rows", "Rows of the whole outbox, counted up to 100,000. Served by the sweeper.", registry=None
)
OUTBOX_OLDEST_AGE_SECONDS = Gauge(
    "bulkreg_outbox_oldest_age_seconds",
    "How long the oldest row of the whole outbox has waited. Served by the sweeper.",
    registry=None,
)
BACKLOG_ITEMS = Gauge("bulkreg_backlog_items", "Accepted items that are not done. Served by the sweeper.", registry=None)
BACKLOG_LIMIT_ITEMS = Gauge(
    "bulkreg_backlog_limit_items",
    "The backlog at which the API refuses submissions (BULKREG_MAX_BACKLOG_ITEMS). Served by the sweeper.",
    registry=None,
)
OLDEST_UNFINISHED_BATCH_SECONDS = Gauge(
    "bulkreg_oldest_unfinished_batch_seconds",
    "Time since the submission, or the last retry, of the processing batch that waits longest. Served by the sweeper.",
    registry=None,
)
COMMIT_WAIT_SECONDS = Gauge(
    "bulkreg_commit_wait_seconds",
    "How long a commit of a worker has waited for a synchronous standby (wait event SyncRep). Served by the sweeper.",
    registry=None,
)
VERIFY_BREACHES = Gauge(
    "bulkreg_verify_breaches", "Breaches that the last `bulkreg verify` found. Served by the sweeper.", registry=None
)
VERIFY_LAST_SUCCESS_TIMESTAMP = Gauge(
    "bulkreg_verify_last_success_timestamp_seconds",
    "When the last `bulkreg verify` was complete, whatever it found; absent if it never was. Served by the sweeper.",
    registry=None,
)
RECEIPTS_BEHIND_SECONDS = Gauge(
    "bulkreg_receipts_behind_seconds",
    "How long the oldest registration or revocation that is in no log of receipts has existed. Served by the sweeper.",
    registry=None,
)
RECEIPT_LEAVES = Gauge("bulkreg_receipt_leaves", "Leaves in all logs of receipts. Served by the sweeper.", registry=None)
RECEIPT_LAST_CHECKPOINT_TIMESTAMP = Gauge(
    "bulkreg_receipt_last_checkpoint_timestamp_seconds",
    "When the newest checkpoint was signed; absent if none ever was. Served by the sweeper.",
    registry=None,
)
RECEIPT_LOGS_HALTED = Gauge(
    "bulkreg_receipt_logs_halted",
    "Logs of receipts that contradict a published checkpoint and are not signed. Served by the sweeper.",
    registry=None,
)
FORGETTING_WAIT_SECONDS = Gauge(
    "bulkreg_forgetting_wait_seconds",
    "How long the oldest open request to forget a person has waited; 0 if none is open. Served by the sweeper.",
    registry=None,
)
WEBHOOKS_DISABLED = Gauge(
    "bulkreg_webhooks_disabled", "Webhooks that the notifier has disabled. Served by the sweeper.", registry=None
)
WEBHOOKS_FAILING = Gauge(
    "bulkreg_webhooks_failing", "Enabled webhooks whose last attempt failed. Served by the sweeper.", registry=None
)
WEBHOOK_OVERDUE_SECONDS = Gauge(
    "bulkreg_webhook_overdue_seconds",
    "How long the delivery that is due for longest has waited for a notifier. Served by the sweeper.",
    registry=None,
)
