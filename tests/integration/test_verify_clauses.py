"""Each clause of each check of `verify`: states that differ from a healthy one in one column, and states that look like a breach and are
none.

All of them are made in one database, each on its own batch, and one run checks them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, Row, create_engine, text

from orchestrator.batches.model import CorrectedItem, NewBatch, NewItem, RetryRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items, submit_bulk_registration
from orchestrator.process.settings import Settings
from orchestrator.storage.database import create_database_engine
from orchestrator.verification import verify as verification
from orchestrator.verification.checks import CHECKS
from orchestrator.verification.verify import Breach, verify
from schemas.ids import DerivedIds, new_batch_id
from tests.integration.corruptions import AGED, ASKED, BATCH, CLAUSES, ITEM, OUTBOX, WELL
from tests.integration.test_verify import CONSTRAINTS
from tests.support.audit import PROTECTED, UNPROTECTED
from tests.support.databases import fresh_database
from tests.support.pipeline import ADMIN, COORDINATOR, Pipeline, item, mentors, standard_directory
from tests.support.plans import without_indexes
from tests.support.stack import Stack
from tests.support.upstream import submitted, upstream_item


class Maker:
    """Makes batches of every kind, each with its own mentors."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._mentors = count(1)

    def make(self, kinds: Sequence[str]) -> list[UUID]:
        """A batch of each of these kinds, in this order."""
        made: dict[int, UUID] = {}
        # First the batches that reach their end, then the others. Each stage leaves alone what earlier stages have left behind.
        for stage, go_on in (
            ("done deleted failed retried again failing overriding", self._pipeline.drain),
            ("cancelled unresolved", self._pipeline.relay),
            ("decided", self._pipeline.drain_until_registered),
            ("waiting collecting stopped", self._pipeline.relay),
        ):
            chosen = [index for index, kind in enumerate(kinds) if kind in stage.split()]
            made |= {index: self._begun(kinds[index]) for index in chosen}
            go_on()
            for kind in ("overriding", "retried"):
                for index in chosen:
                    self._go_on(kind, kinds[index], made, index)
                go_on()
            for index in chosen:
                self._finish(kinds[index], made[index])
            self._pipeline.relay()
            self._pipeline.queues.clear()
        return [made[index] for index in range(len(kinds))]

    def _go_on(self, wanted: str, kind: str, made: dict[int, UUID], index: int) -> None:
        """What is done after the others of the stage have reached their end."""
        if kind != wanted:
            return
        if kind == "retried":
            self._pipeline.call(retry_failed_items, ADMIN, made[index], RetryRequest())
        else:
            mentor = self._pipeline.status(made[index]).items[0].values.mentor_id
            made[index] = self._pipeline.call(submit_bulk_registration, ADMIN, overriding_batch(mentor)).batch.batch_id

    def _mentor(self) -> str:
        return f"mentor-{next(self._mentors)}"

    def _begun(self, kind: str) -> UUID:
        good = [item(self._mentor(), notes="a note that is long enough"), item(self._mentor())]
        match kind:
            case "done" | "deleted" | "decided" | "waiting" | "unresolved":
                return self._pipeline.submit(good)
            case "failed" | "retried" | "again":
                return self._pipeline.submit([item("nobody", notes="another note, long enough"), good[1]])
            case "overriding":
                return self._pipeline.submit(good[:1])
            case "failing":
                return self._pipeline.submit([item("nobody"), item("no one")])
            case "cancelled":
                return self._pipeline.submit([*good, item(self._mentor())])
            case _:
                batch_id = uuid4()
                part = [upstream_item(0, self._mentor())]
                self._pipeline.handle(self._pipeline.splitter, [submitted(batch_id, part, part=1, parts=2, total_items=2)])
                return batch_id

    def _finish(self, kind: str, batch_id: UUID) -> None:
        call = self._pipeline.call
        match kind:
            case "deleted":
                call(delete_batch, ADMIN, batch_id)
            case "again":
                call(retry_failed_items, ADMIN, batch_id, RetryRequest())
            case "cancelled":
                call(cancel_batch, ADMIN, batch_id, "a mistake")
            case "stopped":
                call(cancel_batch, ADMIN, batch_id, None)
            case "unresolved":
                with self._pipeline.engine.begin() as connection:
                    connection.execute(text(ASKED.format(0)), {"b": batch_id})
                call(cancel_batch, ADMIN, batch_id, None)
            case _:
                pass


