"""Row 82 of the fault catalogue: a database that refuses logins for a while, and says so in another language and encoding."""

from contextlib import closing

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.relay_wakeup import RelayWaker
from producers.producer import EventProducer
from schemas.envelope import Topic
from tests.faults.proxy import PostgresProxy
from tests.faults.roles import assert_exactly_once, expanded, registration_role, running_role
from tests.support.api_server import KEY, running_api
from tests.support.following import listening
from tests.support.kafka import reading
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.relay_wakeup import is_woken, relay
from tests.support.waiting import eventually

ITEMS = 20
# A German server's, while nobody may log in.
NOT_READY = "keine Anmeldung für diese Rolle".encode("latin-1")


def test_row_82_no_record_is_blamed_for_a_refused_login(
    settings: Settings,
    proxied: Settings,
    proxy: PostgresProxy,
    engine: Engine,
    pipeline: Pipeline,
    publisher: EventProducer,
    topics: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commands = expanded(pipeline, pipeline.submit(mentors(ITEMS)))
    with running_role(proxied, registration_role()) as loop, reading(settings, Topic.RESULTS) as results:
        eventually(lambda: loop.health.broker_contact)
        with proxy.refusing(NOT_READY):
            proxy.cut()
            publisher.publish(commands)
            eventually(lambda: len(logged(caplog, Action.MICRO_BATCH_RETRIED)) > 2)
        results.wait_for(ITEMS)
    assert_exactly_once(engine, settings, activities=ITEMS)


def test_row_82_the_waker_goes_on(
    settings: Settings, proxied: Settings, proxy: PostgresProxy, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(RelayWaker(proxied.api_url, proxied)) as waker, relay(settings) as listener:
        with proxy.refusing(NOT_READY):
            waker.wake()
            [line] = eventually(lambda: logged(caplog, Action.RELAY_WAKE_FAILED))
        assert line["error"] == "OperationalError"
        waker.wake()
        eventually(lambda: is_woken(listener))


def test_row_82_the_listener_goes_on(
    settings: Settings, proxied: Settings, proxy: PostgresProxy, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    owner = create_engine(settings.owner_url)
    with running_api(proxied.model_copy(update={"jwt_hs256_key": SecretStr(KEY)})):
        eventually(lambda: listening(owner))
        with proxy.refusing(NOT_READY):
            proxy.cut()
            eventually(lambda: len(logged(caplog, Action.LISTENER_LOST)) > 1)
        eventually(lambda: listening(owner))
    owner.dispose()
