"""`up`, `down` and `info` on real servers: a server that dies comes back with its data, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psutil
import psycopg2
import pytest
from confluent_kafka import Consumer, Producer

from compose.embedded.home import Home
from compose.embedded.product import ROLE_GROUPS, Endpoints, StartError
from compose.embedded.stack import Stack, StackOptions
from tests.end_to_end import stand_in
from tests.end_to_end.stand_in import STUBBORN, TOPIC
from tests.support.waiting import PATIENCE_S, eventually

COMMAND = [sys.executable, "-m", "tests.end_to_end.stand_in"]
ROLES = {"login", "api", "relay", "splitter", "sweeper", "notary", "notifier", "registration", "aggregator"}


def bulkreg(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=200, check=False)


def up(home: Path) -> dict[str, Any]:
    done = bulkreg("up", "--detach", "--json", "--home", str(home))
    assert done.returncode == 0, done.stderr
    stack: dict[str, Any] = json.loads(done.stdout)
    return stack


def current(home: Path) -> dict[str, Any]:
    stack: dict[str, Any] = json.loads((home / "stack.json").read_text())
    return stack


def everything(stack: dict[str, Any]) -> list[psutil.Process]:
    """The supervisor and its descendants."""
    supervisor = psutil.Process(stack["pids"]["supervisor"][0])
    return [supervisor, *supervisor.children(recursive=True)]


def all_gone(processes: list[psutil.Process]) -> bool:
    # A zombie counts as gone: only its parent has to read its exit code.
    return not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def write(stack: dict[str, Any], value: str) -> None:
    connection = psycopg2.connect(stack["postgres"])
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (%s)", (value,))
    connection.close()
    producer = Producer({"bootstrap.servers": stack["kafka"], "acks": "all", "log_level": 0})
    producer.produce(TOPIC, value.encode())
    assert producer.flush(PATIENCE_S) == 0


def rows(stack: dict[str, Any]) -> list[str]:
    connection = psycopg2.connect(stack["postgres"])
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT value FROM kept")
        values = [value for (value,) in cursor.fetchall()]
    connection.close()
    return values


def messages(stack: dict[str, Any], count: int) -> list[str]:
    """The first messages of the topic, this many, read by a group of the new protocol."""
    consumer = Consumer(
        {
            "bootstrap.servers": stack["kafka"],
            "group.id": str(uuid4()),
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([TOPIC])
    found: list[str] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append((message.value() or b"").decode())
    consumer.close()
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running stack."""
    home = tmp_path_factory.mktemp("home")
    up(home)
    yield home
    bulkreg("down", "--home", str(home))


@pytest.fixture
def another_home(tmp_path: Path) -> Iterator[Path]:
    """An empty home with ports of its own, because 8080 may be taken. Processes that a failed test left running are stopped."""
    home = Home(tmp_path)
    home.create()
    home.port("api")
    del home  # This also ends the reservation of the port.
    yield tmp_path
    bulkreg("down", "--home", str(tmp_path))


def test_up_prints_the_addresses_of_both_servers_and_every_role(home: Path) -> None:
    stack = json.loads(bulkreg("info", "--json", "--home", str(home)).stdout)
    assert stack == current(home)
    assert set(stack["pids"]) == ROLES | {"kafka", "postgres", "supervisor"}
    assert all(psutil.pid_exists(pid) for pids in stack["pids"].values() for pid in pids)
    assert stack["token"] == "service-43"
    assert (home / "stack.json").stat().st_mode & 0o777 == 0o600

    value = str(uuid4())
    write(stack, value)
    written = rows(stack)  # by this test and by those before it
    assert value in written
    assert value in messages(stack, len(written))


