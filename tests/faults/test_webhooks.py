"""Receivers of webhooks that break, and a notifier that is killed (docs/faults.md, row 71)."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from consumers.notifying import sending
from consumers.notifying.delivering import Deliverer
from orchestrator.process.actions import Action
from orchestrator.process.failpoints import EXIT_CODE, Failpoint, InjectedError
from orchestrator.process.settings import Settings
from orchestrator.webhooks.deliveries import LEASE
from tests.support.log_lines import logged
from tests.support.pipeline import Pipeline, mentors
from tests.support.process import environment, started
from tests.support.receiver import running_receiver
from tests.support.waiting import HELD_S, PATIENCE_S, eventually
from tests.support.webhooks import deliveries, make_deliveries, make_webhook, on_loopback, running_deliverer, states

FAILPOINTS = [Failpoint.NOTIFIER_AFTER_CLAIM, Failpoint.NOTIFIER_AFTER_SEND, Failpoint.NOTIFIER_AFTER_END]


def end_leases(engine: Engine) -> None:
    with engine.begin() as connection:
        told = "UPDATE orchestrator.webhook_delivery SET due_at = due_at - CAST(:lease AS interval) WHERE state = 'pending'"
        connection.execute(text(told), {"lease": LEASE})


def test_row_71_receivers_that_hang_or_break_delay_no_other(engine: Engine, settings: Settings) -> None:
    with running_receiver() as receiver, running_deliverer(settings, engine) as deliverer:
        # As many broken receivers as an organization may have, each with more deliveries than may be under way, and all before the good one.
        hanging = [make_webhook(engine, settings, receiver.url(f"/{number}/hang")) for number in range(10)]
        broken = [
            make_webhook(engine, settings, receiver.url(path)) for path in ("/500", "/reset", "/redirect", "/endless", "/trickle")
        ]
        for webhook in (*hanging, *broken):
            make_deliveries(engine, webhook, 6)
        deliverer.wake()
        under_way = [f"/{number}/hang" for number in range(10)]
        eventually(lambda: all(len(receiver.of(path)) == settings.webhook_concurrency for path in under_way))
        good = make_webhook(engine, settings, receiver.url("/204"))
        make_deliveries(engine, good, 30)
        deliverer.wake()
        eventually(lambda: states(engine, good) == ["delivered"] * 30)
        # The hanging ones still hang, and none of them got more than its bound.
        assert all(len(receiver.of(path)) == settings.webhook_concurrency for path in under_way)
        assert all(states(engine, webhook) == ["pending"] * 6 for webhook in hanging)
        receiver.released.set()
        eventually(lambda: all(states(engine, webhook) == ["delivered"] * 6 for webhook in hanging))


def test_row_71_a_hundred_receivers_that_hang_leave_connections_to_one_that_works(engine: Engine, settings: Settings) -> None:
    """Of a hundred organizations, with more deliveries than there are connections. All have failed before."""
    few = settings.model_copy(update={"webhook_connections": 20})
    hanging = []
    with running_receiver() as receiver:
        for number in range(100):
            webhook = make_webhook(engine, settings, receiver.url(f"/{number}/hang"), organization_id=f"org-{number}")
            make_deliveries(engine, webhook, 2)
            hanging.append(webhook)
        with engine.begin() as connection:
            connection.execute(text("UPDATE orchestrator.webhook SET failing_since = now()"))
        with running_deliverer(few, engine, timeout_s=HELD_S):
            eventually(lambda: len(receiver.requests) == 10)
            good = make_webhook(engine, settings, receiver.url("/204"))
            make_deliveries(engine, good, 30)
            eventually(lambda: states(engine, good) == ["delivered"] * 30)
            # The others still hang, in the half that is theirs.
            assert len(receiver.requests) == 10 + 30
            assert len({request.path for request in receiver.requests}) == 10 + 1, "one request to each"
            receiver.released.set()
            eventually(lambda: all(states(engine, webhook) == ["delivered"] * 2 for webhook in hanging))


def test_row_71_more_receivers_begin_to_hang_at_once_than_there_are_connections(engine: Engine, settings: Settings) -> None:
    few = settings.model_copy(update={"webhook_connections": 8})
    with running_receiver() as receiver:
        hanging = [make_webhook(engine, settings, receiver.url(f"/{number}/hang")) for number in range(12)]
        good = make_webhook(engine, settings, receiver.url("/204"), organization_id="org-other")
        for webhook in (*hanging, good):
            make_deliveries(engine, webhook, 6)
        with running_deliverer(few, engine, timeout_s=0.7):
            # Each takes a connection of those that work once. Then it fails.
            eventually(lambda: states(engine, good) == ["delivered"] * 6)
            assert all(states(engine, webhook) == ["pending"] * 6 for webhook in hanging)


def test_row_71_a_notifier_without_sockets_blames_no_receiver(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/200"))
        make_deliveries(engine, webhook, 1)

        def refused(*_: object) -> None:
            raise OSError(errno.EMFILE, "too many open files")

        with running_deliverer(settings, engine), monkeypatch.context() as patched:
            patched.setattr(sending, "_socket_if", refused)
            eventually(lambda: logged(caplog, Action.SOCKETS_EXHAUSTED))
        with engine.begin() as connection:
            failing_since = connection.scalar(text("SELECT failing_since FROM orchestrator.webhook"))
        assert (failing_since, states(engine, webhook)) == (None, ["pending"])
        end_leases(engine)
        with running_deliverer(settings, engine):
            eventually(lambda: states(engine, webhook) == ["delivered"])


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_row_71_a_notifier_that_fails_between_two_steps_sends_again_under_the_same_id(
    engine: Engine, settings: Settings, failpoint: Failpoint
) -> None:
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/200"))
        [event_id] = make_deliveries(engine, webhook, 1)
        failing = on_loopback(settings).model_copy(update={"failpoints": f"{failpoint}=raise"})
        with pytest.raises(InjectedError):
            Deliverer(failing, engine).run()
        # A claim that was under way would take the delivery again, for another lease.
        eventually(lambda: all(thread.name != "notifier-database" for thread in threading.enumerate()))
        end_leases(engine)
        with running_deliverer(settings, engine):
            eventually(lambda: states(engine, webhook) == ["delivered"])
        assert {request.headers["webhook-id"] for request in receiver.requests} == {str(event_id)}
        assert len({request.body for request in receiver.requests}) == 1
        assert len(receiver.requests) == (2 if failpoint is Failpoint.NOTIFIER_AFTER_SEND else 1)


@pytest.mark.full
@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("failpoint", [*FAILPOINTS, Failpoint.CONSUMER_BEFORE_HANDLE, Failpoint.CONSUMER_AFTER_HANDLE_COMMIT])
def test_row_71_a_killed_notifier_loses_nothing(
    engine: Engine, settings: Settings, pipeline: Pipeline, failpoint: Failpoint, tmp_path: Path
) -> None:
    """The same with processes and the topic: the event is read, recorded and delivered whenever the notifier is killed."""
    variables = environment(on_loopback(settings)) | {"BULKREG_LOG_DIRECTORY": str(tmp_path)}
    command = [sys.executable, "-m", "cli", "run", "relay", "notifier"]
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/200"))
        pipeline.submit(mentors(1))
        pipeline.drain_until_registered()
        pipeline.relay()
        pipeline.handle(pipeline.aggregator, pipeline.take(*pipeline.aggregator.topics))
        # The first process dies at the failpoint, the second one does what is left.
        killed = subprocess.run(
            command, env=variables | {"BULKREG_FAILPOINTS": f"{failpoint}=crash"}, timeout=PATIENCE_S, check=False
        )
        assert killed.returncode == EXIT_CODE
        end_leases(engine)
        with started(command, variables) as process:
            eventually(lambda: states(engine, webhook) == ["delivered"])
            process.terminate()
            process.wait(PATIENCE_S)
        [row] = deliveries(engine, webhook)
        assert {request.headers["webhook-id"] for request in receiver.requests} == {str(row.event_id)}
        assert len(receiver.requests) in (1, 2)
