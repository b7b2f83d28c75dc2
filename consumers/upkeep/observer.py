"""The metrics that describe the whole product. They are read from the database at each request for the metrics.

So they are right even while a sweep takes long or fails, and every sweeper serves the same ones.
"""

from collections.abc import Iterable

from prometheus_client import Gauge, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.directory.forgetting import oldest_request_s
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.observing import Figures, read_figures
from orchestrator.storage.receipt_appending import behind_s
from orchestrator.storage.receipt_checkpoints import ReceiptFigures, read_receipt_figures
from orchestrator.webhooks.deliveries import WebhookFigures, webhook_figures

# Prometheus waits for 10 s by default.
_TIMEOUT = text("SET LOCAL statement_timeout = '5s'")


class ProductObserver(Collector):
    """Collects the figures of the product. While the database does not respond there are none, so an alarm can tell by their absence."""

    def __init__(self, engine: Engine, *, backlog_limit_items: int) -> None:
        self._engine = engine
        self._backlog_limit_items = backlog_limit_items

    @classmethod
    def of(cls, settings: Settings) -> "ProductObserver":
        """Returns an observer with a connection of its own, because the sweeper's may be busy for long."""
        engine = create_database_engine(settings.worker_url, settings, connections=1, application_name="bulkreg observer")
        return cls(engine, backlog_limit_items=settings.max_backlog_items)

    def describe(self) -> Iterable[Metric]:
        """Returns nothing, so that registering does not wait for the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Returns the figures, or nothing while the database does not respond."""
        try:
            with self._engine.begin() as connection:
                connection.execute(_TIMEOUT)
                figures, webhooks = read_figures(connection), webhook_figures(connection)
                receipts, receipts_behind_s = read_receipt_figures(connection), behind_s(connection)
                forgetting_wait_s = oldest_request_s(connection)
        except SQLAlchemyError:
            return
        for gauge, value in (
            *self._values(figures, webhooks),
            *self._of_receipts(receipts, receipts_behind_s),
            (metrics.FORGETTING_WAIT_SECONDS, forgetting_wait_s),
        ):
            if value is not None:
                gauge.set(value)
                yield from gauge.collect()

    def _values(self, figures: Figures, webhooks: WebhookFigures) -> Iterable[tuple[Gauge, float | None]]:
        return (
            (metrics.OUTBOX_ROWS, figures.outbox_rows),
            (metrics.OUTBOX_OLDEST_AGE_SECONDS, figures.outbox_oldest_s),
            (metrics.BACKLOG_ITEMS, figures.backlog_items),
            (metrics.BACKLOG_LIMIT_ITEMS, self._backlog_limit_items),
            (metrics.OLDEST_UNFINISHED_BATCH_SECONDS, figures.oldest_unfinished_s),
            (metrics.COMMIT_WAIT_SECONDS, figures.commit_wait_s),
            (metrics.VERIFY_BREACHES, figures.verify_breaches),
            (metrics.WEBHOOKS_DISABLED, webhooks.disabled),
            (metrics.WEBHOOKS_FAILING, webhooks.failing),
            (metrics.WEBHOOK_OVERDUE_SECONDS, webhooks.overdue_s),
            (metrics.VERIFY_LAST_SUCCESS_TIMESTAMP, figures.verify_completed_at),
        )

    def _of_receipts(self, figures: ReceiptFigures, receipts_behind_s: float) -> Iterable[tuple[Gauge, float | None]]:
        return (
            (metrics.RECEIPTS_BEHIND_SECONDS, receipts_behind_s),
            (metrics.RECEIPT_LEAVES, figures.leaves),
            (metrics.RECEIPT_LAST_CHECKPOINT_TIMESTAMP, figures.signed_at),
            (metrics.RECEIPT_LOGS_HALTED, figures.halted),
        )
