"""People at work: each submits, follows, corrects, retries, cancels, revokes, dismisses and deletes, and changes the others' batches."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp
import uvloop

from schemas.ids import DerivedIds
from schemas.paths import ACTIVITIES_PATH, API_ROOT, CLOSED_PERIOD_PATH
from tests.chaos.calls import TIMEOUT_S, Api, Reply
from tests.chaos.history import GONE, Call, Closing, Ending, History, Observation, Operation, Submission, Values
from tests.chaos.leavers import Farewell
from tests.chaos.notes import NOTED_EVERY, Eraser
from tests.chaos.work import ACTIVE, FIRST_DAY, Work
from tests.support.pipeline import COORDINATOR, ORGANIZATION

TEMPLATES_PATH = f"{API_ROOT}/templates"

FOLLOW_S = (0.0, 15.0)  # After this time a client does something else. The judge checks whether the batch ended.
REPEATS = 4  # For a call without a response, where a repetition is the documented way to find out.
PAUSE_S = 0.3

OPEN_S, CLOSED_S = (1.0, 4.0), (0.1, 1.0)
"""How long the period is open, and closed."""

HASTY, HASTE_S = 0.1, 0.08
"""How often a client gives up within this many seconds, which is about as long as a response takes. So many calls are carried out without a
response."""

KEYED, UNWATCHED, CANCELLED, RETRIED, DELETED, CANCELLED_LATE, MEDDLED, REVOKED = 0.5, 0.4, 0.12, 0.6, 0.15, 0.05, 0.2, 0.15
DISMISSED, GROUPED = 0.3, 0.05
"""How often a client does so."""


class Client:
    """One person, who does one thing after the other."""

    def __init__(
        self,
        number: int,
        seed: str,
        api: Api,
        work: Work,
        history: History,
        recent: deque[tuple[Submission, str]],
    ) -> None:
        """`recent` are accepted batches of all clients, which others may change."""
        self._number = number
        self._rng = random.Random(f"{seed} client {number}")
        self._api = api
        self._work = work
        self._history = history
        self._recent = recent
        self._keys = 0

    async def run(self, is_over: asyncio.Event) -> None:
        """Works until the end. Its present batch is left as it is."""
        while not is_over.is_set():
            if self._rng.random() < GROUPED:
                await self._keep_a_group()
            elif self._recent and self._rng.random() < MEDDLED:
                await self._meddle(*self._rng.choice(self._recent))
            else:
                await self._care_for_one(is_over)

    async def _care_for_one(self, is_over: asyncio.Event) -> None:
        submission = self._work.submission(self._rng)
        batch_id = await self._submit(submission)
        if batch_id is None:
            await asyncio.sleep(PAUSE_S)
            return
        self._recent.append((submission, batch_id))
        if self._rng.random() < CANCELLED:
            await asyncio.sleep(self._rng.random() * 0.3)
            await self._cancel(submission, batch_id)
        if self._rng.random() < UNWATCHED:
            return
        shown = await self._follow(submission, batch_id, is_over)
        while shown is not None and shown["failed"] and shown["status"] != "cancelled" and self._rng.random() < RETRIED:
            await self._retry(submission, batch_id, shown["items"])
            shown = await self._follow(submission, batch_id, is_over)
        if self._rng.random() < CANCELLED_LATE:
            await self._cancel(submission, batch_id)
        if shown is not None and shown["failed"] and self._rng.random() < DISMISSED:
            await self._dismiss(submission, batch_id)
        if shown is not None and self._rng.random() < REVOKED:
            await self._revoke(submission, batch_id)
        if shown is not None and self._rng.random() < DELETED:
            await self._delete(submission, batch_id)
            await self._look(submission, batch_id, etag="")

    async def _meddle(self, submission: Submission, batch_id: str) -> None:
        """Changes a batch of another client."""
        match self._rng.randrange(6):
            case 0:
                await self._cancel(submission, batch_id)
            case 1:
                await self._delete(submission, batch_id)
            case 3:
                await self._dismiss(submission, batch_id)
            case 2:
                await self._revoke(submission, batch_id)
            case _:
                answer = await self._look(submission, batch_id, etag="")
                if answer.document.get("failed"):
                    await self._retry(submission, batch_id, answer.document["items"])

    async def _submit(self, submission: Submission) -> str | None:
        """The id of the batch, or None if it was refused or is unknown."""
        body = {
            "organization_id": ORGANIZATION,
            "coordinator_id": COORDINATOR,
            "label": submission.label,
            "items": [
                _as_json(values) | ({} if position % NOTED_EVERY else {"notes": f"note {position} of {submission.label}"})
                for position, values in enumerate(submission.items)
            ],
        }
        key = self._maybe_key()
        answer = await self._call(Operation.SUBMIT, submission, "POST", "", body, key=key, repeated=key is not None)
        return str(answer.document["batch_id"]) if answer.outcome is Ending.OK else None

    async def _cancel(self, submission: Submission, batch_id: str) -> None:
        await self._call(Operation.CANCEL, submission, "POST", f"/{batch_id}/cancel", key=self._maybe_key(), repeated=True)

    async def _revoke(self, submission: Submission, batch_id: str) -> None:
        """Revokes all of it, or some items, or one activity by its id. Repeating that is harmless, with and without a key."""
        body: dict[str, Any] = {"reason": "a mistake"}
        path, ids, positions = f"/{batch_id}/revoke", DerivedIds(UUID(batch_id)), range(len(submission.items))
        match self._rng.randrange(4):
            case 0:
                chosen = [position for position in positions if self._rng.random() < 0.3] or [0]
                body["item_ids"] = [str(ids.item_id(position)) for position in chosen]
            case 1:
                path = f"{ACTIVITIES_PATH}/{ids.activity_id(self._rng.choice(positions))}/revoke"
            case _:
                pass
        await self._call(Operation.REVOKE, submission, "POST", path, body, key=self._maybe_key(), repeated=True)

    async def _dismiss(self, submission: Submission, batch_id: str) -> None:
        await self._call(Operation.DISMISS, submission, "POST", f"/{batch_id}/dismiss", key=self._maybe_key(), repeated=True)

    async def _keep_a_group(self) -> None:
        """Saves a template that no other client knows, changes it, reads it and deletes it."""
        mentors = [f"mentor-{number}" for number in range(1, self._rng.randint(2, 5))]
        group = {"name": f"of client {self._number}", "mentor_ids": mentors, "activity_type": "visit", "duration_minutes": 60}
        saved = await self._ask_until_known("POST", TEMPLATES_PATH, {**group, "coordinator_id": COORDINATOR})
        if saved.outcome is not Ending.OK:
            return
        path = f"{TEMPLATES_PATH}/{saved.document['template_id']}"
        changed = {**group, "duration_minutes": 90}
        change = await self._ask_until_known("PUT", path, changed)
        allowed = [changed] if change.outcome is Ending.OK else [group, changed]
        read = await self._api.ask("GET", path)
        if read.status == 404 or (read.status == 200 and {name: read.document[name] for name in group} not in allowed):
            self._history.wrong_templates.append(f"{path}: {read.status} {read.document}, saved was one of {allowed}")
        if (await self._ask_until_known("DELETE", path, None)).outcome is Ending.OK:
            read = await self._api.ask("GET", path)
            if read.status == 200:
                self._history.wrong_templates.append(f"{path} was deleted, and is there")

    async def _ask_until_known(self, method: str, path: str, body: object) -> Reply:
        """Repeats a call under one key while its outcome is unknown."""
        self._keys += 1
        headers = {"Idempotency-Key": f"client {self._number} key {self._keys}"}
        for _ in range(REPEATS):
            answer = await self._api.ask(method, path, body, headers)
            if answer.outcome is not Ending.UNKNOWN:
                break
            await asyncio.sleep(PAUSE_S)
        return answer

    async def _delete(self, submission: Submission, batch_id: str) -> None:
        await self._call(Operation.DELETE, submission, "DELETE", f"/{batch_id}", repeated=True)

    async def _retry(self, submission: Submission, batch_id: str, failed: Sequence[Mapping[str, Any]]) -> None:
        """Retries all that failed, or some, or some with corrections."""
        body: dict[str, Any] = {}
        corrections: dict[int, Values] = {}
        chosen = [item for item in failed if self._rng.random() < 0.8] or list(failed)[:1]
        match self._rng.randrange(5):
            case 0:
                pass
            case 1:
                body = {"only_retryable": True}
            case 2:
                body = {"item_ids": [item["item_id"] for item in chosen]}
            case _:
                corrections = {item["position"]: self._work.correction(self._rng) for item in chosen}
                by_position = {item["position"]: item["item_id"] for item in chosen}
                body = {"corrections": [{"item_id": by_position[position], **_as_json(v)} for position, v in corrections.items()]}
        key = self._maybe_key()
        path = f"/{batch_id}/retry"
        await self._call(
            Operation.RETRY, submission, "POST", path, body, key=key, repeated=key is not None, corrections=corrections
        )

    async def _follow(self, submission: Submission, batch_id: str, is_over: asyncio.Event) -> Mapping[str, Any] | None:
        """The batch after it has ended. None if it does not exist any more, or takes too long."""
        etag, deadline = "", time.monotonic() + self._rng.uniform(*FOLLOW_S)
        while time.monotonic() < deadline and not is_over.is_set():
            answer = await self._look(submission, batch_id, etag=etag)
            if answer.status == 404:
                return None
            if answer.status == 200:
                etag = answer.etag
                if answer.document["status"] not in ACTIVE:
                    return answer.document
            elif answer.outcome is not Ending.OK:
                await asyncio.sleep(PAUSE_S)
        return None

    async def _look(self, submission: Submission, batch_id: str, *, etag: str) -> Reply:
        path = f"/{batch_id}?items=failed&item_limit=1000" + ("&wait=1s" if etag else "")
        answer = await self._api.ask("GET", path, headers={"If-None-Match": etag} if etag else None)
        self._history.reads[answer.outcome] += 1
        if answer.status in (200, 404):
            status = answer.document["status"] if answer.status == 200 else GONE
            self._history.saw(Observation(self._number, submission.label, time.monotonic(), status, answer.counts))
        return answer

    async def _call(
        self,
        operation: Operation,
        submission: Submission,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        repeated: bool = False,
        corrections: Mapping[int, Values] | None = None,
    ) -> Reply:
        """Records the call. With `repeated`, repeats it while its outcome is unknown, and records each repetition."""
        headers = {} if key is None else {"Idempotency-Key": key}
        for _ in range(REPEATS if repeated else 1):
            began_s = time.monotonic()
            is_hasty = self._rng.random() < HASTY
            patience_s = self._rng.uniform(0, HASTE_S) if is_hasty else TIMEOUT_S
            answer = await self._api.ask(method, path, body, headers, patience_s=patience_s)
            self._history.add(
                Call(
                    label=submission.label,
                    operation=operation,
                    outcome=answer.outcome,
                    began_s=began_s,
                    ended_s=time.monotonic(),
                    status=answer.status,
                    key=key,
                    batch_id=answer.document.get("batch_id"),
                    retried=answer.document.get("retried"),
                    revoked=answer.document.get("revoked") if operation is Operation.REVOKE else None,
                    corrections=corrections or {},
                    counts=answer.counts,
                )
            )
            if answer.outcome is not Ending.UNKNOWN:
                break
            await asyncio.sleep(PAUSE_S)
        return answer

    def _maybe_key(self) -> str | None:
        if self._rng.random() > KEYED:
            return None
        self._keys += 1
        return f"client {self._number} key {self._keys}"


class Closer:
    """An administrator, who closes the period through some day and reopens it soon."""

    def __init__(self, seed: str, api: Api, work: Work, history: History) -> None:
        self._rng = random.Random(f"{seed} closer")
        self._api = api
        self._work = work
        self._history = history
        self._keys = 0

    async def run(self, is_over: asyncio.Event) -> None:
        """Until it is over. The period is open most of the time, and in the end."""
        while not is_over.is_set():
            await asyncio.sleep(self._rng.uniform(*OPEN_S))
            days = (self._work.last_day() - FIRST_DAY).days
            await self._change((FIRST_DAY + timedelta(days=self._rng.randint(0, days))).isoformat())
            await asyncio.sleep(self._rng.uniform(*CLOSED_S))
            await self._change(None)

    async def _change(self, closed_through: str | None) -> None:
        self._keys += 1
        headers = {"Idempotency-Key": f"closer key {self._keys}"}
        for _ in range(REPEATS):
            patience_s = self._rng.uniform(0, HASTE_S) if self._rng.random() < HASTY else TIMEOUT_S
            body = {"closed_through": closed_through, "reason": "a report"}
            answer = await self._api.ask("PUT", CLOSED_PERIOD_PATH, body, headers, patience_s=patience_s)
            self._history.closings.append(Closing(closed_through, answer.outcome))
            if answer.outcome is not Ending.UNKNOWN:
                break
            await asyncio.sleep(PAUSE_S)


class Submitter(Client):
    """A client that only submits."""

    async def run(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await self._submit(self._work.submission(self._rng))


def _as_json(values: Values) -> dict[str, object]:
    return {
        "mentor_id": values.mentor_id,
        "activity_type": values.activity_type,
        "activity_date": values.activity_date,
        "duration_minutes": values.duration_minutes,
        "override_duplicates": values.override_duplicates,
    }


def run_clients(
    number: int,
    seed: str,
    api: str,
    token: str,
    work: Work,
    history: History,
    until: Callable[[], Awaitable[None]],
    kind: type[Client] = Client,
) -> None:
    """Runs this many clients at once, until `until` returns. Raises an error that `until` or any of them raised."""

    async def main() -> None:
        headers = {"Authorization": f"Bearer {token}", "X-Organization-Id": ORGANIZATION, "Content-Type": "application/json"}
        recent: deque[tuple[Submission, str]] = deque(maxlen=4 * number)
        is_over = asyncio.Event()
        async with aiohttp.ClientSession(api, headers=headers) as session, asyncio.TaskGroup() as tasks:
            for index in range(number):
                client = kind(index, seed, Api(session, history.server_errors), work, history, recent)
                tasks.create_task(client.run(is_over))
            if kind is Client:
                tasks.create_task(Closer(seed, Api(session, history.server_errors), work, history).run(is_over))
                tasks.create_task(Farewell(seed, Api(session, history.server_errors), work, history).run(is_over))
                tasks.create_task(Eraser(seed, Api(session, history.server_errors), history, recent).run(is_over))
            try:
                await until()
            finally:
                # Even if `until` raises: a client whose request times out in the moment in which it is cancelled goes on.
                is_over.set()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
