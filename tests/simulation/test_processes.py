"""The processes of the simulation die where the product can, and nowhere else."""

from sqlalchemy import Engine

from orchestrator.settings import Settings
from tests.simulation.broker import Broker
from tests.simulation.interleaving import Run, mark_statements
from tests.simulation.processes import RelayProcess


def test_relay_that_finds_its_session_lost_goes_on_wherever_it_was_to_die(settings: Settings, engine: Engine) -> None:
    """To end what is left of a session is the simulation's own doing. (A run of 50,000 steps died there, and then had half a session.)"""
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
