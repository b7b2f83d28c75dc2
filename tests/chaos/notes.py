"""Notes that an administrator erases at random while everything breaks, and what of them is left in the end."""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

import psycopg2

from schemas.ids import DerivedIds
from tests.chaos.calls import TIMEOUT_S, Api
from tests.chaos.history import Ending, Erasure, History, Submission
from tests.chaos.judge import Finding, Rule

NOTED_EVERY = 5
"""The first of so many items of a batch has notes, if it came over HTTP."""

PAUSE_S = 0.3
REPEATS = 4
HASTY, HASTE_S = 0.2, 0.08
"""How often the administrator gives up within this many seconds, about as long as a response takes."""

_ITEMS = """
    SELECT b.batch_id::text, b.label, i.position, i.notes IS NOT NULL, a.notes IS NOT NULL OR EXISTS (
        SELECT FROM orchestrator.item_history h WHERE (h.batch_id, h.position) = (i.batch_id, i.position)
        AND (h.submitted ->> 'notes' IS NOT NULL OR h.correction ->> 'notes' IS NOT NULL))
    FROM orchestrator.batch b JOIN orchestrator.batch_item i USING (batch_id)
    LEFT JOIN registration.activity a ON a.item_id = i.item_id AND a.batch_id = i.batch_id
    WHERE i.position %% %s = 0
"""


@dataclass(frozen=True, slots=True)
class NotedItem:
    """An item that was submitted with notes."""

    batch_id: str
    label: str
    position: int
    has_notes: bool
    has_copies: bool
    """Whether its activity or an earlier attempt has notes."""


class Eraser:
    """An administrator, who erases the notes of one item after the other."""

    def __init__(self, seed: str, api: Api, history: History, recent: deque[tuple[Submission, str]]) -> None:
        """`recent` are accepted batches of all clients."""
        self._rng = random.Random(f"{seed} eraser")
        self._api = api
        self._history = history
        self._recent = recent

    async def run(self, is_over: asyncio.Event) -> None:
        """Until it is over."""
        while not is_over.is_set():
            await asyncio.sleep(self._rng.uniform(0, 2 * PAUSE_S))
            if self._recent:
                submission, batch_id = self._rng.choice(self._recent)
                await self._erase(submission, batch_id, self._rng.randrange(0, len(submission.items), NOTED_EVERY))

    async def _erase(self, submission: Submission, batch_id: str, position: int) -> None:
        path = f"/{batch_id}/items/{DerivedIds(UUID(batch_id)).item_id(position)}/notes"
        for _ in range(REPEATS):
            patience_s = self._rng.uniform(0, HASTE_S) if self._rng.random() < HASTY else TIMEOUT_S
            answer = await self._api.ask("DELETE", path, patience_s=patience_s)
            self._history.erasures.append(Erasure(submission.label, position, answer.outcome))
            if answer.outcome is not Ending.UNKNOWN:
                break
            await asyncio.sleep(PAUSE_S)


def read_noted_items(url: str, history: History) -> Iterator[NotedItem]:
    """The items of HTTP batches that were submitted with notes."""
    with psycopg2.connect(url) as connection, connection.cursor("noted") as cursor:
        cursor.execute(_ITEMS, (NOTED_EVERY,))
        while rows := list(islice(cursor, 1_000)):
            for item in (NotedItem(*row) for row in rows):
                submission = history.submissions.get(item.label or "")
                if submission is not None and submission.batch_id is None:
                    yield item
    connection.close()


def note_findings(history: History, items: Iterable[NotedItem], forgotten: Set[str]) -> Iterator[Finding]:
    """After an erasure that returned, nothing is left of the notes. Notes that nobody erased are there.

    A restored database has `forgotten` some batches, and gets them back from the topics, which have no notes.
    """
    erased = {(each.label, each.position) for each in history.erasures if each.outcome is Ending.OK}
    possible = {(each.label, each.position) for each in history.erasures if each.outcome is not Ending.FAILED}
    for item in items:
        place = item.label, item.position
        if place in erased and (item.has_notes or item.has_copies):
            yield Finding(Rule.NOTES_LEFT, item.label, f"position {item.position}: {item}")
        if place not in possible and not item.has_notes and item.batch_id not in forgotten:
            yield Finding(Rule.NOTES_LOST, item.label, f"position {item.position}: nobody erased them")
