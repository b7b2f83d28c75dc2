"""Asks an external registration service before the registration decides (docs/external-registration.md; decision 12).

It works in rounds. A round waits until the service is available, marks the items as dispatched and commits, sends one request for each
item (several at once), stores the definite responses and commits. After a pause, the next round asks again for the other items, under the
same keys. Each round first reads the database, so it does not send again what was cancelled or decided meanwhile. While the service is
waited for, no transaction is open and no lock is held.

Only an item's own tries and the pauses between them count against its deadline. The time in which the breaker is open does not count.
"""

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Connection, Engine

from consumers.external.breaker import BreakerPolicy, CircuitBreaker
from consumers.external.http_client import RegistrationClient, Unknown
from consumers.loop.handler import Record
from orchestrator.batches.repository import OutcomeKey
from orchestrator.process import metrics
from orchestrator.process.actions import Action, log_action
from orchestrator.process.failpoints import Failpoint, failpoints
from orchestrator.process.settings import Settings
from orchestrator.registration.external import Question, Refused, Registered, Registration, Settled, Withdrawn
from orchestrator.registration.external_revoking import (
    ActivityRevoked,
    RevocationQuestion,
    RevocationRefused,
    RevocationSettled,
    write_answers,
)
from orchestrator.registration.external_revoking import questions as revocation_questions
from orchestrator.registration.rules import REGISTRATION_UNAVAILABLE
from orchestrator.storage.blame import TransientError
from orchestrator.storage.dispatch import DispatchState, SettledDispatch, mark_dispatched, record_settled
from orchestrator.storage.locks import share_periods, take_batches
from orchestrator.storage.outcomes import command_states
from orchestrator.storage.revocation_requests import RevocationKey
from schemas.events import EventData, RegisterActivity, RevokeActivity

# An item is tried again after about 0.1 s, then at growing intervals: about ten tries within the deadline of 30 s.
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class PatiencePolicy:
    """How long the service is asked for an item, and for how many items at once."""

    concurrency: int
    request_timeout_s: float
    deadline_s: float


_Command = OutcomeKey | RevocationKey
_Question = Question | RevocationQuestion
_Answer = Settled | RevocationSettled | Unknown

_NAMES: Mapping[type[_Answer], str] = {
    Registered: "registered",
    Refused: "refused",
    Withdrawn: "withdrawn",
    ActivityRevoked: "revoked",
    RevocationRefused: "revocation_refused",
    Unknown: "unknown",
}
"""What the metric calls the responses."""


