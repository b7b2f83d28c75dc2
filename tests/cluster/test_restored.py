"""A database that is restored to a point in time, from a base backup and the log of what was written since, beside newer topics."""

import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import psycopg2
import pytest

from compose.embedded.postgres import UNPRIVILEGED_USER, binaries
from tests.cluster.bed import Bed
from tests.support.crashes import restart
from tests.support.waiting import eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]

PRIMARY, STANDBY = "postgres-1", "postgres-2"
AFTER_S = 15.0


def back_up(bed: Bed, folder: Path) -> None:
    """Makes a base backup, without the log of what is written meanwhile: the restored server gets that from the log's own files."""
    command = [str(binaries() / "pg_basebackup"), "-d", bed.postgres(PRIMARY).url, "-D", str(folder), "-X", "none", "-c", "fast"]
    subprocess.run(command, check=True, capture_output=True)


def restore(bed: Bed, backup: Path, until: str) -> None:
    """Puts the backup in the place of the primary, and lets it read the log until the moment. The standby is given up."""
    server = bed.postgres(PRIMARY)
    for name in (STANDBY, PRIMARY):
        bed.stop_server(name)
    lost = server.data.with_name("lost")
    server.data.rename(lost)
    shutil.move(backup, server.data)
    settings = {
        "restore_command": f'cp "{lost}/pg_wal/%f" "%p"',
        "recovery_target_time": until,
        "recovery_target_action": "promote",
        "synchronous_standby_names": "",
    }
    with (server.data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    (server.data / "recovery.signal").touch()
    if os.geteuid() == 0:
        account = pwd.getpwnam(UNPRIVILEGED_USER)
        for path in (server.data, *server.data.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
    restart(bed.servers, PRIMARY)


def now(bed: Bed) -> str:
    with psycopg2.connect(bed.postgres(PRIMARY).url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()::text")
        [moment] = cursor.fetchone() or ("",)
    connection.close()
    return str(moment)


def commands(bed: Bed) -> list[list[str]]:
    """The commands that `doctor` prints about the database and the topics."""
    findings = json.loads(bed.product.bulkreg("doctor", "--json", code=None))
    [finding] = [each for each in findings["findings"] if each["subject"] == "database and topics"]
    print(finding)
    return [
        shlex.split(command)[1:] for run in re.findall(r"run: ([^;]+)", finding["fix"] or "") for command in run.split(" && ")
    ]


def test_point_in_time_restore(bed: Bed, tmp_path: Path) -> None:
    """What was accepted after that point is in the topics. The commands that `doctor` prints bring it back, once."""
    with bed.load().at_work() as before:
        bed.go_on(before)
        back_up(bed, tmp_path / "backup")
        bed.go_on(before)
    bed.wait_until_ended(before.accepted)
    until = now(bed)
    time.sleep(1)  # what is written next has a later time
    with bed.load().at_work() as forgotten:
        bed.go_on(forgotten)
        time.sleep(AFTER_S)
    bed.wait_until_ended(forgotten.accepted)

    restore(bed, tmp_path / "backup", until)
    found = eventually(lambda: commands(bed), within_s=120, what="a finding of doctor")
    repairs = [command for command in found if command[0] == "groups"]
    assert repairs
    for command in repairs:
        bed.product.bulkreg(*command)
    bed.wait_until_ended(forgotten.accepted)
    for command in found[len(repairs) :]:
        bed.product.bulkreg(*command)
    bed.check(before)
    assert not commands(bed)
