import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from compose.embedded.home import LOOPBACK, PORTS, Home, HomeInUseError


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_a_port_is_the_same_next_time(home: Home) -> None:
    port = Home(home.path).port("kafka")
    assert port in PORTS
    assert home.port("kafka") == port
    assert home.port("kafka") == port


def test_homes_that_start_together_are_never_given_the_same_port(home: Home, tmp_path: Path) -> None:
    """Nobody listens yet: each would find it free."""
    other = Home(tmp_path / "other")
    other.create()
    port = home.port("api")
    assert other.port("api", preferred=port) != port
    assert not other.reserve(port)


def test_a_port_that_is_taken_is_replaced_for_good(home: Home) -> None:
    port = home.port("kafka")
    with socket.create_server((LOOPBACK, port)):
        other = home.port("kafka")
    assert other != port
    assert home.port("kafka") == other


def test_components_of_a_home_never_share_a_port(home: Home) -> None:
    port = home.port("kafka")
    assert home.port("postgres", preferred=port) != port


def test_a_secret_is_kept_and_readable_by_its_owner_only(home: Home) -> None:
    secret = home.secret("jwt-key")
    assert len(secret) >= 43  # 256 bits in base64
    assert home.secret("jwt-key") == secret
    assert home.secret("postgres-password") != secret
    assert (home.path / "jwt-key").stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700


def test_a_claimed_home_is_refused_to_others_and_free_again_afterwards(home: Home) -> None:
    claim = "import sys, pathlib, compose.embedded.home as h\nwith h.Home(pathlib.Path(sys.argv[1])).claimed(): pass"
    other = [sys.executable, "-c", claim, str(home.path)]
    assert home.holder() is None
    with home.claimed():
        assert Home(home.path).holder() == os.getpid()
        refused = subprocess.run(other, capture_output=True, text=True, timeout=60, check=False)
        assert f"is in use by process {os.getpid()}" in refused.stderr
        with pytest.raises(HomeInUseError), Home(home.path).claimed():
            pass
    assert home.holder() is None
    assert subprocess.run(other, capture_output=True, timeout=60, check=False).returncode == 0
