"""People who leave and are forgotten while everything breaks, and what of them is left in the end.

Nobody else has items for them, so that the judge knows what was asked for them.
"""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import psycopg2

from consumers.reading.topic_reader import TopicReader
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from schemas.paths import FORGETTINGS_PATH
from tests.chaos.calls import TIMEOUT_S, Api, Reply
from tests.chaos.cluster import Cluster
from tests.chaos.history import Call, Ending, Erasure, Forgetting, History, Operation, Submission, Values
from tests.chaos.judge import Finding, Rule
from tests.chaos.receipts import published_keys, verified
from tests.chaos.tables import ActivityRow, BatchRow, ItemRow
from tests.chaos.work import ACTIVE, LEAVERS, NO_TYPE, Work, leaver
from tests.support.pipeline import COORDINATOR, ORGANIZATION

DAY = "2020-01-01"
"""Later than all other items, so that no closed period has it."""

PACE_S = (1.0, 8.0)
PAUSE_S, ENDS_WITHIN, REPEATS = 0.5, 40, 20
HASTY, HASTE_S = 0.2, 0.08
CHECKED = 3
"""How many receipts from before are verified."""

FINISHED_WITHIN_S = 900.0

CLOCKS_S = 2.0
"""How far the clock of the broker may be from that of the database."""

_NAMES = re.compile(rb"(?:leaver-|goodbye)(\d+)", re.IGNORECASE)
_TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration')"
_ITEMS = """
    SELECT b.label, i.mentor_id FROM orchestrator.batch b JOIN orchestrator.batch_item i USING (batch_id)
    WHERE b.label = ANY (%s) AND i.position < 2
"""
_OPEN = "SELECT mentor_id FROM registration.forgetting WHERE done_at IS NULL LIMIT 1"
_DONE = "SELECT pseudonym, done_at FROM registration.forgetting WHERE done_at IS NOT NULL"


class Farewell:
    """An administrator, who has one person after the other forgotten: after a batch with records of the person has ended."""

    def __init__(self, seed: str, api: Api, work: Work, history: History) -> None:
        self._rng = random.Random(f"{seed} farewell")
        self._api = api
        self._work = work
        self._history = history

    async def run(self, is_over: asyncio.Event) -> None:
        """Until it is over, or nobody is left."""
        for number in range(1, LEAVERS + 1):
            await asyncio.sleep(self._rng.uniform(*PACE_S))
            if is_over.is_set():
                return
            await self._say_goodbye(number, is_over)

    async def _say_goodbye(self, number: int, is_over: asyncio.Event) -> None:
        person = leaver(number)
        submission, batch_id = await self._submit(person, number)
        if batch_id is None or not await self._has_ended(batch_id, is_over):
            return
        receipt = await self._ask(lambda: self._api.ask("GET", f"/{batch_id}/receipt"), is_over)
        asked = await self._ask(lambda: self._forget(person), is_over)
        is_known_no_more = asked.document.get("code") == "mentor_unknown"
        # From now on the notes of the first item may be gone.
        self._history.erasures.append(Erasure(submission.label, 0, Ending.UNKNOWN))
        kept = orjson.dumps(receipt.document) if receipt.outcome is Ending.OK else None
        # An earlier request of ours was carried out, if nobody knows the person any more.
        outcome = Ending.OK if is_known_no_more else asked.outcome
        unknown_at = datetime.now(UTC) if is_known_no_more else None
        self._history.forgettings.append(Forgetting(person, number, submission.label, outcome, kept, unknown_at))

    async def _submit(self, person: str, number: int) -> tuple[Submission, str | None]:
        """A record, a failed item, and another mentor's item whose notes name the person."""
        [other] = self._work.take(1)
        own = Values(person, "visit", DAY, 60)
        submission = self._work.asked_for([own, replace(own, activity_type=NO_TYPE), other])
        notes = (f"about {person}", f"the same about {person}", f"with {person}, that is Anna Goodbye{number}")
        items = [
            {
                "mentor_id": each.mentor_id, "activity_type": each.activity_type, "activity_date": each.activity_date,
                "duration_minutes": each.duration_minutes, "notes": note, "client_reference": f"row {position} of {person}",
            }
            for position, (each, note) in enumerate(zip(submission.items, notes, strict=True))
        ]  # fmt: skip
        body = {"organization_id": ORGANIZATION, "coordinator_id": COORDINATOR, "label": submission.label, "items": items}
        began_s = asyncio.get_running_loop().time()
        reply = await self._api.ask("POST", "", body)
        batch_id = reply.document.get("batch_id") if reply.outcome is Ending.OK else None
        self._history.add(
            Call(
                label=submission.label,
                operation=Operation.SUBMIT,
                outcome=reply.outcome,
                began_s=began_s,
                ended_s=asyncio.get_running_loop().time(),
                status=reply.status,
                batch_id=batch_id,
            )
        )
        return submission, batch_id

    async def _has_ended(self, batch_id: str, is_over: asyncio.Event) -> bool:
        for _ in range(ENDS_WITHIN):
            reply = await self._api.ask("GET", f"/{batch_id}")
            if is_over.is_set() or (reply.status == 200 and reply.document["status"] not in ACTIVE):
                return not is_over.is_set()
            await asyncio.sleep(PAUSE_S)
        return False

    async def _forget(self, person: str) -> Reply:
        patience_s = self._rng.uniform(0, HASTE_S) if self._rng.random() < HASTY else TIMEOUT_S
        return await self._api.ask("POST", FORGETTINGS_PATH, {"mentor_id": person}, patience_s=patience_s)

    async def _ask(self, what: Callable[[], Awaitable[Reply]], is_over: asyncio.Event) -> Reply:
        """Repeats a call until it succeeds, or is refused for good. Returns its last reply."""
        for _ in range(REPEATS):
            reply = await what()
            if reply.outcome is Ending.OK or reply.document.get("code") == "mentor_unknown" or is_over.is_set():
                break
            await asyncio.sleep(PAUSE_S)
        return reply


