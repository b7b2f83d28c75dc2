"""The simulation's processes die where the product can, and nowhere else."""

from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from tests.simulation.broker import Broker, Fetch
from tests.simulation.interleaving import Run, mark_statements
from tests.simulation.processes import ConsumerProcess, RelayProcess, places_of, share_out
from tests.support.toy import ToyHandler, command, make_toy_table


def test_relay_that_finds_its_session_lost_continues_wherever_it_was_to_die(settings: Settings, engine: Engine) -> None:
    """Ending the rest of a session is the simulation's own work. (A run of 50,000 steps died there once, and then had half a session.)"""
    mark_statements(engine)
    relay = RelayProcess(settings, engine, Broker("test", lambda _: None), 0)
    deaths = 0
    for stop_at in range(8):
        relay.turn()
        relay.cut()
        run = Run("relay", relay.turn, stop_at=stop_at, crash=True)
        run.inline()
        assert run.error is None
        deaths += run.stopped_at is not None
        relay.turn()
    relay.stop()
    assert deaths > 0


def test_an_end_that_is_reported_with_the_last_records_counts_behind_them(settings: Settings, engine: Engine) -> None:
    """Found by chaos: the end was mistaken for the last record's offset. Offsets moved before anything was handled, or never again."""
    make_toy_table(settings)
    broker = Broker(settings.topic_prefix, lambda _: None)
    member = ConsumerProcess(settings, ToyHandler(), engine, broker, 0)
    share_out(broker, [member])
    for position in range(20):
        broker.append(command(position))
    member.consumer.fetch = Fetch(20, 0)
    member.loop.receive()
    assert set(member.loop.next_offsets.values()) == {None}
    while not member.is_idle:
        member.turn(Fetch(5, 0))
    committed = {place: broker.committed["toy", place] for place in places_of(member.handler)}
    assert committed == {place: end.next_offset for place, end in broker.end_offsets([Topic.COMMANDS]).items()}