class ExternalRegistration:
    """The preparation of the registration role. It runs in the loop's worker thread; call `close` after that thread has ended."""

    def __init__(self, settings: Settings, engine: Engine, *, jitter: Callable[[], float] = random.random) -> None:
        self._engine = engine
        self._policy = PatiencePolicy(
            settings.registration_concurrency,
            settings.registration_request_timeout_ms / 1000,
            settings.registration_deadline_ms / 1000,
        )
        max_pause_s = settings.registration_breaker_max_pause_ms / 1000
        self._breaker = CircuitBreaker(
            BreakerPolicy(settings.registration_breaker_failures, min(2 * FIRST_PAUSE_S, max_pause_s), max_pause_s), jitter
        )
        self._jitter = jitter
        self._passed = failpoints(settings.failpoints)
        self._settings = settings
        self._runner = asyncio.Runner()
        self._resources = AsyncExitStack()
        self._opened: RegistrationClient | None = None

    def close(self) -> None:
        """Closes the connections. Must not be called while `prepare` runs."""
        self._runner.run(self._resources.aclose())
        self._runner.close()

    def prepare(self, records: Sequence[Record[EventData]], stopping: threading.Event) -> None:
        """Asks until every command has a definite response or its deadline has passed. Raises TransientError when it is told to stop."""
        commands = _keys(records)
        spent_s: dict[_Command, float] = defaultdict(float)
        longest_pause_s = FIRST_PAUSE_S
        while True:
            commands = [command for command in commands if spent_s[command] < self._policy.deadline_s]
            if not commands:
                return
            self._await_service(stopping)
            questions = self._dispatch(commands)
            if not questions:
                return
            self._passed(Failpoint.REGISTRATION_AFTER_DISPATCH_COMMIT)
            pause_s = longest_pause_s * (1 + self._jitter()) / 2
            commands = self._round(questions, spent_s, pause_s)
            if commands and not self._breaker.is_open:
                _wait(stopping, pause_s)
            longest_pause_s = min(2 * longest_pause_s, MAX_PAUSE_S)

    def _round(self, questions: Sequence[_Question], spent_s: dict[_Command, float], pause_s: float) -> list[_Command]:
        """Asks once for each question and stores the definite responses. Returns the commands that are still open.

        The caller pauses for `pause_s` before it asks again, so the pause is charged to these commands here.
        """
        answers = self._runner.run(self._ask(questions, spent_s))
        self._passed(Failpoint.REGISTRATION_AFTER_ANSWERS)
        registrations: list[SettledDispatch] = []
        revocations: list[tuple[RevocationQuestion, RevocationSettled]] = []
        waiting: list[_Command] = []
        for question, answer in zip(questions, answers, strict=True):
            if isinstance(question, RevocationQuestion) and isinstance(answer, RevocationSettled):
                revocations.append((question, answer))
            elif isinstance(question, Question) and isinstance(answer, Settled):
                registrations.append(settled_dispatch(question, answer))
            else:
                waiting.append(question.command)
            if isinstance(answer, Unknown):
                spent_s[question.command] += pause_s
        if registrations:
            with self._engine.begin() as connection:
                record_settled(connection, registrations)
        if revocations:
            with self._engine.begin() as connection:
                write_answers(connection, revocations)
        self._passed(Failpoint.REGISTRATION_AFTER_ANSWERS_COMMIT)
        return waiting

    def _dispatch(self, commands: Sequence[_Command]) -> list[_Question]:
        """Returns a question for each item that has to be asked for. Its mark is committed."""
        attempts = [command for command in commands if isinstance(command, OutcomeKey)]
        requests = [command for command in commands if isinstance(command, RevocationKey)]
        asked: list[_Question] = []
        with self._engine.begin() as connection:
            if attempts:
                asked += mark_questions(connection, attempts)
            if requests:
                asked += revocation_questions(connection, requests)
        return asked

    # --- The breaker ------------------------------------------------------------------------------------------------------

    def _await_service(self, stopping: threading.Event) -> None:
        """Returns when the breaker is closed. Only this thread sleeps: the loop's thread goes on polling."""
        if not self._breaker.is_open:
            return
        log_action(Action.SERVICE_AWAY, role="registration")
        metrics.REGISTRATION_BREAKER_OPEN.set(1)
        while self._breaker.is_open:
            _wait(stopping, self._breaker.next_pause_s())
            if self._runner.run(self._probe()):
                self._breaker.close()
        metrics.REGISTRATION_BREAKER_OPEN.set(0)
        log_action(Action.SERVICE_BACK, role="registration")

    async def _probe(self) -> bool:
        return await (await self._client()).is_there(self._policy.request_timeout_s)

    # --- Requests ---------------------------------------------------------------------------------------------------------

    async def _client(self) -> RegistrationClient:
        if self._opened is None:
            self._opened = await self._resources.enter_async_context(RegistrationClient(self._settings))
        return self._opened

    async def _ask(self, questions: Sequence[_Question], spent_s: dict[_Command, float]) -> list[_Answer | None]:
        """Returns a response for each question, in order. None: not asked, because the breaker opened before its turn."""
        client = await self._client()
        turns = asyncio.Semaphore(self._policy.concurrency)

        async def ask(question: _Question) -> _Answer | None:
            async with turns:
                if self._breaker.is_open:
                    return None
                began = time.monotonic()
                patience_s = self._policy.deadline_s - spent_s[question.command]
                timeout_s = min(self._policy.request_timeout_s, patience_s)
                if isinstance(question, RevocationQuestion):
                    answer: _Answer = await client.revoke(question, timeout_s)
                else:
                    answer = await client.settle(question, timeout_s)
                spent_s[question.command] += time.monotonic() - began
                self._note(question, answer)
                return answer

        return await asyncio.gather(*map(ask, questions))

    def _note(self, question: _Question, answer: _Answer) -> None:
        metrics.REGISTRATION_REQUESTS.labels(_NAMES[type(answer)]).inc()
        if not isinstance(answer, Unknown) or answer.was_heard:
            self._breaker.answered()
            return
        log_action(
            Action.UNANSWERED,
            role="registration",
            batch=question.command.batch_id,
            position=question.command.position,
            key=question.key,
            reason=answer.reason,
        )
        if answer.wait_s is not None:
            self._breaker.hold(answer.wait_s)
        else:
            # The service was not reached. That says nothing about this item, so each time counts as another asker.
            self._breaker.unanswered(question.command if answer.was_reached else object())


