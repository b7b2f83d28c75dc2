"""Drops packets between servers and clients, in a network of the tests' own (`make test-production` as root)."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest


def has_own_network() -> bool:
    """Whether this process is alone in its network and may filter packets there."""
    return bool(os.environ.get("BULKREG_TEST_OWN_NETWORK")) and shutil.which("iptables") is not None


def need_own_network() -> None:
    """Skips the test unless this process has a network of its own."""
    if not has_own_network():
        pytest.skip("needs iptables and a network of its own: run make test-production as root")


@contextlib.contextmanager
def dropped(*ports: int | None) -> Iterator[None]:
    """Drops every packet to and from these ports while the block runs. Connections stay, and nothing comes through."""
    rules = [["INPUT", "-p", "tcp", side, str(port), "-j", "DROP"] for port in ports for side in ("--dport", "--sport")]
    try:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-A", *rule], check=True)
        yield
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-w", "-D", *rule], check=True)
