"""compose/docker/observability.yaml watches every role of compose.yaml, and is as hardened as that."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from compose.observability.dashboards import FOLDER
from compose.roles import ROLES
from orchestrator.process.tracing import is_asked_for

DOCKER = Path(__file__).parents[2] / "compose" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "observability.yaml").read_text())
BESIDE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = set(SERVICES) - BESIDE["services"].keys()


def config(name: str) -> Any:
    return yaml.safe_load((DOCKER / COMPOSE["configs"][name]["file"]).read_text())


def test_every_role_sends_traces_and_keeps_its_networks() -> None:
    assert set(SERVICES) - OURS == set(ROLES)
    for role in ROLES:
        assert is_asked_for(SERVICES[role]["environment"])
        assert SERVICES[role]["networks"] == [*BESIDE["services"][role].get("networks", ["database", "events"]), "watching"]


def test_every_role_is_scraped_at_its_port_and_each_address_is_a_service() -> None:
    [job] = config("prometheus")["scrape_configs"]
    ports = {name: found["port"] for found in job["dns_sd_configs"] for name in found["names"]}
    assert ports == {role: 8080 if role == "api" else 8081 for role in ROLES}
    texts = [(DOCKER / file).read_text() for file in ("observability.yaml", "observability/sources.yaml")]
    addresses = re.findall(r"http://(\w+):\d+", "".join(texts))
    assert {host for host in addresses if host != "127"} == {"jaeger", "prometheus"}
    assert {source["type"] for source in config("sources")["datasources"]} == {"prometheus", "jaeger"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_is_pinned_hardened_and_published_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:v?\d+\.\d+\.\d+\}", service["image"])
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["networks"] == ["watching"]


def test_files_and_volumes_exist() -> None:
    [volume] = [each for each in SERVICES["grafana"]["volumes"] if each.startswith("..")]
    assert (DOCKER / volume.split(":")[0]).resolve() == FOLDER
    assert SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == "/etc/dashboards/overview.json"
    # A container whose root is read-only gets files only: for `content` Compose would write into it, and refuses to start it.
    assert all(config.keys() == {"file"} and (DOCKER / config["file"]).is_file() for config in COMPOSE["configs"].values())
    assert {config["source"] for name in OURS for config in SERVICES[name].get("configs", ())} == COMPOSE["configs"].keys()


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    for name in ("prometheus", "rules"):
        shutil.copy(DOCKER / COMPOSE["configs"][name]["file"], tmp_path / f"{name}.yaml")
    ran = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
