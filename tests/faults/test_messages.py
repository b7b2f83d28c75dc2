"""Rows 13 and 33 of the fault catalogue: nothing is accepted that a topic would refuse, and a refused event is never skipped."""

import random

import pytest
from sqlalchemy import Engine

from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from schemas.envelope import MAX_MESSAGE_BYTES, Topic
from tests.faults.roles import assert_exactly_once, count, expanded, fold, registration_role, running_relay, running_role
from tests.support.kafka import altered, committed_offsets, reading, write_raw
from tests.support.pipeline import Pipeline, item, mentors
from tests.support.shown import shown
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("topics")

# JSON writes each of these characters as six bytes, which is the most.
COSTLY = "\x1f"


def test_row_13_the_largest_accepted_values_fit_every_message(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """Each text has the largest size in bytes. Longer texts are refused before they are accepted (tests/contract)."""
    items = [
        item(f"{number:04}".ljust(100, COSTLY), kind=COSTLY * 100, notes=COSTLY * 10_000)._replace(client_reference=COSTLY * 100)
        for number in range(1_000)
    ]
    batch_id = pipeline.submit(items, label=COSTLY * 200)
    with running_relay(settings), reading(settings, Topic.BATCHES) as batches:
        eventually(lambda: count(engine, "orchestrator.outbox") == 0)
        parts = batches.wait_for(2)
    told = [part.data["items"] for part in parts]
    assert sum(len(each) for each in told if isinstance(each, list)) == 1_000
    assert max(len(part.value) for part in parts) < MAX_MESSAGE_BYTES
    assert {part.data["batch_id"] for part in parts} == {str(batch_id)}


def limit(settings: Settings, topic: Topic, max_message_bytes: int) -> None:
    """Configures the topic to refuse larger records."""
    altered(settings, topic, "max.message.bytes", str(max_message_bytes))


def test_row_33_dead_letter_that_its_topic_refuses(pipeline: Pipeline, settings: Settings, engine: Engine) -> None:
    """Nothing of its micro-batch is committed until the letter is written. Events that were acknowledged are not sent again."""
    batch_id = pipeline.submit(mentors(5))
    commands = [(command.value, dict(command.headers)) for command in expanded(pipeline, batch_id)]
    poison = random.Random(33).randbytes(6_000)  # Random, so that no compression makes it smaller.
    limit(settings, Topic.DEAD_LETTER, len(poison))
    write_raw(settings, Topic.COMMANDS, [(poison, commands[0][1]), *commands], partition=0)
    with (
        running_role(settings, registration_role()),
        reading(settings, Topic.RESULTS) as results,
        reading(settings, Topic.DEAD_LETTER) as dead_letters,
    ):
        results.wait_for(len(commands))
        retries = metrics.RETRIES.labels("registration", "delivery")
        before = shown(retries)
        eventually(lambda: shown(retries) >= before + 3)
        assert (dead_letters.read(), committed_offsets(settings, "registration", Topic.COMMANDS)) == ([], {})
        limit(settings, Topic.DEAD_LETTER, MAX_MESSAGE_BYTES)
        [letter] = dead_letters.wait_for(1)
        eventually(lambda: committed_offsets(settings, "registration", Topic.COMMANDS) == {0: 1 + len(commands)})
    assert (letter.data["partition"], letter.data["offset"], letter.data["reason"]) == (0, 0, "invalid_data")
    assert len(results.records) == len(commands)
    fold(pipeline, results.records)
    assert pipeline.status(batch_id).batch.status == "completed"
    assert_exactly_once(engine, settings, activities=5)