def overriding_batch(mentor: str) -> NewBatch:
    values = item(mentor).values._replace(override_duplicates=True)
    return NewBatch(new_batch_id(), COORDINATOR, None, True, [NewItem(values)], "1" * 32)


# Tables in another schema, and a policy that shows the API less than others do.
OF_NO_CONCERN = (
    "CREATE TABLE public.elsewhere (organization_id text)",
    "ALTER TABLE public.elsewhere OWNER TO bulkreg_api",
    "CREATE POLICY strict ON registration.mentor AS RESTRICTIVE TO bulkreg_api USING (organization_id <> 'x')",
)


@dataclass(frozen=True)
class Damaged:
    """A database in which each case was made, and what `verify` finds in it."""

    engine: Engine
    settings: Settings
    seen: Sequence[UUID]
    well: Sequence[UUID]
    breaches: Sequence[Breach]

    def of(self, batch_id: UUID) -> list[str]:
        return [breach.detail for breach in self.breaches if breach.batch_id == str(batch_id)]


@pytest.fixture(scope="module")
def damaged(infrastructure: Stack, template_database: str) -> Iterator[Damaged]:
    with fresh_database(infrastructure.postgres_url, template=template_database) as url:
        settings = Settings(database_url=SecretStr(url))
        worker = create_database_engine(settings.worker_url, settings, connections=2, application_name="test")
        owner = create_engine(settings.owner_url)
        standard_directory(worker, mentor_count=1_000)
        pipeline = Pipeline(settings, worker)
        made = Maker(pipeline).make(["done", *(kind for _, kind, _ in CLAUSES), *(kind for kind, _ in WELL)])
        spare, seen, well = made[0], made[1 : 1 + len(CLAUSES)], made[1 + len(CLAUSES) :]
        assert verify(worker, settings).breaches == []
        cases = [*zip((sql for *_, sql in CLAUSES), seen, strict=True), *zip((sql for _, sql in WELL), well, strict=True)]
        with owner.begin() as connection:
            for statement in (*CONSTRAINTS, *OF_NO_CONCERN, UNPROTECTED):
                connection.execute(text(statement))
            for sql, batch_id in cases:
                for statement in filter(str.strip, sql.split(";")):
                    connection.execute(text(statement), {"b": batch_id, "spare": spare})
            connection.execute(text(PROTECTED))
        yield Damaged(owner, settings, seen, well, verify(owner, settings).breaches)
        pipeline.close()
        worker.dispose()
        owner.dispose()


def test_each_breached_clause_is_detected(damaged: Damaged) -> None:
    unseen = [
        case
        for case, batch_id in zip(CLAUSES, damaged.seen, strict=True)
        if not any(detail.startswith(f"{case[0]}: ") for detail in damaged.of(batch_id))
    ]
    assert unseen == []


def test_healthy_states_are_not_reported(damaged: Damaged) -> None:
    said = {case: found for case, batch_id in zip(WELL, damaged.well, strict=True) if (found := damaged.of(batch_id))}
    assert said == {}
    assert [breach.detail for breach in damaged.breaches if breach.batch_id is None] == []


