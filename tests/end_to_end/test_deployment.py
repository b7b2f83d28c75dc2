"""The services of compose.yaml, run as processes: their commands in their environment, with a PostgreSQL and a Kafka of the tests."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import yaml
from confluent_kafka.admin import AdminClient

from orchestrator.process.settings import Settings
from tests.support.databases import fresh_database
from tests.support.no_tls import NO_TLS
from tests.support.ports import free_port
from tests.support.stack import Stack
from tests.support.waiting import PATIENCE_S, eventually

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "compose" / "embedded" / "example"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose" / "docker" / "compose.yaml").read_text())["services"]
ROLES = {name: service["command"] for name, service in SERVICES.items() if service.get("command", [None])[0] == "run"}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A folder that has `bulkreg` in it, like the image."""
    folder = tmp_path / "bin"
    folder.mkdir()
    file = folder / "bulkreg"
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cli "$@"\n')
    file.chmod(0o755)
    return folder


@pytest.fixture
def addresses(infrastructure: Stack) -> Iterator[Mapping[str, str]]:
    """Values of the file, and what replaces them here."""
    with fresh_database(infrastructure.postgres_url) as url:
        here = Settings(database_url=url).owner_url
        passwords = {"POSTGRES_PASSWORD": here.password}
        # The passwords that the roles have already, because roles belong to the whole server.
        passwords |= {"WORKER_PASSWORD": Settings(database_url=url).worker_url.password}
        passwords |= {"API_PASSWORD": Settings(database_url=url).api_url.password}
        yield {
            **{f"${{{name}:?copy .env.example to .env}}": str(password) for name, password in passwords.items()},
            "postgresql://bulkreg:": f"postgresql://{here.username}:",
            "@postgres:5432/bulkreg": f"@{here.host}:{here.port}/{here.database}",
            "kafka:9092": infrastructure.kafka_bootstrap_servers,
        }
        admin = AdminClient({"bootstrap.servers": infrastructure.kafka_bootstrap_servers})
        made = [name for name in admin.list_topics(timeout=PATIENCE_S).topics if name.startswith(f"{here.database}.")]
        for deleted in admin.delete_topics(made).values() if made else ():
            deleted.result()


def environment(service: str, addresses: Mapping[str, str], program: Path, port: int) -> dict[str, str]:
    """The environment of the service's container. Only PATH comes from this process."""
    given: dict[str, str] = SERVICES[service]["environment"]
    for there, here in addresses.items():
        given = {name: value.replace(there, here) for name, value in given.items()}
    # From the file api.env, and what separates tests on one server.
    more = {"BULKREG_TOPIC_PREFIX": addresses["@postgres:5432/bulkreg"].rpartition("/")[2]}
    if "api.env" in SERVICES[service]["env_file"]:
        more["BULKREG_JWT_HS256_KEY"] = "k" * 32
    return {**given, **more, "BULKREG_API_PORT": str(port), "PATH": f"{program}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def test_roles_of_the_compose_file_register_a_batch(
    addresses: Mapping[str, str], program: Path, port: int, tmp_path: Path
) -> None:
    def in_service(name: str, command: list[str], code: int = 0) -> str:
        done = subprocess.run(
            command,
            env=environment(name, addresses, program, port),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    for _ in range(2):  # Each start of the deployment does this.
        in_service("setup", SERVICES["setup"]["entrypoint"])
    with contextlib.ExitStack() as running:
        containers = [name for name in ROLES for _ in range(SERVICES[name].get("deploy", {}).get("replicas", 1))]
        processes = [
            running.enter_context(
                subprocess.Popen(["bulkreg", *ROLES[name]], env=environment(name, addresses, program, port), cwd=tmp_path)
            )
            for name in containers
        ]
        for process in processes:
            running.callback(process.kill)
        api = f"http://127.0.0.1:{port}"
        eventually(lambda: is_ready(api), what="the API is ready")
        in_service("import", ["bulkreg", *SERVICES["import"]["command"][:-1], str(EXAMPLE / "directory")])
        token = in_service("admin", ["bulkreg", "token", "--org", "nordlys", "--sub", "leader", "--role", "admin"]).strip()
        at = ["--url", api, "--token", token]
        group = ["submit", str(EXAMPLE / "monday-group.csv"), "--coordinator", "ingrid", "--json", *at]
        batch = orjson.loads(in_service("admin", ["bulkreg", *group], code=1))
        assert (batch["status"], batch["completed"], batch["failed"]) == ("partial", 9, 2)
        assert httpx.get(f"{api}/api/v1/bulk-registrations", timeout=PATIENCE_S).status_code == 401
        in_service("admin", ["bulkreg", "verify"])
        for process in processes:
            process.terminate()
        assert [process.wait(PATIENCE_S) for process in processes] == [0] * len(processes)


def is_ready(api: str) -> bool:
    try:
        return httpx.get(f"{api}/readyz", timeout=5, verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False


def test_the_api_does_not_start_with_wrong_settings_and_says_how_to_correct_them(
    addresses: Mapping[str, str], program: Path, port: int, tmp_path: Path
) -> None:
    def refusal(given: Mapping[str, str]) -> str:
        command = ["bulkreg", *ROLES["api"]]
        done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        [told] = done.stderr.splitlines()
        return told

    given = environment("api", addresses, program, port)
    told = refusal({name: value for name, value in given.items() if name != "BULKREG_JWT_HS256_KEY"})
    assert told.startswith(
        "api_host is 0.0.0.0, which other machines can reach, and there is no authentication: set BULKREG_JWT_JWKS_URL"
    )
    with socket.create_server(("0.0.0.0", port)):
        assert f"0.0.0.0:{port}" in (told := refusal(given))
        assert told.endswith("address already in use; stop what uses it, or set BULKREG_API_PORT (or BULKREG_API_HOST)")