def finish_forgettings(cluster: Cluster) -> Iterator[Finding]:
    """An operator does what the sweeper, which takes some pages in each round, has not finished. While the sweeper works, the command leaves
    it the request."""
    for _ in range(REPEATS):
        if (waiting := _first_open(cluster.postgres_url)) is None:
            return
        command = ("directory", "forget", "--org", ORGANIZATION, "--mentor", waiting, "--yes")
        cluster.product.bulkreg(*command, code=None, within_s=FINISHED_WITHIN_S)
    yield Finding(Rule.STUCK, "people who leave", f"{REPEATS} commands did not finish their forgetting")


def _first_open(url: str) -> str | None:
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_OPEN)
        row = cursor.fetchone()
    connection.close()
    return None if row is None else str(row[0])


def read_pseudonyms(url: str, history: History) -> Mapping[str, str]:
    """Whom each pseudonym stands for, as the first two items of the person's batch show."""
    people = {each.label: each.mentor_id for each in history.forgettings}
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_ITEMS, (list(people),))
        found = {mentor_id: people[label] for label, mentor_id in cursor.fetchall() if mentor_id != people[label]}
    connection.close()
    return found


def with_their_ids(batches: Iterable[BatchRow], pseudonyms: Mapping[str, str]) -> Iterator[BatchRow]:
    """The batches with the ids that were submitted, so that the judge can compare everything else."""
    for batch in batches:
        rows: list[ItemRow | ActivityRow] = [*batch.items]
        rows += [activity for item in batch.items for activity in item.activities]
        for row in rows:
            if (person := pseudonyms.get(row.values.mentor_id)) is not None:
                row.values = replace(row.values, mentor_id=person)
        yield batch


def forgetting_findings(cluster: Cluster, history: History, pseudonyms: Mapping[str, str], folder: Path) -> Iterator[Finding]:
    """Who was forgotten, and is named: in a table, or in a record that was written afterwards. Receipts from before still hold."""
    yield from left_findings(history, read_named(cluster.postgres_url))
    done = read_done(cluster.postgres_url, history, pseudonyms)
    yield from left_findings(history, _named_later(cluster.settings, done))
    yield from hasty_findings(history, done)
    keys = published_keys(cluster)
    for each in [each for each in history.forgettings if each.receipt is not None][:CHECKED]:
        answer = verified(each.receipt or b"", keys, folder / "before.json")
        if not answer.get("holds") or len(answer["records"]) < 1:
            yield Finding(Rule.RECEIPT, each.label, f"a receipt from before somebody was forgotten does not hold: {answer}")


def left_findings(history: History, named: Mapping[int, Set[str]]) -> Iterator[Finding]:
    """`named` says where people are named, by their numbers. A person whose forgetting is uncertain may be."""
    for each in history.forgettings:
        if each.outcome is Ending.OK and (places := named.get(each.number)):
            yield Finding(Rule.FORGOTTEN_LEFT, each.label, f"{each.mentor_id} is named in {', '.join(sorted(places))}")


def hasty_findings(history: History, done: Mapping[int, datetime]) -> Iterator[Finding]:
    """Who was said to be nobody while the request was still open. It has to be returned as long as it is."""
    for each in history.forgettings:
        at = each.unknown_at
        if at is not None and each.number in done and done[each.number] > at + timedelta(seconds=CLOCKS_S):
            yield Finding(Rule.FORGOTTEN_LEFT, each.label, f"{each.mentor_id} was said to be unknown before the request was done")


def read_named(url: str) -> Mapping[int, Set[str]]:
    """The tables that name people who leave, by the people's numbers."""
    named: dict[int, set[str]] = defaultdict(set)
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_TABLES)
        for (table,) in cursor.fetchall():
            pattern = _NAMES.pattern.decode()
            cursor.execute(
                f"SELECT DISTINCT (regexp_matches(t::text, %s, 'gi'))[1] FROM {table} t WHERE t::text ~* %s", (pattern, pattern)
            )
            for (number,) in cursor.fetchall():
                named[int(number)].add(table)
    connection.close()
    return named


def read_done(url: str, history: History, pseudonyms: Mapping[str, str]) -> Mapping[int, datetime]:
    """When each person was forgotten, by their numbers."""
    numbers = {each.mentor_id: each.number for each in history.forgettings}
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(_DONE)
        done = {numbers[pseudonyms[pseudonym]]: done_at for pseudonym, done_at in cursor.fetchall() if pseudonym in pseudonyms}
    connection.close()
    return done


def _named_later(settings: Settings, done: Mapping[int, datetime]) -> Mapping[int, Set[str]]:
    """The topics with a record that names somebody who was forgotten before it was written. What is older ends with the topic's retention."""
    named: dict[int, set[str]] = defaultdict(set)
    if not done:
        return named
    with TopicReader(settings) as reader:
        for chunk in reader.read(reader.spans(list(Topic), since=min(done.values()))):
            for topic, raw in chunk:
                at = datetime.fromtimestamp(raw.timestamp_ms / 1000, UTC)
                parts = (raw.value or b"", raw.key or b"", *(value or b"" for _, value in raw.headers))
                for number in {int(found) for part in parts for found in _NAMES.findall(part)}:
                    if number in done and at > done[number] + timedelta(seconds=CLOCKS_S):
                        named[number].add(f"{topic.value} at {raw.partition}@{raw.offset}")
    return named