def test_the_number_of_breaches_shown_of_a_kind_is_limited(damaged: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MAX_BREACHES_PER_CHECK", 2)
    shown = Counter(breach.detail.split(":")[0] for breach in verify(damaged.engine, damaged.settings).breaches)
    of_sql = {check.name for check in CHECKS} & shown.keys()
    assert {shown[name] for name in of_sql} == {1, 2}


def test_events_that_wait_in_the_outbox_are_reported_once_for_each_topic(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    with pipeline.engine.begin() as connection:
        for topic, minutes in (("batches", 7), ("batches", 9), ("lifecycle", 8), ("batches", 1)):
            connection.execute(text(OUTBOX.format(topic, minutes)), {"b": batch_id})
        times = text("SELECT topic, created_at::text FROM orchestrator.outbox ORDER BY outbox_id")
        oldest = {row.topic: row.created_at for row in reversed(connection.execute(times).all())}
    found = [breach.detail for breach in verify(pipeline.engine, settings).breaches]
    assert len(found) == 2
    assert all(any(topic in detail and since in detail for detail in found) for topic, since in oldest.items())


def test_the_oldest_event_is_reported_wherever_its_row_lies(pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain()
    with pipeline.engine.connect() as connection:
        for topic, minutes in (("batches", 7), ("batches", 9), ("lifecycle", 7), ("lifecycle", 9)):
            connection.execute(text(OUTBOX.format(topic, minutes)), {"b": batch_id})
        refused = "slot = -1, held_for = 'refused', held_at = now(), held_why = 'it is number ' || outbox_id"
        connection.execute(text(f"UPDATE orchestrator.outbox SET {refused} WHERE topic = 'lifecycle'"))
        rows = connection.execute(text("SELECT outbox_id, created_at::text FROM orchestrator.outbox ORDER BY outbox_id")).all()
        first, third = rows[0], rows[2]
        # A changed row stands behind the others in the table's file.
        changed = "UPDATE orchestrator.outbox SET key = 'l' WHERE outbox_id IN (:first, :third)"
        connection.execute(text(changed), {"first": first.outbox_id, "third": third.outbox_id})
        without_indexes(connection)
        [waits] = found_by(connection, "event_waits", trouble_after=timedelta(minutes=5))
        [is_refused] = found_by(connection, "event_refused")
        connection.rollback()
    assert f"has waited in the outbox since {first.created_at}" in waits.detail
    assert f"it is number {third.outbox_id};" in is_refused.detail


def test_starts_are_counted_for_each_role_and_host(pipeline: Pipeline, settings: Settings) -> None:
    started = text(
        "INSERT INTO orchestrator.role_start SELECT :role, :host, now() - n * interval '1 minute' FROM generate_series(1, 5) AS n"
    )
    with pipeline.engine.begin() as connection:
        for role, host in (("splitter", "a"), ("splitter", "b"), ("relay", "a")):
            connection.execute(started, {"role": role, "host": host})
    assert verify(pipeline.engine, settings).breaches == []
    with pipeline.engine.begin() as connection:
        last = "INSERT INTO orchestrator.role_start VALUES ('relay', 'a', now()) RETURNING started_at::text"
        moment = connection.execute(text(last)).scalar_one()
    [found] = verify(pipeline.engine, settings).breaches
    assert f"the role relay started 6 times on a, the last time at {moment}" in found.detail


@pytest.mark.parametrize("right", ["SUPERUSER", "BYPASSRLS"])
def test_an_api_role_that_bypasses_row_level_security_is_detected(settings: Settings, right: str) -> None:
    [check] = [check for check in CHECKS if check.name == "api_role"]
    owner = create_engine(settings.owner_url)
    with owner.connect() as connection:
        assert connection.execute(text(check.sql)).all() == []
        # Roles belong to all databases of the server, so this is never committed.
        connection.execute(text(f"ALTER ROLE bulkreg_api {right}"))
        assert len(connection.execute(text(check.sql)).all()) == 1
        connection.rollback()
    owner.dispose()


@pytest.mark.parametrize(
    ("state", "is_found"),
    [
        ("status = 'processing'", True),
        ("status = 'cancelled'", True),
        ("status = 'cancelled', completed_at = now()", False),
        ("status = 'completed', completed_at = now()", False),
        ("status = 'pending'", False),
    ],
)
def test_only_running_batches_need_a_sweeper(pipeline: Pipeline, state: str, is_found: bool) -> None:
    """No sweeper watches the others, and their pending items breach other invariants."""
    batch_id = pipeline.submit(mentors(1))
    pipeline.relay()
    [sql] = [check.sql for check in CHECKS if check.name == "waiting_and_not_watched"]
    with pipeline.engine.connect() as connection:
        for statement in (BATCH.format(state), ITEM.format("attempt_at = now() - interval '1 hour'")):
            connection.execute(text(statement), {"b": batch_id})
        found = connection.execute(text(sql), {"stuck_after": timedelta(minutes=5)}).all()
        connection.rollback()
    assert len(found) == is_found


HOUR, MOMENT = timedelta(hours=1), timedelta(microseconds=1)


@pytest.mark.parametrize(("check", "wrong_when", "statements"), AGED, ids=[f"{check}, {when}" for check, when, _ in AGED])
def test_an_age_is_a_breach_only_above_its_limit(pipeline: Pipeline, check: str, wrong_when: str, statements: str) -> None:
    batch_id = pipeline.submit(mentors(1))
    pipeline.drain_until_registered()
    pipeline.relay()
    [sql] = [each.sql for each in CHECKS if each.name == check]
    limits = dict.fromkeys(("stuck_after", "trouble_after", "batch_stuck_after", "restarts_within"), HOUR)
    limits |= {"parts_patience": timedelta(0)}
    parameters = {name: value for name, value in (limits | {"max_restarts": 0}).items() if f":{name}" in sql}
    found = []
    for age in (HOUR, HOUR + (MOMENT if wrong_when == "older" else -MOMENT)):
        # In one transaction, in which the clock stands still.
        with pipeline.engine.connect() as connection:
            for statement in statements.split(";"):
                values = {"b": batch_id, "age": age}
                connection.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})
            found.append(len(connection.execute(text(sql), parameters).all()))
            connection.rollback()
    assert found == [0, 1]


def found_by(connection: Connection, name: str, **parameters: object) -> Sequence[Row[Any]]:
    [sql] = [check.sql for check in CHECKS if check.name == name]
    return connection.execute(text(sql), parameters).all()


def test_each_breach_is_reported_once(damaged: Damaged) -> None:
    """The details of those that concern no item may be the same."""
    repeated = {breach: times for breach, times in Counter(damaged.breaches).items() if times > 1 and breach.item_id is not None}
    assert repeated == {}


def test_items_of_a_batch_may_succeed_in_different_attempts(pipeline: Pipeline, settings: Settings) -> None:
    batch_id = pipeline.submit([item("mentor-1"), item("nobody")])
    pipeline.drain()
    corrected = CorrectedItem(DerivedIds(batch_id).item_id(1), {"mentor_id": "mentor-2"})
    pipeline.call(retry_failed_items, ADMIN, batch_id, RetryRequest(corrections=[corrected]))
    pipeline.drain()
    assert pipeline.status(batch_id).batch.counts.completed == 2
    assert verify(pipeline.engine, settings).breaches == []


def test_an_item_that_is_finished_does_not_wait(pipeline: Pipeline) -> None:
    """A restored database may lack its outcome. Other checks report that."""
    batch_id = pipeline.submit(mentors(2))
    pipeline.relay()
    with pipeline.engine.connect() as connection:
        for statement in (
            ITEM.format("attempt_at = now() - interval '1 hour'"),
            ITEM.format("status = 'success', activity_id = gen_random_uuid()") + " AND position = 0",
        ):
            connection.execute(text(statement), {"b": batch_id})
        found = found_by(connection, "waiting_and_not_watched", stuck_after=timedelta(minutes=5))
        connection.rollback()
    assert [UUID(str(row.item_id)) for row in found] == [DerivedIds(batch_id).item_id(1)]


def test_a_revocation_is_that_of_our_activity_or_else_of_the_external_services(pipeline: Pipeline, settings: Settings) -> None:
    """And only of an item that succeeded. Other checks report the rest of what is wrong here."""
    batch_id = pipeline.submit([item("mentor-1"), item("nobody"), item("mentor-2")])
    pipeline.drain()
    items = DerivedIds(batch_id)
    owner = create_engine(settings.owner_url)
    with owner.connect() as connection:
        for statement in (
            "INSERT INTO orchestrator.revocation_request (batch_id, position, organization_id, state, asked_at, asked_by, channel, reason,"
            " is_bulk, sent_at, answered_at) SELECT :b, n, 'org-standard', 'revoked', now(), 'boss', 'api', 'why', false, now(), now()"
            " FROM generate_series(0, 2) AS n",
            "UPDATE registration.activity SET item_id = :failed, revoked_at = now() WHERE item_id = :third",
        ):
            values = {"b": batch_id, "failed": items.item_id(1), "third": items.item_id(2)}
            connection.execute(text(statement), {name: value for name, value in values.items() if f":{name}" in statement})
        found = found_by(connection, "revocation_differs_from_activity")
        connection.rollback()
    owner.dispose()
    assert [UUID(str(row.item_id)) for row in found] == [items.item_id(2)]


APPEND_ONLY = (
    ("audit_can_be_changed", "registration.audit", "audit_is_append_only"),
    ("period_history_can_be_changed", "registration.period_change", "period_changes_are_append_only"),
    ("notes_erasures_can_be_changed", "registration.notes_erasure", "notes_erasures_are_append_only"),
    ("webhook_changes_can_be_changed", "orchestrator.webhook_change", "webhook_changes_are_append_only"),
)


def test_another_trigger_and_a_trigger_of_another_table_protect_nothing(settings: Settings) -> None:
    owner = create_engine(settings.owner_url)
    create = "CREATE TRIGGER {} BEFORE UPDATE ON {} FOR EACH STATEMENT EXECUTE FUNCTION registration.refuse_change()"
    with owner.connect() as connection:
        for check, table, trigger in APPEND_ONLY:
            assert found_by(connection, check) == [], check
            for statement in (
                f"DROP TRIGGER {trigger} ON {table}",
                create.format(trigger, "orchestrator.tombstone"),
                create.format("another", table),
            ):
                connection.execute(text(statement))
            assert len(found_by(connection, check)) == 1, check
            connection.rollback()
    owner.dispose()


PERIOD_CHANGE = "INSERT INTO registration.period_change VALUES (:organization, :number, :through, :before, 'why', 'boss', 'api', now(), :last)"
FIRST, SECOND = date(2026, 3, 24), date(2026, 3, 25)
EVER = date(2027, 1, 1)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([("org-standard", 1, EVER, 0)], [1, 2, 3]),
        ([("org-standard", 1, EVER, 1)], [2, 3]),
        ([("org-standard", 1, FIRST, 0)], [1, 3]),
        ([("org-standard", 1, EVER, 3)], []),
        ([("org-other", 1, EVER, 0)], []),
        ([("org-standard", 1, EVER, 0), ("org-standard", 2, None, 2)], [1, 2]),
        ([("org-standard", 1, EVER, 0), ("org-other", 2, None, 2)], [1, 2, 3]),
        ([("org-standard", 1, EVER, 0), ("org-standard", 2, None, 1), ("org-standard", 3, EVER, 2)], [1, 3]),
        ([("org-standard", 1, EVER, 1), ("org-standard", 2, FIRST, 2)], [2, 3]),
    ],
    ids=[
        "closed before", "closed after the first", "closed for some dates", "closed after all", "another organization's",
        "reopened", "reopened for another organization", "closed again", "closed for some dates later",
    ],
)  # fmt: skip
def test_changes_between_the_closing_and_the_reopening_of_their_period_are_found(
    pipeline: Pipeline, changes: Sequence[tuple[str, int, date | None, int]], found: Sequence[int]
) -> None:
    """Of three registrations. The first and the last are of one day, the second of the next. Each change of the period follows after so many."""
    for number, day in enumerate((FIRST, SECOND, FIRST), start=1):
        pipeline.submit([item(f"mentor-{number}", day=day)])
        pipeline.drain()
    with pipeline.engine.connect() as connection:
        of_each = "SELECT u.audit_id, a.item_id FROM registration.audit u JOIN registration.activity a USING (activity_id) ORDER BY audit_id"
        rows = connection.execute(text(of_each)).all()
        last_ids = [rows[0].audit_id - 1, *(row.audit_id for row in rows)]
        for organization, number, through, after in changes:
            values = {"organization": organization, "number": number, "through": through, "last": last_ids[after]}
            connection.execute(text(PERIOD_CHANGE), values | {"before": SECOND if through is None else None})
        breached = sorted(str(row.item_id) for row in found_by(connection, "changed_in_closed_period"))
        connection.rollback()
    assert breached == sorted(str(rows[number - 1].item_id) for number in found)


def test_a_closed_period_is_compared_with_the_changes_in_their_order(pipeline: Pipeline) -> None:
    """The rows of two organizations lie in the table in any order, for example after a restore."""
    changes = {1: (FIRST, None), 2: (SECOND, FIRST), 3: (EVER, SECOND), 4: (FIRST, EVER)}
    with pipeline.engine.connect() as connection:
        for number in (3, 1, 4, 2):
            through, before = changes[number]
            for organization in ("org-standard", "org-other"):
                values = {"organization": organization, "number": number, "through": through, "before": before, "last": number}
                connection.execute(text(PERIOD_CHANGE), values)
        for statement in (
            "INSERT INTO registration.organization (organization_id, name, time_zone) VALUES ('org-other', 'Other', 'UTC')",
            f"UPDATE registration.organization SET closed_through = '{FIRST}'",
        ):
            connection.execute(text(statement))
        without_indexes(connection)
        assert found_by(connection, "period_differs_from_history") == []
        connection.execute(text(f"UPDATE registration.organization SET closed_through = '{SECOND}'"))
        assert len(found_by(connection, "period_differs_from_history")) == 2
        connection.rollback()
