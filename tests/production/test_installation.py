"""What docs/operations.md says about servers of one's own: the commands that install the program, and the unit that runs its roles."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compose.roles import ROLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
HOME = "/opt/bulkreg"

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_200)]


def test_the_commands_install_a_program_that_runs(tmp_path: Path) -> None:
    commands = [line.strip()[2:] for line in PAGE.splitlines() if line.strip().startswith("$ ") and HOME in line]
    assert len(commands) == 3
    # A copy of what is checked in, because a build leaves files in its folder.
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{ROOT}", checkout], check=True)
    for command in commands:
        words = [word.replace(HOME, str(tmp_path / "opt")) for word in command.split()]
        words[0] = sys.executable if words[0] == "python3" else words[0]
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    program = tmp_path / "opt" / "bin" / "bulkreg"
    done = subprocess.run([program, "run", "nobody"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert all(role in done.stdout + done.stderr for role in ROLES)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: apt-get install systemd)"
)
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    [unit] = re.findall(r"```ini\n(\[Unit\].*?)```", PAGE, re.DOTALL)
    assert f"{HOME}/bin/bulkreg run %i" in unit
    # The program has to exist.
    (tmp_path / "bulkreg@.service").write_text(unit.replace(f"{HOME}/bin/bulkreg", "/bin/true"))
    instance = tmp_path / "bulkreg@relay.service"
    done = subprocess.run(["systemd-analyze", "verify", instance], capture_output=True, text=True, check=False)
    told = [line for line in (done.stdout + done.stderr).splitlines() if "bulkreg@" in line]
    assert (done.returncode, told) == (0, [])
    [enabled] = re.findall(r"^\$ systemctl enable --now (.*)$", PAGE, re.MULTILINE)
    assert set(enabled.split()) == {f"bulkreg@{role}" for role in ROLES}
