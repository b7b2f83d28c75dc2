"""When root starts PostgreSQL, it runs as another user, who may enter a private folder of root's and run the programs there, and nothing
else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compose.embedded.launch import CAP_DAC_OVERRIDE
from compose.embedded.postgres import UNPRIVILEGED_USER
from compose.embedded.process import launched

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root on Linux switches the user")

# os.access is access(2), with which initdb looks for the server's program.
SCRIPT = """
import os, pwd, subprocess, sys
print(pwd.getpwuid(os.getuid()).pw_name, os.access(sys.argv[1], os.X_OK), subprocess.check_output(sys.argv[1:], text=True), end="")
print(*(line for line in open("/proc/self/status") if line.startswith("Cap")), sep="", end="")
"""


def test_an_unprivileged_user_runs_a_program_in_a_private_folder(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    program = private / "echo"
    shutil.copy("/bin/echo", program)
    done = subprocess.run(
        launched([sys.executable, "-I", "-c", SCRIPT, str(program), "entered"], user=UNPRIVILEGED_USER),
        capture_output=True,
        text=True,
        check=True,
    )
    found, *lines = done.stdout.splitlines()
    assert found == f"{UNPRIVILEGED_USER} True entered"
    capabilities = {name: int(bits, 16) for name, bits in (line.split(":") for line in lines)}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert capabilities[kind] == 1 << CAP_DAC_OVERRIDE
