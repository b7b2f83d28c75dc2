"""The product on real machines: homes with any name, and shells that were set up for other programs."""

import json
import os
import subprocess
from pathlib import Path

import httpx
import psycopg2

from compose.embedded.infrastructure import Infrastructure
from tests.integration.test_poolers import SHELL
from tests.support.prepared import BULKREG
from tests.support.product import UP_WITHIN_S
from tests.support.waiting import PATIENCE_S

EXAMPLE = Path(__file__).parents[2] / "compose" / "embedded" / "example"

# Every character that is special in a shell, a properties file, a list or a URL; a line break; and bytes that are not UTF-8.
NASTY = os.fsdecode(b" k\xc3\xb8y, a=b;c'\"\\$HOME`x`#%!:*?[a]{b}\n\xff ")

NASTY_SHELL = {
    **SHELL,
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "NO_PROXY": "[::1,:x",
    "SSL_CERT_FILE": "/nowhere",
    "LC_ALL": "xx_XX.UTF-8",
    "LANG": "xx_XX",
    "TZ": "Nowhere/Bad",
    "PGDATA": "/nowhere",
    "JAVA_TOOL_OPTIONS": "-Dnothing -XX:+NoSuchOption",
    "_JAVA_OPTIONS": "-XX:+NoSuchOption",
    "JDK_JAVA_OPTIONS": "-XX:+NoSuchOption",
    "CLASSPATH": "/nowhere",
    "KAFKA_OPTS": "-XX:+NoSuchOption",
    "BULKREG_WORKER_DATABASE_URL": "postgresql://somebody@192.0.2.1/another",
    "BULKREG_API_DATABASE_URL": "postgresql://somebody@192.0.2.1/another",
    "BULKREG_KAFKA_SECURITY_PROTOCOL": "SSL",
}


def test_a_home_with_a_nasty_name_in_a_nasty_shell(tmp_path: Path) -> None:
    home = tmp_path / NASTY
    # The working directory has folders with the names of our packages.
    for name in ("api", "cli", "orchestrator"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit(99)")

    def bulkreg(*arguments: str) -> str:
        done = subprocess.run(
            [BULKREG[0], "-P", *BULKREG[1:], *arguments, "--home", str(home)],
            env=os.environ | NASTY_SHELL,
            capture_output=True,
            timeout=UP_WITHIN_S,
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    try:
        stack = json.loads(bulkreg("up", "--detach", "--json"))
        bulkreg("directory", "import", str(EXAMPLE / "directory"))
        file = tmp_path / "list.csv"
        file.write_text("mentor_id,activity_type,activity_date,duration_minutes\nastrid-01,training,2025-03-24,90\n")
        batch = json.loads(bulkreg("submit", str(file), "--org", "nordlys", "--coordinator", "ingrid", "--json"))
        assert (batch["status"], batch["submitted_at"][-1]) == ("completed", "Z")
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([NASTY, "api", "cli", "orchestrator", "list.csv"])
        assert (home / "kafka" / "meta.properties").exists()
        for path in ("healthz", "readyz", "metrics"):
            assert httpx.get(f"{stack['api']}/{path}", timeout=PATIENCE_S).status_code == 200
        lines = [json.loads(line) for line in (home / "logs" / "api.log").read_text(encoding="utf-8").splitlines()]
        routes = {line["route"] for line in lines if line.get("action") == "request"}
        assert routes == {"/api/v1/bulk-registrations", "/api/v1/bulk-registrations/{batch_id}"}
    finally:
        bulkreg("down")


def test_a_home_behind_a_link_and_far_down(tmp_path: Path) -> None:
    """The path is longer than a socket's path may be, and the product is started again with its data."""
    far = tmp_path.joinpath(*["ø" * 120] * 3)
    far.mkdir(parents=True)
    link = tmp_path / "a, link"
    link.symlink_to(far)
    with Infrastructure(link / "home") as endpoints:
        psycopg2.connect(endpoints.postgres_url).close()
    assert (far / "home" / "kafka" / "meta.properties").exists()
    with Infrastructure(far / "home") as endpoints:
        psycopg2.connect(endpoints.postgres_url).close()
    assert [path.name for path in far.iterdir()] == ["home"]
