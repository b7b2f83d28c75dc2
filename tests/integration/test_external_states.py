"""Every state that an item can reach between an external registration service, a cancel, retries, a change of the setting (decision 25) and
requests to revoke its activity (decision 41).

A depth-first search with the product's own code on PostgreSQL. Each step runs inside a savepoint, which is rolled back to try the next
step. A known state is not entered again. The service is in memory, and each step chooses what it does with a request.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import orjson
import pytest
from sqlalchemy import Connection, Engine, text

from consumers.external.adapter import mark_questions, settled_dispatch
from consumers.external.http_client import RegistrationClient, Unknown
from consumers.loop.handler import Record
from consumers.registration import RegistrationHandler
from orchestrator.batches.errors import ConflictError
from orchestrator.batches.model import CorrectedItem, RetryRequest, RevocationRequest
from orchestrator.batches.operations import cancel_batch, delete_batch, retry_failed_items
from orchestrator.batches.projection import fold_outcomes
from orchestrator.batches.repository import OutcomeKey
from orchestrator.batches.revoke import revoke_batch
from orchestrator.process.settings import EARLIEST_YEAR, Settings
from orchestrator.registration.external import ExternalRegistrationService, Question, Settled
from orchestrator.registration.external_revoking import (
    ExternalRecords,
    RevocationQuestion,
    RevocationSettled,
    questions,
    write_answers,
)
from orchestrator.registration.in_process import InProcessRegistrationService
from orchestrator.registration.records import InProcessRecords
from orchestrator.storage.dispatch import record_settled
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.revocation_requests import RevocationKey
from schemas.events import EventData
from schemas.ids import DerivedIds
from tests.support.pipeline import ADMIN, Pipeline, mentors, record
from tests.support.revoking import POLICY
from tests.support.service_in_memory import (
    HEARD,
    LANDS_BETWEEN,
    LATE,
    LOST,
    REFUSES,
    REFUSES_UNHEARD,
    REGISTERS,
    REGISTERS_UNHEARD,
    REVOKES,
    REVOKES_UNHEARD,
    UNHEARD,
    WITHDRAWS,
    Outside,
    Service,
    activity_of,
)

Database = dict[str, Any]
"""The item's state in the database."""

