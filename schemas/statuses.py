"""The states of items and batches as tables, events and responses name them. `batches/states.py` has the transitions."""

from enum import StrEnum


class Outcome(StrEnum):
    """The final decision on one attempt of an item."""

    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ItemStatus(StrEnum):
    """The state of an item: pending, or its outcome."""

    PENDING = "pending"
    SUCCESS = Outcome.SUCCESS.value
    FAILED = Outcome.FAILED.value
    CANCELLED = Outcome.CANCELLED.value


class BatchStatus(StrEnum):
    """The state of a batch. It is derived from the items, except for `cancelled`."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class KeptBecause(StrEnum):
    """Why a revocation leaves an activity unchanged."""

    PERIOD_CLOSED = "period_closed"
    WINDOW_OVER = "revocation_window_over"
    NOT_REGISTERED = "not_registered"
    REGISTERED_ELSEWHERE = "registered_elsewhere"


TERMINAL_BATCH_STATUSES = frozenset({BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED})


class WebhookEvent(StrEnum):
    """What a webhook can be told of: types of events on the topic lifecycle."""

    BATCH_COMPLETED = "BatchCompleted"
    BATCH_REJECTED = "BatchRejected"
    ACTIVITIES_REVOKED = "ActivitiesRevoked"


class WebhookChange(StrEnum):
    """What somebody did with a webhook."""

    CREATED = "created"
    ROTATED = "secret_rotated"
    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


class DeliveryState(StrEnum):
    """The state of an event's delivery to a webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DisabledBecause(StrEnum):
    """Why the notifier has disabled a webhook."""

    GONE = "gone"
    FAILING = "failing"


class DeliveryProblem(StrEnum):
    """Why an attempt to deliver an event failed."""

    STATUS = "status"
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    NAME_UNKNOWN = "name_unknown"
    ADDRESS_REFUSED = "address_refused"
    TLS_FAILED = "tls_failed"
    CONNECTION_FAILED = "connection_failed"
    WEBHOOK_DISABLED = "webhook_disabled"
