"""`bulkreg run`: its scheduling class, and its signals. The first signal lets a role finish its work, and the second ends it at once."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.support.api_server import KEY, ApiServer
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import Pipeline, mentors
from tests.support.ports import free_port
from tests.support.prepared import BULKREG
from tests.support.process import environment
from tests.support.waiting import PATIENCE_S, eventually
from tests.support.webhook_keys import FIRST_KEY

WAITING = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bulkreg relay' AND wait_event_type = 'Lock'")
LONGER_THAN_THE_TEST_MS = "200000"


def answers(port: int) -> bool:
    try:
        return bool(httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE_S, verify=NO_TLS).status_code)
    except httpx.TransportError:
        return False


def policies(pid: int) -> set[int]:
    """The scheduling classes of all threads of a process."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # The thread has just ended.
            found.add(os.sched_getscheduler(int(thread.name)))
    return found


@pytest.mark.parametrize(("role", "policy"), [("registration", "SCHED_BATCH"), ("api", "SCHED_OTHER")])
def test_background_roles_do_not_preempt_the_api(settings: Settings, topics: None, role: str, policy: str) -> None:
    port = free_port()
    given = environment(settings) | {f"BULKREG_{'API' if role == 'api' else 'HEALTH'}_PORT": str(port)}
    with subprocess.Popen([*BULKREG, "run", role], env=given) as process:
        try:
            eventually(lambda: answers(port), what="the role")
            assert policies(process.pid) == {getattr(os, policy)}
        finally:
            process.kill()


# As a sandbox that filters the call.
IN_A_SANDBOX = """
import os
from cli.main import app

def refuse(*_):
    raise PermissionError(1, "Operation not permitted")

os.sched_setscheduler = refuse
app()
"""


def test_a_role_runs_where_the_scheduler_call_is_forbidden(settings: Settings, topics: None) -> None:
    port = free_port()
    given = environment(settings) | {"BULKREG_HEALTH_PORT": str(port)}
    with subprocess.Popen(
        [sys.executable, "-c", IN_A_SANDBOX, "run", "registration"], env=given, stderr=subprocess.PIPE
    ) as process:
        try:
            eventually(lambda: answers(port), what="the role")
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    lines = {line["action"]: line for line in map(json.loads, said.splitlines()) if "action" in line}
    assert "scheduler_class_refused" in lines
    assert lines["serving"]["port"] == port
    assert process.returncode == 0


FAILING = """
from cli.main import app
from producers.relay import OutboxRelay

def fail(_):
    raise ValueError("canary")

OutboxRelay.run = fail
app()
"""


def test_a_role_that_fails_ends_its_process_and_says_where(settings: Settings, topics: None) -> None:
    """Also without the database, which counts the starts. What the error says is not logged, because it may quote rows."""
    unreachable = {"BULKREG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    ended = subprocess.run(
        [sys.executable, "-c", FAILING, "run", "relay"],
        env=environment(settings) | unreachable,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    lines = {line["action"]: line for line in map(json.loads, filter(None, ended.stderr.splitlines())) if "action" in line}
    assert (ended.returncode, lines["role_failed"]["role"], lines["role_starts_not_noted"]["roles"]) == (1, "relay", ["relay"])
    assert str(lines["role_failed"]["at"]).startswith("<string>:")
    assert "canary" not in ended.stdout + ended.stderr


def test_a_second_sigterm_ends_the_role_at_once(settings: Settings, topics: None, pipeline: Pipeline) -> None:
    port = free_port()

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
        # The relay can't delete a published row while another transaction holds it.
        connection.execute(text("SELECT 1 FROM orchestrator.outbox FOR UPDATE")).one()
        with subprocess.Popen([*BULKREG, "run", "relay"], env=environment(settings) | patient) as process:
            try:
                eventually(lambda: is_blocked() and answers(port), what="a relay that is blocked in its work")
                process.send_signal(signal.SIGTERM)
                eventually(lambda: not answers(port), what="the end of the health server, which was told to stop with the relay")
                assert process.poll() is None
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE_S) == 1
            finally:
                process.kill()


ENDS_SOON = """
from cli.main import app
from compose import roles

roles.STOP_WITHIN_S = 1.0
app()
"""
# What each role waits for: a table that somebody else has locked.
WAITS_FOR = {
    "relay": "orchestrator.outbox",
    "sweeper": "orchestrator.sweep_watch",
    "notary": "orchestrator.receipt_cursor",
    "notifier deliveries": "orchestrator.webhook_delivery",
    "api": "orchestrator.batch",
}
BLOCKED = text(
    "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND application_name LIKE 'bulkreg %'"
)


def test_row_83_a_process_ends_although_its_roles_hang_in_statements(
    settings: Settings, topics: None, pipeline: Pipeline
) -> None:
    """As they do while the server stands still. Nothing of theirs is lost, because nobody was told that it is done."""
    port = free_port()
    patient = {
        "BULKREG_API_PORT": str(port),
        "BULKREG_API_DRAIN_MS": "0",
        "BULKREG_JWT_HS256_KEY": KEY,
        "BULKREG_SWEEP_INTERVAL_MS": "100",
        "BULKREG_WEBHOOK_KEYS": FIRST_KEY,
        "BULKREG_LOCK_TIMEOUT_MS": LONGER_THAN_THE_TEST_MS,
        "BULKREG_STATEMENT_TIMEOUT_MS": LONGER_THAN_THE_TEST_MS,
    }
    url = f"http://127.0.0.1:{port}"
    api = ApiServer(settings.model_copy(update={"jwt_hs256_key": SecretStr(KEY)}), url)
    roles = [name.split()[0] for name in WAITS_FOR]

    owner = create_engine(settings.owner_url)

    def read() -> None:
        with api.client() as client, contextlib.suppress(httpx.TransportError):
            client.get(API_PATH)

    def blocked() -> set[str]:
        with owner.connect() as connection:
            return {name.removeprefix("bulkreg ") for name in connection.execute(BLOCKED).scalars()}

    with ThreadPoolExecutor(1) as threads, owner.connect() as connection:
        connection.execute(text(f"LOCK TABLE {', '.join(WAITS_FOR.values())}"))
        command = [sys.executable, "-c", ENDS_SOON, "run", *roles]
        with subprocess.Popen(command, env=environment(settings) | patient, stderr=subprocess.PIPE) as process:
            try:
                eventually(lambda: answers(port), what="the API")
                threads.submit(read)
                eventually(lambda: not WAITS_FOR.keys() - blocked(), what="roles that wait")
                process.terminate()
                _, said = process.communicate(timeout=PATIENCE_S)
            finally:
                process.kill()
    owner.dispose()
    lines = {line["action"]: line for line in map(json.loads, said.splitlines()) if "action" in line}
    assert (process.returncode, sorted(lines["stop_abandoned"]["roles"])) == (0, sorted(roles))
