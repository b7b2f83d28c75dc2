"""The states of items and batches as tables, events and responses name them; how they follow each other is in `batches/states.py`."""

from enum import StrEnum


class Outcome(StrEnum):
    """What was decided for one attempt of an item, once and for all."""

    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ItemStatus(StrEnum):
    """Where one mentor's registration stands: pending, or its outcome."""

    PENDING = "pending"
    SUCCESS = Outcome.SUCCESS.value
    FAILED = Outcome.FAILED.value
    CANCELLED = Outcome.CANCELLED.value


class BatchStatus(StrEnum):
    """Where a batch stands; derived from its items, never set by hand except for `cancelled`."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class KeptBecause(StrEnum):
    """Why a revocation leaves an activity as it is."""

    WINDOW_OVER = "revocation_window_over"
    NOT_REGISTERED = "not_registered"
    REGISTERED_ELSEWHERE = "registered_elsewhere"


TERMINAL_BATCH_STATUSES = frozenset({BatchStatus.COMPLETED, BatchStatus.PARTIAL, BatchStatus.FAILED, BatchStatus.CANCELLED})
