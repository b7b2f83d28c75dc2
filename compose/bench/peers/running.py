"""Runs the other libraries in their own environment, each in a new database on the product's PostgreSQL."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from compose.bench.scratch import scratch_database

PEERS: Mapping[str, int] = {"pgqueuer": 2_000, "procrastinate": 1_000, "dbos": 500}
"""The libraries, and how many items each does in a round: some seconds of work."""

ENVIRONMENT = Path(sys.prefix) / "peers"
_ROOT = Path(__file__).parents[3]


class PeerFailedError(Exception):
    """A library did not finish its items. It wrote the reason to standard error."""


def is_installed() -> bool:
    """Whether `make peers` has made their environment."""
    return (ENVIRONMENT / "bin" / "python").exists()


def measure_peer(postgres: str, peer: str) -> float:
    """Returns items per second of a library. Raises PeerFailedError."""
    with scratch_database(postgres, f"bench_{peer}") as url:
        program = [
            str(ENVIRONMENT / "bin" / "python"),
            "-m",
            f"compose.bench.peers.{peer}_peer",
            "measure",
            url,
            str(PEERS[peer]),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("BULKREG_", "PYTHON"))}
        done = subprocess.run(
            program, stdout=subprocess.PIPE, cwd=_ROOT, env=environment | {"PYTHONPATH": str(_ROOT)}, check=False
        )
    if done.returncode != 0:
        raise PeerFailedError(f"{peer} did not finish its items; what it wrote above says why")
    return float(json.loads(done.stdout))