def test_servers_listen_on_loopback_only(home: Path) -> None:
    listening = [
        connection.laddr
        for process in everything(current(home))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 4  # PostgreSQL, two of Kafka, and the API.
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("name", ["kafka", "postgres"])
def test_a_killed_server_is_back_with_its_data(home: Path, name: str) -> None:
    before = current(home)
    value = str(uuid4())
    write(before, value)
    began = time.monotonic()
    os.kill(before["pids"][name][0], signal.SIGKILL)
    after = with_another(home, before, name)
    write_when_back(after, str(uuid4()))
    print(f"{name} takes writes {time.monotonic() - began:.1f} s after kill -9")
    assert value in rows(after)
    assert value in messages(after, len(rows(after)))
    assert {key: after[key] for key in ("api", "kafka", "postgres")} == {key: before[key] for key in ("api", "kafka", "postgres")}


def write_when_back(stack: dict[str, Any], value: str) -> None:
    def written() -> bool:
        try:
            write(stack, value)
        except psycopg2.OperationalError:
            return False
        return True

    eventually(written, what="a write")


def with_another(home: Path, before: dict[str, Any], name: str) -> dict[str, Any]:
    """The stack, after the process with this name was replaced."""

    def is_another() -> bool:
        pids = current(home)["pids"].get(name)
        return bool(pids) and pids != before["pids"][name]

    eventually(is_another, what=f"{name} in stack.json again")
    return current(home)


def test_a_killed_role_is_started_again_with_those_that_share_its_process(home: Path) -> None:
    before = current(home)
    os.kill(before["pids"]["relay"][0], signal.SIGKILL)
    after = with_another(home, before, "relay")
    changed = {role for role in before["pids"] if before["pids"][role] != after["pids"][role]}
    assert changed == {"relay", "splitter", "sweeper", "notary", "notifier"}


def test_a_second_up_on_a_home_in_use_is_refused_and_changes_nothing(home: Path) -> None:
    before = current(home)
    supervisor = before["pids"]["supervisor"][0]
    for detach in ((), ("--detach",)):
        done = bulkreg("up", *detach, "--home", str(home))
        assert done.returncode == 2
        assert done.stderr.strip().endswith(f"{home} is in use by process {supervisor}")
    assert current(home) == before


def test_up_on_a_port_that_is_taken_is_refused(home: Path, another_home: Path) -> None:
    port = str(urlsplit(current(home)["api"]).port)
    done = bulkreg("up", "--port", port, "--home", str(another_home))
    assert (done.returncode, done.stderr.strip()) == (2, f"port {port} is in use")


def test_up_uses_the_servers_that_the_environment_names(home: Path, another_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = current(home)
    monkeypatch.setenv("BULKREG_DATABASE_URL", first["postgres"])
    monkeypatch.setenv("BULKREG_KAFKA_BOOTSTRAP_SERVERS", first["kafka"])
    second = up(another_home)
    assert (second["postgres"], second["kafka"]) == (first["postgres"], first["kafka"])
    assert set(second["pids"]) == ROLES | {"supervisor"}
    assert bulkreg("down", "--home", str(another_home)).returncode == 0
    write(first, str(uuid4()))


def test_no_address_is_published_after_up_says_that_it_stops(home: Path, another_home: Path) -> None:
    first, place = current(home), Home(another_home)
    said: list[tuple[str, bool]] = []
    stack = Stack(
        place,
        stand_in.product,
        StackOptions(postgres_url=first["postgres"], kafka_bootstrap_servers=first["kafka"]),
        lambda line: said.append((line, place.stack_file.exists())),
    )
    assert stack.run(lambda _file: os.kill(os.getpid(), signal.SIGTERM)) is signal.SIGTERM
    assert said[-1] == ("Stopping; a second Ctrl-C leaves at once", False)


WALKER = """
import sys, time
from pathlib import Path
from compose.embedded.gate import pass_through
gate, waits, passed = map(Path, sys.argv[1:])
waits.touch()
pass_through(gate)
passed.touch()
time.sleep(600)
"""


def test_no_role_passes_the_gate_of_a_start_that_fails(home: Path, another_home: Path, tmp_path: Path) -> None:
    first = current(home)
    waiting, passed = [tmp_path / f"{'-'.join(roles)}-waits" for roles in ROLE_GROUPS], tmp_path / "passed"

    def command(roles: Sequence[str], gate: Path) -> Sequence[str]:
        return [sys.executable, "-c", WALKER, str(gate), str(tmp_path / f"{'-'.join(roles)}-waits"), str(passed)]

    def fail(_endpoints: Endpoints) -> None:
        eventually(lambda: all(each.exists() for each in waiting))
        raise StartError("no topics")

    stack = Stack(
        Home(another_home),
        replace(stand_in.product, prepare_kafka=fail, command=command),
        StackOptions(postgres_url=first["postgres"], kafka_bootstrap_servers=first["kafka"]),
        lambda _line: None,
    )
    with pytest.raises(StartError, match="no topics"):
        stack.run(lambda _file: None)
    assert not passed.exists()


def test_two_signals_at_once_leave_no_process_and_no_address(
    home: Path, another_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = current(home)
    monkeypatch.setenv("BULKREG_DATABASE_URL", first["postgres"])
    monkeypatch.setenv("BULKREG_KAFKA_BOOTSTRAP_SERVERS", first["kafka"])
    processes = everything(up(another_home))
    # Both signals have arrived when it continues, so it gets the second one before it has begun to stop.
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        os.kill(processes[0].pid, number)
    eventually(lambda: all_gone(processes), what="the end of every process")
    assert not (another_home / "stack.json").exists()


def test_an_idle_supervisor_sleeps(home: Path) -> None:
    supervisor = psutil.Process(current(home)["pids"]["supervisor"][0])

    def sleeps_for_a_second() -> bool:
        woken = supervisor.num_ctx_switches()
        time.sleep(1)
        return supervisor.num_ctx_switches() == woken

    # It checks its logs every few seconds, and may be doing so now.
    eventually(sleeps_for_a_second)


def test_two_homes_side_by_side_are_stopped_one_by_one(home: Path, another_home: Path) -> None:
    first, second = current(home), up(another_home)
    for address in ("api", "kafka", "postgres", "token"):
        assert first[address] != second[address] or address == "token"
    write(second, "of the second")
    assert "of the second" not in rows(first)
    processes = everything(second)
    down = bulkreg("down", "--home", str(another_home))
    assert down.returncode == 0, down.stderr
    eventually(lambda: all_gone(processes), what="the end of every process of the second home")
    assert not (another_home / "stack.json").exists()
    assert bulkreg("info", "--home", str(another_home)).returncode == 3
    assert bulkreg("down", "--home", str(another_home)).returncode == 3
    assert bulkreg("info", "--home", str(home)).returncode == 0


def test_nothing_outlives_a_killed_supervisor_and_the_next_up_finds_the_data(another_home: Path) -> None:
    before = up(another_home)
    write(before, "kept")
    processes = everything(before)
    os.kill(before["pids"]["supervisor"][0], signal.SIGKILL)
    eventually(lambda: all_gone(processes), what="the end of every process")
    assert bulkreg("info", "--home", str(another_home)).returncode == 3

    after = up(another_home)
    assert (after["api"], after["postgres"], after["kafka"]) == (before["api"], before["postgres"], before["kafka"])
    assert rows(after) == ["kept"]
    assert messages(after, 1) == ["kept"]
    processes = everything(after)
    assert bulkreg("down", "--home", str(another_home)).returncode == 0
    eventually(lambda: all_gone(processes), what="the end of every process")


@pytest.mark.parametrize("stubborn", [False, True])
def test_ctrl_c_stops_all_in_order_and_a_second_one_at_once(another_home: Path, stubborn: bool) -> None:
    process = subprocess.Popen(
        [*COMMAND, "up", "--json", "--home", str(another_home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ({STUBBORN: "1"} if stubborn else {}),
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        stack = json.loads(process.stdout.readline())
        assert stack["pids"]["supervisor"] == [process.pid]
        processes = everything(stack)
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
        if stubborn:
            assert any("Stopping" in line for line in iter(process.stderr.readline, ""))
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
    eventually(lambda: all_gone(processes), what="the end of every process")
    assert not (another_home / "stack.json").exists()
    # Whether PostgreSQL was shut down or crashed.
    assert ("database system is shut down" in (another_home / "logs" / "postgres.log").read_text()) is not stubborn
