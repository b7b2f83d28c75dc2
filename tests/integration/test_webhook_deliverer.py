"""The loop of the deliverer: when it looks, how it stops, and what it logs."""

import psycopg2
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from consumers.notifying import delivering
from orchestrator.process import metrics
from orchestrator.process.actions import Action
from orchestrator.process.settings import Settings
from orchestrator.storage.database import transact
from orchestrator.webhooks.deliveries import unreadable_secrets
from orchestrator.webhooks.secrets import Sealer
from tests.support.log_lines import logged
from tests.support.receiver import running_receiver
from tests.support.shown import shown
from tests.support.waiting import eventually
from tests.support.webhook_keys import FIRST_KEY, SECOND_KEY
from tests.support.webhooks import URL, deliveries, make_deliveries, make_webhook, running_deliverer, states


def test_a_webhook_gets_all_that_is_due_although_the_deliverer_looks_rarely(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is more than may be under way. Each attempt that ends makes room for the next."""
    monkeypatch.setattr(delivering, "POLL_S", 3_600.0)
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/204"))
        make_deliveries(engine, webhook, settings.webhook_concurrency * 2 + 1)
        with running_deliverer(settings, engine):
            eventually(lambda: set(states(engine, webhook)) == {"delivered"})


def test_what_can_not_be_sent_makes_room_for_the_next(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivering, "POLL_S", 3_600.0)
    other_key = SecretStr(Fernet.generate_key().decode())
    webhook = make_webhook(engine, settings.model_copy(update={"webhook_keys": other_key}), URL)
    count = settings.webhook_concurrency * 2 + 1
    make_deliveries(engine, webhook, count)
    with running_deliverer(settings, engine):
        eventually(lambda: len(logged(caplog, Action.WEBHOOK_SECRET_UNREADABLE)) == count)


def test_a_deliverer_that_stops_waits_for_what_is_under_way(engine: Engine, settings: Settings) -> None:
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/hang"))
        make_deliveries(engine, webhook, 1)
        with running_deliverer(settings, engine) as deliverer:
            eventually(lambda: receiver.requests)
            deliverer.stop()
            receiver.released.set()
        assert states(engine, webhook) == ["delivered"]


def test_a_deliverer_that_stops_cuts_off_what_hangs(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is due again when its lease ends."""
    monkeypatch.setattr(delivering, "DRAIN_S", 0.05)
    with running_receiver() as receiver:
        webhook = make_webhook(engine, settings, receiver.url("/hang"))
        make_deliveries(engine, webhook, 1)
        with running_deliverer(settings, engine):
            eventually(lambda: receiver.requests)
        [row] = deliveries(engine, webhook)
    # An attempt that goes on to its own end fails for a reason.
    assert (row.state, row.problem) == ("pending", None)


@pytest.mark.parametrize("has_key", [True, False])
def test_a_deliverer_that_has_nothing_to_do_is_well_and_ends(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, has_key: bool
) -> None:
    """Without a key there is nothing to sign with."""
    monkeypatch.setattr(delivering, "POLL_S", 0.01)
    if not has_key:
        make_deliveries(engine, make_webhook(engine, settings, URL), 1)
        settings = settings.model_copy(update={"webhook_keys": None})
    with running_deliverer(settings, engine) as deliverer:
        before = deliverer.health.clock()
        deliverer.health.clock = lambda: before + 3_600
        eventually(lambda: deliverer.health.loop_age_s == 0)


# --- What operators are told --------------------------------------------------------------------------------------------


def test_what_the_notifier_does_is_logged_and_counted(
    engine: Engine, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    counters = {problem: metrics.WEBHOOK_ATTEMPTS.labels(problem) for problem in ("status", "delivered")}
    before = {problem: shown(counter) for problem, counter in counters.items()}
    both = settings.model_copy(update={"webhook_keys": SecretStr(f"{SECOND_KEY},{FIRST_KEY}")})
    unreadable = make_webhook(
        engine, settings.model_copy(update={"webhook_keys": SecretStr(Fernet.generate_key().decode())}), URL
    )
    with running_receiver() as receiver, caplog.at_level("INFO", "bulkreg"):
        gone, good = (make_webhook(engine, settings, receiver.url(path)) for path in ("/410", "/204"))
        [of_gone], _, _ = (make_deliveries(engine, webhook, 1) for webhook in (gone, good, unreadable))
        with running_deliverer(both, engine):
            eventually(lambda: states(engine, gone) + states(engine, good) == ["failed", "delivered"])
            eventually(lambda: logged(caplog, Action.WEBHOOK_SECRET_UNREADABLE))
    assert {problem: shown(counter) - before[problem] for problem, counter in counters.items()} == {"status": 1, "delivered": 1}
    [given_up] = logged(caplog, Action.DELIVERY_GIVEN_UP)
    assert (given_up["webhook"], given_up["delivery"]) == (str(gone), str(of_gone))
    assert (given_up["problem"], given_up["status"]) == ("status", 410)
    [disabled] = logged(caplog, Action.WEBHOOK_DISABLED)
    assert (disabled["webhook"], disabled["reason"]) == (str(gone), "gone")
    assert [line["secrets"] for line in logged(caplog, Action.WEBHOOK_SECRETS_RENEWED)] == [2]
    assert {line["webhook"] for line in logged(caplog, Action.WEBHOOK_SECRET_UNREADABLE)} == {str(unreadable)}
    assert states(engine, unreadable) == ["pending"]


def away(*_: object) -> None:
    raise OperationalError("SELECT", None, psycopg2.OperationalError("the server closed the connection"))


def test_a_database_that_does_not_respond_is_reported_until_it_does(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running_deliverer(settings, engine) as deliverer:
        with monkeypatch.context() as patched:
            patched.setattr(delivering, "transact", away)
            deliverer.wake()
            eventually(lambda: logged(caplog, Action.DELIVERING_FAILED))
            assert "the database does not respond" in (deliverer.health.failing or "")
        deliverer.wake()
        eventually(lambda: deliverer.health.failing is None)


def test_secrets_are_encrypted_again_although_the_database_did_not_respond_at_first(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_webhook(engine, settings, URL)
    second = Sealer([SECOND_KEY.encode()])
    assert len(transact(engine, lambda connection: unreadable_secrets(connection, second))) == 1
    both = settings.model_copy(update={"webhook_keys": SecretStr(f"{SECOND_KEY},{FIRST_KEY}")})
    with monkeypatch.context() as patched:
        patched.setattr(delivering, "transact", away)
        with running_deliverer(both, engine) as deliverer:
            eventually(lambda: logged(caplog, Action.DELIVERING_FAILED))
            patched.undo()
            deliverer.wake()
            eventually(lambda: transact(engine, lambda connection: unreadable_secrets(connection, second)) == [])
