import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from compose.embedded.home import LOOPBACK_ADDRESS, PORTS, Home, HomeInUseError
from compose.embedded.product import StartError
from tests.support.ports import free_port


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_a_port_stays_the_same(home: Home) -> None:
    port = Home(home.path).port("kafka")
    assert port in PORTS
    assert home.port("kafka") == port
    assert home.port("kafka") == port


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"kafka": "x"}', b'{"kafka": 99999}', b"\xff"])
def test_a_damaged_file_of_ports_counts_as_none(home: Home, content: bytes) -> None:
    """The file of a disk that was full."""
    (home.path / "ports.json").write_bytes(content)
    port = home.port("kafka")
    assert port in PORTS
    assert Home(home.path).port("api") != port


def test_ports_are_replaced_in_one_step(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    port = home.port("kafka")
    before = (home.path / "ports.json").read_bytes()

    def full(self: Path, content: bytes) -> int:
        self.open("wb").close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space"):
            home.port("api")
    assert (home.path / "ports.json").read_bytes() == before
    assert home.port("kafka") == port


def test_homes_that_start_together_never_get_the_same_port(home: Home, tmp_path: Path) -> None:
    """Nothing listens yet, so each would find the port free."""
    other = Home(tmp_path / "other")
    other.create()
    port = home.port("api")
    assert other.port("api", preferred=port) != port
    assert not other.reserve(port)


def test_a_port_that_is_taken_is_replaced_for_good(home: Home) -> None:
    port = home.port("kafka")
    with socket.create_server((LOOPBACK_ADDRESS, port)):
        other = home.port("kafka")
    assert other != port
    assert home.port("kafka") == other


def test_components_of_a_home_never_share_a_port(home: Home) -> None:
    port = home.port("kafka")
    assert home.port("postgres", preferred=port) != port


@pytest.fixture
def reservations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that homes share, inside a new temporary folder. It does not exist yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"bulkreg-ports-{os.getuid()}"


def test_a_link_in_place_of_the_reservations_is_refused(home: Home, reservations: Path, tmp_path: Path) -> None:
    """Any user of the temporary folder may have put it there."""
    (tmp_path / "elsewhere").mkdir()
    reservations.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=rf"{reservations} is no directory of ours; remove it"):
        home.port("api")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_another_users_directory_in_place_of_the_reservations_is_refused(
    home: Home, reservations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = reservations.with_name(f"bulkreg-ports-{os.getuid() + 1}")
    theirs.mkdir()
    me = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: me)
    with pytest.raises(StartError, match=rf"{theirs} is no directory of ours; remove it"):
        home.port("api")


def test_a_link_in_place_of_a_reservation_is_not_followed(home: Home, reservations: Path, tmp_path: Path) -> None:
    reservations.mkdir()
    port = free_port()
    (reservations / str(port)).symlink_to(tmp_path / "written")
    with pytest.raises(StartError, match=f"can't reserve port {port}"):
        home.reserve(port)
    assert not (tmp_path / "written").exists()


def test_a_secret_is_kept_and_readable_only_by_its_owner(home: Home) -> None:
    secret = home.secret("jwt-key")
    assert len(secret) >= 43  # 256 bits in base64.
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
