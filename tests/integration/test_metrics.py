"""What the metrics say about the product: the numbers that the sweeper serves, and what consumers count after their commit."""

import time

import httpx
import orjson
from prometheus_client import REGISTRY
from sqlalchemy import Engine, text

from consumers.upkeep.observer import ProductObserver
from orchestrator.batches.model import RetryRequest
from orchestrator.batches.operations import retry_failed_items
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.storage.observing import read_figures
from orchestrator.verification.verify import Breach, Report, keep_result
from schemas.envelope import Topic
from tests.integration.test_health import running
from tests.support.pipeline import ADMIN, Pipeline, item, mentors, standard_directory
from tests.support.ports import free_port
from tests.support.receipts import as_owner
from tests.support.waiting import PATIENCE_S, eventually
from tests.support.webhooks import make_deliveries, make_webhook


def served(url: str) -> dict[str, float]:
    """The product's samples, by name and labels."""
    lines = httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("bulkreg_"))
    return {name: float(value) for name, value in pairs}


def test_the_sweeper_serves_the_numbers_of_the_whole_product(settings: Settings, engine: Engine, topics: None) -> None:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    pipeline.submit(mentors(3))
    pipeline.close()
    age = "now() - interval '2 hours'"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE orchestrator.batch SET submitted_at = {age}"))
        connection.execute(text(f"UPDATE orchestrator.outbox SET created_at = {age}"))
    with running(settings, free_port(), "sweeper") as url:
        eventually(lambda: _is_served(url))
        told = served(url)
        assert (told["bulkreg_outbox_rows"], told["bulkreg_backlog_items"]) == (1, 3)
        assert told["bulkreg_backlog_limit_items"] == settings.max_backlog_items
        assert 7200 <= told["bulkreg_outbox_oldest_age_seconds"] < 8000
        assert 7200 <= told["bulkreg_oldest_unfinished_batch_seconds"] < 8000
        assert told["bulkreg_commit_wait_seconds"] == 0
        assert told['bulkreg_loop_age_seconds{role="sweeper"}'] < PATIENCE_S
        assert "bulkreg_verify_breaches" not in told
        keep_result(engine, Report([Breach(1, None, None, "found")], {}))
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE orchestrator.verification SET completed_at = {age}"))
        keep_result(engine, Report([Breach(1, None, None, "found")] * 2, {}))
        told = served(url)
        assert told["bulkreg_verify_breaches"] == 2
        assert abs(told["bulkreg_verify_last_success_timestamp_seconds"] - time.time()) < PATIENCE_S


def test_webhooks_and_receipts_are_among_the_numbers(settings: Settings, engine: Engine) -> None:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    pipeline.submit(mentors(1))
    pipeline.drain()
    pipeline.close()
    disabled, failing, waiting = (make_webhook(engine, settings, "https://receiver.example.org/") for _ in range(3))
    make_deliveries(engine, waiting, 1)
    with as_owner(settings) as connection:
        hour = "now() - interval '1 hour'"
        for change, webhook in (
            ("disabled_at = now(), disabled_because = 'gone'", disabled),
            ("failing_since = now()", failing),
            ("failing_since = now()", waiting),
        ):
            connection.execute(text(f"UPDATE orchestrator.webhook SET {change} WHERE webhook_id = :id"), {"id": webhook})
        connection.execute(text(f"UPDATE orchestrator.webhook_delivery SET due_at = {hour}"))
        connection.execute(text(f"UPDATE registration.audit SET at = {hour}"))
        for organization, size, signed_at in (("org-1", 5, "to_timestamp(1000)"), ("org-2", 7, "to_timestamp(2000)")):
            connection.execute(
                text(
                    "INSERT INTO orchestrator.receipt_log (organization_id, log, origin, before_log, size, signed_size, signed_at, frontier)"
                    f" VALUES (:org, 1, 'o', 0, :size, :size, {signed_at}, '')"
                ),
                {"org": organization, "size": size},
            )
        connection.execute(
            text(
                "INSERT INTO orchestrator.receipt_published (organization_id, log, size, root, note, state)"
                " VALUES ('org-1', 1, 9, '', '', 'ahead'), ('org-2', 1, 7, '', '', 'agrees')"
            )
        )
    told = {metric.name: metric.samples[0].value for metric in ProductObserver(engine, backlog_limit_items=1).collect()}
    assert (told["bulkreg_webhooks_disabled"], told["bulkreg_webhooks_failing"]) == (1, 2)
    assert (told["bulkreg_receipt_leaves"], told["bulkreg_receipt_logs_halted"]) == (12, 1)
    assert told["bulkreg_receipt_last_checkpoint_timestamp_seconds"] == 2000
    waited = [round(told[f"bulkreg_{name}_seconds"] / 3_600) for name in ("webhook_overdue", "receipts_behind")]
    assert waited == [1, 1]