_STATE = text("""
    SELECT (SELECT jsonb_build_array(status, pending, completed, failed, cancelled, cancelled_at IS NOT NULL, completed_at IS NOT NULL,
                                      revoked)
            FROM orchestrator.batch WHERE batch_id = :batch_id) AS batch,
           (SELECT jsonb_build_array(status, attempt, activity_id, error ->> 'code', duration_minutes, revoked_at IS NOT NULL,
                                      revocation_request)
            FROM orchestrator.batch_item WHERE batch_id = :batch_id) AS item,
           (SELECT jsonb_agg(jsonb_build_array(attempt, outcome, activity_id, error ->> 'code') ORDER BY attempt)
            FROM orchestrator.outcome WHERE batch_id = :batch_id) AS outcomes,
           (SELECT jsonb_build_array(state, attempt, refusals, activity_id, error ->> 'code')
            FROM orchestrator.dispatch WHERE batch_id = :batch_id) AS dispatch,
           (SELECT jsonb_build_array(state, request, code)
            FROM orchestrator.revocation_request WHERE batch_id = :batch_id) AS request,
           (SELECT count(*) FROM registration.activity WHERE batch_id = :batch_id) AS own,
           (SELECT count(revoked_at) FROM registration.activity WHERE batch_id = :batch_id) AS own_revoked
""")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of the search."""

    attempts: int
    processes: int
    switches: bool
    redelivers: bool
    """Whether commands of earlier attempts are delivered again."""
    dawdles: bool
    """Whether anything happens between a response and its storage."""
    of_a_post: Sequence[str]
    of_a_lookup: Sequence[str]
    requests: int = 0
    """How often somebody may ask to revoke it."""
    of_a_revocation: Sequence[str] = ()


class Search:
    """One item, beginning when its batch is accepted."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        batch_id: UUID,
        command: Callable[[int], Record[EventData]],
        bounds: "Bounds",
    ) -> None:
        self.connection = connection
        self.batch_id = batch_id
        self.bounds = bounds
        self.service = Service()
        self.client = RegistrationClient(settings.model_copy(update={"registration_url": "http://127.0.0.1:1"}), self.service)
        self.runner = asyncio.Runner()
        self.external = RegistrationHandler(ExternalRegistrationService())
        self.in_process = RegistrationHandler(InProcessRegistrationService(EARLIEST_YEAR))
        self.command = command
        self.seen: set[bytes] = set()
        self.ended: set[bytes] = set()
        self.steps = 0
        self.path: list[str] = []

    # --- The search ---------------------------------------------------------------------------------------------------------

    def explore(self, outside: Outside) -> None:
        """Visits every reachable state."""
        database = self._database()
        state = orjson.dumps([database, repr(outside)])
        if state in self.seen:
            return
        self.seen.add(state)
        try:
            self._judge(database, outside)
            self._judge_the_end(database, outside)
        except AssertionError as error:
            error.add_note(f"after {' → '.join(self.path) or 'nothing'}\nin {database}\nand {outside}")
            raise
        for name, step in self._possible(database, outside):
            self.path.append(name)
            self.steps += 1
            bodies = dict(self.service.bodies)
            with self._undone():
                after = step()
                if after is not None:
                    self.explore(after)
            self.service.bodies = bodies
            self.path.pop()

    def _undone(self) -> "Undone":
        return Undone(self.connection)

    def _database(self) -> Database:
        return dict(self.connection.execute(_STATE, {"batch_id": self.batch_id}).one()._mapping)

    def _possible(self, database: Database, outside: Outside) -> Iterator[tuple[str, Callable[[], Outside | None]]]:
        status, attempt, *_ = database["item"]
        is_cancelled = database["batch"][5]
        for number in range(1 if self.bounds.redelivers else attempt, attempt + 1):
            yield f"decide {number}", partial(self.decide, outside, number)
            if outside.is_external and len(outside.holds) < self.bounds.processes:
                yield f"mark {number}", partial(self.mark, outside, number)
        for index, (question, answer) in enumerate(outside.holds):
            if answer is None:
                for does in self._fates(question):
                    yield f"ask: {does}", partial(self.asked, outside, index, does)
            else:
                yield "write down", partial(self.write_down, outside, index)
        for key in sorted(outside.wire):
            for lands in ("revoked" if ":revoke:" in key else "registered", "refused"):
                yield f"lands: {lands}", partial(self.land, outside, key, lands)
        if status == "pending" and not is_cancelled:
            yield "cancel", partial(self.cancel, outside)
        if status == "failed" and not is_cancelled and attempt < self.bounds.attempts:
            yield "retry", partial(self.retry, outside, RetryRequest())
            corrected = CorrectedItem(DerivedIds(self.batch_id).item_id(0), {"duration_minutes": 30 + attempt})
            yield "correct", partial(self.retry, outside, RetryRequest(corrections=[corrected]))
        request = database["request"]
        if status == "success" and not database["item"][5] and (request[1] if request else 0) < self.bounds.requests:
            yield "revoke", partial(self.revoke, outside)
        if request and request[0] == "asked" and outside.is_external and len(outside.holds) < self.bounds.processes:
            yield "take the request", partial(self.take_request, outside)
        if self.bounds.switches:
            yield "switch", partial(replace, outside, is_external=not outside.is_external, holds=())

    def _fates(self, question: Question | RevocationQuestion) -> Sequence[str]:
        if isinstance(question, RevocationQuestion):
            return self.bounds.of_a_revocation
        return self.bounds.of_a_lookup if question.is_cancelled else self.bounds.of_a_post

    # --- Steps --------------------------------------------------------------------------------------------------------------

    def mark(self, outside: Outside, attempt: int) -> Outside | None:
        questions = mark_questions(self.connection, [OutcomeKey(str(self.batch_id), 0, attempt)])
        return replace(outside, holds=(*outside.holds, (questions[0], None))) if questions else None

    def asked(self, outside: Outside, index: int, does: str) -> Outside:
        after = self.ask(outside, index, does)
        is_heard = len(after.holds) == len(outside.holds)
        return self.write_down(after, len(after.holds) - 1) if is_heard and not self.bounds.dawdles else after

    def ask(self, outside: Outside, index: int, does: str) -> Outside:
        self.service.outside, self.service.does = outside, does
        question = outside.holds[index][0]
        asked = self.client.revoke(question, 5) if isinstance(question, RevocationQuestion) else self.client.settle(question, 5)
        told = self.runner.run(asked)
        after = self._without(self.service.outside, index)
        return after if isinstance(told, Unknown) else replace(after, holds=(*after.holds, (question, told)))

    def write_down(self, outside: Outside, index: int) -> Outside:
        question, answer = outside.holds[index]
        if isinstance(question, RevocationQuestion):
            assert isinstance(answer, RevocationSettled)
            write_answers(self.connection, [(question, answer)])
        else:
            assert isinstance(answer, Settled)
            record_settled(self.connection, [settled_dispatch(question, answer)])
        return self._without(outside, index)

    @staticmethod
    def _without(outside: Outside, index: int) -> Outside:
        return replace(outside, holds=(*outside.holds[:index], *outside.holds[index + 1 :]))

    def decide(self, outside: Outside, attempt: int) -> Outside:
        handler = self.external if outside.is_external else self.in_process
        handler.handle(self.connection, [self.command(attempt)])
        fold_outcomes(self._repository(), [OutcomeKey(str(self.batch_id), 0, attempt)])
        return outside

    def land(self, outside: Outside, key: str, answer: str) -> Outside:
        return replace(outside.answered(key, answer), wire=outside.wire - {key})

    def cancel(self, outside: Outside) -> Outside:
        cancel_batch(self._repository(), ADMIN, self.batch_id, None)
        return outside

    def retry(self, outside: Outside, request: RetryRequest) -> Outside | None:
        try:
            retry_failed_items(self._repository(), ADMIN, self.batch_id, request)
        except ConflictError as error:
            if error.code != "item_in_doubt":
                raise
            return None
        return outside

    def revoke(self, outside: Outside) -> Outside:
        elsewhere = ExternalRecords(self.connection, bulk_threshold_items=1) if outside.is_external else None
        records = InProcessRecords(self.connection, elsewhere)
        revoke_batch(self._repository(), records, ADMIN, self.batch_id, RevocationRequest("a mistake"), POLICY)
        return outside

    def take_request(self, outside: Outside) -> Outside:
        [question] = questions(self.connection, [RevocationKey(str(self.batch_id), 0)])
        return replace(outside, holds=(*outside.holds, (question, None)))

    def _repository(self) -> PostgresActivityRepository:
        return PostgresActivityRepository(self.connection)

    # --- What must hold -----------------------------------------------------------------------------------------------------

    def _judge(self, database: Database, outside: Outside) -> None:
        status, _, activity_id, code, _, is_revoked, shown = database["item"]
        batch_status, pending, completed, failed, cancelled, is_cancelled, is_completed, revoked = database["batch"]
        own = [DerivedIds(self.batch_id).activity_id(0)] * database["own"]
        activities = [*map(activity_of, outside.registered), *own]
        assert len(activities) <= 1, "the item has two activities"
        counted = {"pending": pending, "success": completed, "failed": failed, "cancelled": cancelled}
        assert counted == {**dict.fromkeys(counted, 0), status: 1}, "the counts differ from the items"
        assert (batch_status == "cancelled") == is_cancelled
        assert is_completed == (status != "pending"), "the batch is complete with a pending item, or incomplete without one"
        assert (activity_id, code is not None) == (activities[0] if status == "success" else None, status == "failed")
        if own:
            assert status == "success" or not is_cancelled, "an item was registered after the cancel"
        if status == "cancelled":
            assert not activities, "the item is cancelled, and its activity exists"
            unsettled = outside.wire - dict(outside.answers).keys()
            assert not unsettled, f"the item is cancelled, and {unsettled} may still be registered"
        state, _, refusal = database["request"] or (None, 0, None)
        assert len(outside.revoked) <= 1, "the service has revoked the activity twice"
        assert (is_revoked, revoked) == (state == "revoked" or bool(database["own_revoked"]), int(is_revoked))
        assert shown == {"asked": "unresolved", "refused": refusal}.get(state or "")
        assert state != "revoked" or outside.revoked, "the item is revoked, and the service has not revoked its activity"
        assert state in ("asked", "revoked") or not outside.revoked, (
            "the service has revoked the activity, and no request is open"
        )
        outcomes = database["outcomes"] or []
        assert all(outcome[1] == "failed" for outcome in outcomes[:-1])

    def _judge_the_end(self, database: Database, outside: Outside) -> None:
        """A service that responds ends every batch, and a finished batch can be deleted. Other processes have crashed."""
        state = orjson.dumps([database, outside.answers, sorted(outside.wire)])
        if state in self.ended:
            return
        self.ended.add(state)
        bodies = dict(self.service.bodies)
        for answer in (REGISTERS, REFUSES):
            with self._undone():
                healthy = replace(outside, is_external=True, holds=())
                for key in outside.wire:
                    done = "revoked" if ":revoke:" in key else "registered"
                    healthy = self.land(healthy, key, done if answer == REGISTERS else "refused")
                after = self._driven_on(healthy, answer)
                self._judge(self._database(), after)
                delete_batch(self._repository(), ADMIN, self.batch_id)
            self.service.bodies = dict(bodies)
        with self._undone():
            after = self.decide(replace(outside, is_external=False, holds=()), self._attempt())
            database = self._database()
            self._judge(database, after)
            if database["item"][0] == "pending":
                dispatched = database["dispatch"]
                assert database["batch"][5], "only an item of a cancelled batch may wait for an external service"
                assert dispatched is not None, "the item is unresolved, but no service was ever asked"
                assert dispatched[0] == "asked", "the item is unresolved, although the service has responded"
            else:
                delete_batch(self._repository(), ADMIN, self.batch_id)

    def _attempt(self) -> int:
        return int(self._database()["item"][1])

    def _driven_on(self, outside: Outside, answer: str) -> Outside:
        """The state after deliveries of the present command."""
        attempt = self._attempt()
        marked = self.mark(outside, attempt)
        if marked is not None:
            question = marked.holds[0][0]
            assert isinstance(question, Question)
            outside = self.ask(marked, 0, HEARD if question.is_cancelled else answer)
            assert outside.holds, "the service's response was not understood"
            outside = self.write_down(outside, 0)
        outside = self.decide(outside, attempt)
        database = self._database()
        assert database["item"][0] != "pending", "the item stays unresolved"
        if database["request"] and database["request"][0] == "asked":
            outside = self.ask(self.take_request(outside), 0, REVOKES if answer == REGISTERS else REFUSES)
            outside = self.write_down(outside, 0)
            assert self._database()["request"][0] != "asked", "the request to revoke stays open"
        return outside

    def close(self) -> None:
        self.runner.run(self.client.__aexit__(None, None, None))
        self.runner.close()


