"""Row 35 of the fault catalogue: an external registration service that is slow, fails, hangs, dies or responds twice, and one that is away."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine

from consumers.external.adapter import ExternalRegistration
from consumers.registration import RegistrationHandler
from orchestrator.process import metrics
from orchestrator.process.settings import Settings
from orchestrator.registration.external import ExternalRegistrationService
from orchestrator.verification.verify import verify
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.faults.roles import expanded, fold, running_role
from tests.support.faulty_service import Fault, FaultyService, faulty_service, impatient
from tests.support.kafka import committed_offsets, reading
from tests.support.pipeline import Pipeline, mentors
from tests.support.shown import shown
from tests.support.waiting import eventually

DEADLINE_MS = 3_000
PASSING = [fault for fault in Fault if fault is not Fault.REFUSES]
# Each mentor but the first meets one fault. The last ones meet none.
ITEMS = 20


@pytest.fixture
def service() -> Iterator[FaultyService]:
    with faulty_service() as service:
        yield service


@pytest.fixture
def asking(settings: Settings, service: FaultyService) -> Settings:
    return impatient(settings, service, timeout_ms=1_000, deadline_ms=DEADLINE_MS)


def test_row_35_service_that_fails_in_every_way_and_is_away_beyond_the_deadline(
    pipeline: Pipeline, asking: Settings, service: FaultyService, publisher: EventProducer, engine: Engine
) -> None:
    faults = {f"mentor-{number}": fault for number, fault in enumerate(PASSING, start=2)}
    for mentor, fault in faults.items():
        service.faults[mentor].append(fault)
    batches = [pipeline.submit(mentors(ITEMS))]
    external = ExternalRegistration(asking, engine)
    role = RegistrationHandler(ExternalRegistrationService())
    with closing(external), running_role(asking, role, external) as loop, reading(asking, Topic.RESULTS) as results:
        publisher.publish(expanded(pipeline, batches[0]))
        results.wait_for(ITEMS)
        eventually(lambda: committed(asking) == ITEMS)
        # A role of another test may have ended while it waited.
        metrics.REGISTRATION_BREAKER_OPEN.set(0)
        service.stop()
        batches.append(pipeline.submit(mentors(ITEMS, first=1 + ITEMS)))
        publisher.publish(expanded(pipeline, batches[1]))
        eventually(lambda: shown(metrics.REGISTRATION_BREAKER_OPEN) or len(results.read()) > ITEMS)
        partitions, turns = loop.partitions(Topic.COMMANDS), loop.turns
        eventually(lambda: loop.health.loop_age_s > DEADLINE_MS / 1000 or len(results.read()) > ITEMS)
        # The role waits: it neither gives up nor decides anything, and polls only now and then.
        assert (shown(metrics.REGISTRATION_BREAKER_OPEN), len(results.read()), committed(asking)) == (1, ITEMS, ITEMS)
        assert loop.partitions(Topic.COMMANDS) == partitions
        assert 0 < loop.turns - turns < 100
        service.start()
        found = results.wait_for(2 * ITEMS)
    fold(pipeline, found)
    assert len(service.activities()) == 2 * ITEMS
    assert set(service.activities().values()) == {1}
    registered = {answer["item_id"]: answer["activity_id"] for answer in service.answers.values()}
    for batch_id in batches:
        view = pipeline.status(batch_id)
        assert view.batch.status == "completed"
        assert all(registered[str(shown.item_id)] == str(shown.activity_id) for shown in view.items)
    for mentor, fault in faults.items():
        asked = service.posts(mentor)
        assert len(asked) >= (1 if fault in (Fault.SLOW, Fault.ANSWERS_TWICE) else 2), fault
        assert all((one.key, one.body) == (asked[0].key, asked[0].body) for one in asked), fault
    assert verify(engine, asking).breaches == []


def committed(settings: Settings) -> int:
    return sum(committed_offsets(settings, "registration", Topic.COMMANDS).values())