def test_a_batch_is_unfinished_since_its_retry_began(settings: Settings, engine: Engine) -> None:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    with engine.begin() as connection:
        connection.execute(text("UPDATE orchestrator.batch SET submitted_at = now() - interval '2 hours'"))
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest())
    figures = transact(engine, lambda connection: read_figures(connection))
    pipeline.close()
    assert (figures.backlog_items, figures.oldest_unfinished_s < PATIENCE_S) == (1, True)


def test_running_batches_are_counted_with_the_age_of_the_oldest(settings: Settings, engine: Engine) -> None:
    """Finished and deleted ones are older here, and are not among them."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    finished = pipeline.submit(mentors(1))
    pipeline.drain()
    batches = [pipeline.submit(mentors(count, first=10 * count)) for count in (2, 3, 4)]
    age = "submitted_at = now() - :hours * interval '1 hour'"
    with engine.begin() as connection:
        for batch_id, hours, change in (
            (finished, 9, age),
            (batches[0], 2, age),
            (batches[1], 5, age),
            (batches[2], 9, f"{age}, deleted_at = now()"),
        ):
            statement = text(f"UPDATE orchestrator.batch SET {change} WHERE batch_id = :id")
            connection.execute(statement, {"id": batch_id, "hours": hours})
        figures = read_figures(connection)
    pipeline.close()
    assert (figures.backlog_items, round(figures.oldest_unfinished_s / 3_600)) == (2 + 3, 5)


def _is_served(url: str) -> bool:
    try:
        return "bulkreg_outbox_rows" in served(url)
    except httpx.TransportError:
        return False


def test_items_are_counted_by_outcome_and_batches_by_lane(settings: Settings, engine: Engine) -> None:
    standard_directory(engine, mentor_count=settings.bulk_threshold_items + 20)
    pipeline = Pipeline(settings, engine)
    before = counted()
    pipeline.submit([*mentors(2), item("nobody")])
    pipeline.submit(mentors(settings.bulk_threshold_items + 1, first=10))
    pipeline.drain()
    pipeline.drain()
    pipeline.close()
    after = counted()
    rise = {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}
    assert rise == {
        ("decided", "success", ""): 2 + settings.bulk_threshold_items + 1,
        ("decided", "failed", "mentor_not_found"): 1,
        ("ended", "small"): 1,
        ("ended", "bulk"): 1,
    }


def test_a_batch_that_ends_beside_a_result_without_an_outcome_is_counted(settings: Settings, engine: Engine) -> None:
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    pipeline.submit(mentors(1))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(Topic.BATCHES))
    [result] = pipeline.handle(pipeline.registration, pipeline.take(Topic.COMMANDS)).events
    of_no_attempt = result._replace(value=orjson.dumps({**orjson.loads(result.value), "attempt": 9}))
    before = counted()
    handled = pipeline.handle(pipeline.aggregator, [of_no_attempt, result])
    pipeline.close()
    assert [index for index, _ in handled.refused] == [0]
    assert counted()["ended", "small"] == before.get(("ended", "small"), 0) + 1


def counted() -> dict[tuple[str, ...], float]:
    """What this process has counted so far."""
    found: dict[tuple[str, ...], float] = {}
    for each in (sample for family in REGISTRY.collect() for sample in family.samples):
        if each.name == "bulkreg_items_decided_total":
            found["decided", each.labels["outcome"], each.labels["code"]] = each.value
        elif each.name == "bulkreg_batch_completion_seconds_count":
            found["ended", each.labels["lane"]] = each.value
    return found