class Undone:
    """A savepoint that is always rolled back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._savepoint = self._connection.begin_nested()

    def __exit__(self, *_: object) -> None:
        self._savepoint.rollback()


def explored(settings: Settings, engine: Engine, pipeline: Pipeline, bounds: Bounds) -> Search:
    batch_id = pipeline.submit(mentors(1))
    pipeline.relay()
    pipeline.handle(pipeline.splitter, pipeline.take(*pipeline.splitter.topics))
    [first] = [record(event) for queue in pipeline.queues.values() for event in queue]

    def command(attempt: int) -> Record[EventData]:
        return first._replace(data=first.data.model_copy(update={"attempt": attempt}))

    with engine.connect() as connection, connection.begin() as transaction:
        search = Search(settings, connection, batch_id, command, bounds)
        try:
            search.explore(Outside())
        finally:
            search.close()
            transaction.rollback()
    return search


# Once the item is registered: every request to revoke it, and every answer.
REVOCATIONS = Bounds(
    attempts=1,
    processes=1,
    switches=False,
    redelivers=False,
    dawdles=True,
    of_a_post=(REGISTERS,),
    of_a_lookup=(HEARD,),
    requests=2,
    of_a_revocation=(REVOKES, REFUSES, LATE),
)
EVERYTHING = Bounds(
    attempts=2,
    processes=1,
    switches=True,
    redelivers=True,
    dawdles=True,
    of_a_post=(REGISTERS, REFUSES, REGISTERS_UNHEARD, REFUSES_UNHEARD, LOST, LATE, WITHDRAWS),
    of_a_lookup=(HEARD, UNHEARD, LANDS_BETWEEN),
)
# A late request may be registered or refused, or never arrive. These are all the doubts that exist.
EVERY_DOUBT = replace(
    EVERYTHING, switches=False, redelivers=False, dawdles=False, of_a_post=(REGISTERS, LATE), of_a_lookup=(HEARD, LANDS_BETWEEN)
)

FAR = (pytest.mark.full, pytest.mark.timeout(7_200))


@pytest.mark.parametrize(
    "bounds",
    [
        pytest.param(EVERY_DOUBT, id="every doubt"),
        pytest.param(
            replace(EVERY_DOUBT, switches=True, of_a_post=(REFUSES, REGISTERS_UNHEARD), of_a_lookup=(HEARD,)), id="switched"
        ),
        pytest.param(REVOCATIONS, id="revocations"),
        pytest.param(EVERYTHING, id="everything", marks=FAR),
        pytest.param(
            replace(
                REVOCATIONS,
                switches=True,
                redelivers=True,
                of_a_revocation=(REVOKES, REFUSES, REVOKES_UNHEARD, REFUSES_UNHEARD, LOST, LATE),
            ),
            id="revocations with every fate",
            marks=FAR,
        ),
        pytest.param(replace(REVOCATIONS, processes=2), id="revocations of two processes", marks=FAR),
        pytest.param(replace(EVERYTHING, attempts=3, switches=False), id="three attempts", marks=FAR),
        pytest.param(replace(EVERYTHING, processes=2, switches=False), id="two processes", marks=FAR),
    ],
)
def test_row_54_every_state_of_an_item_at_an_external_service(
    settings: Settings, engine: Engine, pipeline: Pipeline, bounds: Bounds
) -> None:
    search = explored(settings, engine, pipeline, bounds)
    assert len(search.seen) > 50, "the search found too few states"