def _keys(records: Sequence[Record[EventData]]) -> list[_Command]:
    """Returns the commands, each once."""
    return list(dict.fromkeys(_key(record.data) for record in records))


def _key(data: EventData) -> _Command:
    if isinstance(data, RevokeActivity):
        return RevocationKey(str(data.batch_id), data.position)
    command = cast("RegisterActivity", data)
    return OutcomeKey(str(command.batch_id), command.position, command.attempt)


def mark_questions(connection: Connection, commands: Sequence[OutcomeKey]) -> list[Question]:
    """Marks the items that may be asked for as dispatched. Returns their open questions, including those that were marked before."""
    take_batches(connection, [command.batch_id for command in commands])
    _, states = command_states(connection, commands)
    share_periods(connection, {state.organization_id for state in states.values()})
    undecided = [commands[index] for index, state in states.items() if state.outcome is None]
    if not undecided:
        return []
    return [
        Question(
            command=(command := undecided[row.ord - 1]),
            refusals=row.refusals,
            registration=Registration(
                batch_id=command.batch_id,
                item_id=row.item_id,
                organization_id=row.organization_id,
                attributed_to=row.mentor_id,
                registered_by=row.coordinator_id,
                submitted_by=row.submitted_by,
                channel=row.channel,
                activity_type=row.activity_type,
                activity_date=row.activity_date,
                duration_minutes=row.duration_minutes,
                notes=row.notes,
                override_duplicates=row.override_duplicates,
            ),
            trace_id=row.trace_id,
            is_cancelled=row.is_cancelled,
        )
        for row in mark_dispatched(connection, undecided)
    ]


_STATES: Mapping[type[Settled], DispatchState] = {
    Registered: DispatchState.REGISTERED,
    Refused: DispatchState.REFUSED,
    Withdrawn: DispatchState.WITHDRAWN,
}


def settled_dispatch(question: Question, answer: Settled) -> SettledDispatch:
    """Returns a definite response in the form that is stored."""
    if isinstance(answer, Withdrawn) and not question.is_cancelled:
        # This product did not withdraw it, so the service did on its own. The key is used up; a retry asks under the next key.
        answer = Refused(REGISTRATION_UNAVAILABLE)
    state = _STATES[type(answer)]
    activity_id = answer.activity_id if isinstance(answer, Registered) else None
    error = answer.error if isinstance(answer, Refused) else None
    return SettledDispatch(question.command.batch_id, question.command.position, question.refusals, state, activity_id, error)


def _wait(stopping: threading.Event, pause_s: float) -> None:
    if stopping.wait(pause_s):
        raise TransientError("stopped before the registration service had responded; it is asked again under the same keys")
