"""`bulkreg run` and its signals: the first lets a role finish what is under way, the second leaves at once."""

import signal
import socket
import subprocess

import httpx
from sqlalchemy import text

from orchestrator.settings import Settings
from tests.support.pipeline import Pipeline, mentors
from tests.support.process import environment
from tests.support.product import BULKREG
from tests.support.waiting import eventually

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkreg relay' AND wait_event_type = 'Lock'")
LONGER_THAN_THE_TEST_MS = "200000"


def test_a_second_sigterm_leaves_at_once(settings: Settings, topics: None, pipeline: Pipeline) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def answers() -> bool:
        try:
            return bool(httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code)
        except httpx.TransportError:
            return False

    def is_blocked() -> bool:
        with pipeline.engine.connect() as connection:
            return bool(connection.execute(WAITING).scalar_one())

    pipeline.submit(mentors(1))
    patient = {
        "BULKREG_HEALTH_PORT": str(port),
        "BULKREG_LOCK_TIMEOUT_MS": LONGER_THAN_THE_TEST_MS,
        "BULKREG_STATEMENT_TIMEOUT_MS": LONGER_THAN_THE_TEST_MS,
    }
    with pipeline.engine.connect() as connection:
        # What is published can't be deleted while somebody holds the row.
        connection.execute(text("SELECT 1 FROM orchestrator.outbox FOR UPDATE")).one()
        with subprocess.Popen([*BULKREG, "run", "relay"], env=environment(settings) | patient) as process:
            try:
                eventually(lambda: is_blocked() and answers(), within_s=60, what="a relay in the middle of its work")
                process.send_signal(signal.SIGTERM)
                eventually(lambda: not answers(), what="the end of the health server, which was told to stop with the relay")
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 1
            finally:
                process.kill()
