"""The Docker files name existing roles, settings and files, pin their images, and publish no port beyond loopback.

Building the images needs an engine. tests/end_to_end/test_deployment.py runs what the containers run.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from compose.roles import ROLES
from orchestrator.process.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "compose" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
DOCKERFILE = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
INSTRUCTIONS = [line for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
ENVIRONMENT_EXAMPLE = (DOCKER / ".env.example").read_text()


def test_every_role_runs_once_and_the_registration_twice() -> None:
    running = {name: SERVICES[name]["command"] for name in OURS if name != "setup"}
    assert running == {role: ["run", role] for role in ROLES}
    assert {name: SERVICES[name].get("deploy", {}).get("replicas", 1) for name in running} == {
        role: 2 if role == "registration" else 1 for role in ROLES
    }


def test_servers_start_before_the_schema_and_topics_and_these_before_the_roles() -> None:
    assert SERVICES["setup"]["entrypoint"] == ["/bin/sh", "-ec", "bulkreg db upgrade && bulkreg topics create"]
    assert SERVICES["setup"]["restart"] == "no"
    assert SERVICES["setup"]["depends_on"] == {name: {"condition": "service_healthy"} for name in ("postgres", "kafka")}
    assert all("test" in SERVICES[name]["healthcheck"] for name in ("postgres", "kafka", "api"))
    for name in set(OURS) - {"setup"}:
        assert SERVICES[name]["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_every_setting_exists() -> None:
    named = {name for service in SERVICES.values() for name in service.get("environment", {}) if "BULKREG" in name}
    named |= set(re.findall(r"^(?:# )?(BULKREG_\w+)=", ENVIRONMENT_EXAMPLE, re.MULTILINE))
    assert len(named) >= 8
    assert {name.removeprefix("BULKREG_").lower() for name in named} <= Settings.model_fields.keys()


def test_secrets_come_from_the_environment_file() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+):\?", text))
    assert needed == set(re.findall(r"\$\{(\w+)", text)), "a missing secret must be an error, and never empty"
    given = dict(re.findall(r"^(\w+)=(.*)$", ENVIRONMENT_EXAMPLE, re.MULTILINE))
    assert needed <= given.keys()
    assert all(value.startswith("change-me") for value in given.values())
    assert all(SERVICES[name]["env_file"] == ".env" for name in OURS)
    for kept_out in (DOCKER / "Dockerfile.dockerignore", ROOT / ".gitignore"):
        assert "compose/docker/.env" in kept_out.read_text().splitlines()


def test_images_are_pinned_and_nothing_is_published_beyond_loopback() -> None:
    for service in SERVICES.values():
        assert "build" in service or re.fullmatch(r"[a-z/]+:[\d.]+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    bases = {line.split()[1] for line in INSTRUCTIONS if line.startswith("FROM ")}
    assert all(re.fullmatch(r"[a-z/]+:[\d.]+[a-z-]*", base) for base in bases)


def test_the_servers_data_is_on_volumes() -> None:
    volumes = {
        volume.split(":", 1)[0]: volume.split(":", 1)[1] for name in SERVICES for volume in SERVICES[name].get("volumes", ())
    }
    assert volumes.keys() == COMPOSE["volumes"].keys()
    assert volumes["kafka"] == SERVICES["kafka"]["environment"]["KAFKA_LOG_DIRS"]


# The commands that docs/operations.md and compose.yaml show, and the folder to run them in.
TYPED = [
    (folder, shlex.split(line, comments=True))
    for folder, page in ((ROOT, ROOT / "docs" / "operations.md"), (DOCKER, DOCKER / "compose.yaml"))
    for line in re.findall(r"(?:\bcp|docker compose) [^`\n]*", page.read_text())
]
OPTIONS = {"up": {"--build", "--detach"}, "run": {"--rm", "-v"}}


def test_shown_compose_commands_name_existing_services() -> None:
    assert sum(words[:2] == ["docker", "compose"] for _, words in TYPED) >= 5
    for folder, words in TYPED:
        if words[0] == "cp":
            assert (folder / words[1]).is_file()
            assert folder / words[2] == DOCKER / SERVICES["api"]["env_file"]
            continue
        rest = words[2:]
        if rest[0] == "-f":
            assert folder / rest[1] == DOCKER / "compose.yaml"
            rest = rest[2:]
        subcommand, *rest = rest
        while rest and rest[0].startswith("-"):
            assert rest[0] in OPTIONS[subcommand]
            rest = rest[2:] if rest[0] == "-v" else rest[1:]
        if subcommand == "run":
            service, *arguments = rest
            assert service in OURS
            assert_command(arguments)
        else:
            assert rest == []


def assert_command(arguments: list[str]) -> None:
    """Checks that the image's program has this command and these options."""
    command: Any = typer.main.get_command(app)
    while arguments and arguments[0] in getattr(command, "commands", ()):
        command = command.commands[arguments.pop(0)]
    assert not hasattr(command, "commands"), f"no such command: {arguments}"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {each for each in arguments if each.startswith("-")} <= options


def _copied() -> list[str]:
    lines = [line for line in INSTRUCTIONS if line.startswith("COPY ") and "--from" not in line]
    return [path for line in lines for path in line.split()[1:-1]]


def test_the_dockerfile_copies_everything_that_it_needs() -> None:
    copied = _copied()
    assert all((ROOT / path).exists() for path in copied)
    packages = re.findall(
        r'"(\w+)"', re.findall(r"^packages = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]
    )
    assert {*packages, "pyproject.toml", "README.md", "locks/runtime.lock", "locks/build.lock"} == set(copied)


def test_the_build_context_has_only_what_is_copied() -> None:
    rules = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    assert rules[rules.index("*") + 1 :]
    assert {rule[1:] for rule in rules if rule.startswith("!")} == {path.removesuffix("/").split("/")[0] for path in _copied()}


@pytest.mark.parametrize("command", re.findall(r"\S+pip install.*?(?=&&|$)", DOCKERFILE, re.MULTILINE))
def test_every_package_is_installed_by_its_hash(command: str) -> None:
    assert "--require-hashes" in command or ("--no-deps" in command and "--no-index" in command)
    assert "--no-cache-dir" in command


def test_the_image_runs_as_an_unprivileged_user() -> None:
    last_stage = INSTRUCTIONS[max(number for number, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
    [user] = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert int(user) > 0
    assert not any(line.startswith(("RUN", "COPY")) for line in last_stage[last_stage.index(f"USER {user}") :])
    [entrypoint] = [line for line in last_stage if line.startswith("ENTRYPOINT")]
    assert entrypoint == 'ENTRYPOINT ["bulkreg"]', "the exec form is needed, so that signals reach the product"
