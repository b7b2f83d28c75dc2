"""Runs Debian's Prometheus on the product's own rules, with every `for` left out, so that an alarm needs only its fault."""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.support.no_tls import NO_TLS
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_S, eventually

RULES = Path(__file__).parents[2] / "compose" / "observability" / "rules.yaml"
PROGRAM = shutil.which("prometheus")
# Of a run of some minutes.
STEP_S = 2


class Prometheus:
    """A running Prometheus."""

    def __init__(self, client: httpx.Client) -> None:
        self._http = client
        self._began_s = time.time()

    def fired(self) -> set[str]:
        """The alarms that have been raised since the start."""
        found = self._asked("query", query='max by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))')
        return {series["metric"]["alertname"] for series in found}

    def has_data(self, expression: str) -> bool:
        """Whether an expression of a panel has had a number since the start."""
        query = expression.replace("$__rate_interval", "30s")
        found = self._asked("query_range", query=query, start=str(self._began_s), end=str(time.time()), step=str(STEP_S))
        return any(value != "NaN" for series in found for _, value in series["values"])

    def are_up(self) -> bool:
        """Whether every target is scraped."""
        return {series["value"][1] for series in self._asked("query", query="up")} == {"1"}

    def _asked(self, path: str, **parameters: str) -> Sequence[Mapping[str, Any]]:
        response = self._http.get(path, params=parameters)
        assert response.status_code == 200, response.text
        found: Sequence[Mapping[str, Any]] = response.json()["data"]["result"]
        return found


@contextlib.contextmanager
def running_prometheus(folder: Path, targets: Mapping[str, Sequence[int]]) -> Iterator[Prometheus]:
    """Scrapes the ports of each job every second."""
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            rule.pop("for", None)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    jobs = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}]}
        for job, ports in targets.items()
    ]
    interval = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yaml").write_text(
        yaml.safe_dump({"global": interval, "rule_files": ["rules.yaml"], "scrape_configs": jobs})
    )
    port = free_port()
    command = [
        str(PROGRAM),
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            eventually(lambda: _is_ready(port), what="Prometheus")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=PATIENCE_S, verify=NO_TLS) as client:
                yield Prometheus(client)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/-/ready", verify=NO_TLS).status_code == 200
    except httpx.TransportError:
        return False
