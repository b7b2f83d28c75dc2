"""Log lines that can't be written: whoever logs goes on."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

REQUEST = """
import asyncio, logging
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from api.access_log import log_access
from orchestrator.logs import configure_logs
from orchestrator.settings import Settings

async def answer(request):
    return web.Response(text="the answer")

configure_logs(Settings())
for _ in range(100):  # more than a buffer holds
    logging.getLogger("other").error("x" * 200)
    response = asyncio.run(log_access(make_mocked_request("GET", "/"), answer))
print(response.text, flush=True)
"""


def answered(stderr: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", REQUEST], stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False
    ).stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_requests_are_answered_while_the_disk_of_the_log_is_full() -> None:
    with Path("/dev/full").open("wb") as full:
        assert answered(full.fileno()) == "the answer\n"


def test_requests_are_answered_when_nobody_reads_the_log_any_more() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert answered(writer) == "the answer\n"
    finally:
        os.close(writer)


def test_lines_of_both_kinds_of_loggers_come_out_in_one_form(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        answered(log.fileno())
    lines = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [("other", "error"), ("bulkreg.access", "info")] * 100
