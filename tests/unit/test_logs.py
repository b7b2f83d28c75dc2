"""Log lines that can't be written do not stop the product."""

import json
import os
import subprocess
import sys
from pathlib import Path

import orjson

REQUEST = """
import asyncio, logging
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from api.access_log import log_access
from orchestrator.process.logs import configure_logs
from orchestrator.process.settings import Settings

async def answer(request):
    return web.Response(text="the answer")

configure_logs(Settings())
for _ in range(100):  # more than a buffer holds
    logging.getLogger("other").error("x" * 200)
    response = asyncio.run(log_access(make_mocked_request("GET", "/"), answer))
print(response.text, flush=True)
"""


# No file may grow any more, as on a full disk.
DISK_IS_FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
"""


def answered(stderr: int, *, circumstances: str = "") -> str:
    return subprocess.run(
        [sys.executable, "-c", circumstances + REQUEST], stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False
    ).stdout


def test_requests_are_served_while_the_logs_disk_is_full(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert answered(log.fileno(), circumstances=DISK_IS_FULL) == "the answer\n"
    assert (tmp_path / "log").read_bytes() == b""


def test_requests_are_served_after_the_logs_reader_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert answered(writer) == "the answer\n"
    finally:
        os.close(writer)


def test_lines_of_both_kinds_of_loggers_have_one_format(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        answered(log.fileno())
    lines = [orjson.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [(line["logger"], line["level"]) for line in lines] == [("other", "error"), ("bulkreg", "info")] * 100
    assert (lines[0]["event"], "action" in lines[0]) == ("x" * 200, False)
    request = {"action": "request", "role": "api", "method": "GET", "status": 200}
    assert lines[1].items() >= request.items()
    assert "event" not in lines[1]


CALL_OF_A_SERVICE = """
import httpx
from orchestrator.process.logs import configure_logs
from orchestrator.process.settings import Settings

configure_logs(Settings(log_level="DEBUG"))
with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
    client.get("https://svc:hemmelig@reg.example.org/registrations/1")
"""


def test_the_password_in_the_address_of_another_service_is_in_no_line() -> None:
    ran = subprocess.run([sys.executable, "-c", CALL_OF_A_SERVICE], check=True, capture_output=True, text=True)
    assert "hemmelig" not in ran.stderr


ODD = """
import logging
from orchestrator.process.actions import Action, log_action
from orchestrator.process.logs import configure_logs
from orchestrator.process.settings import Settings

configure_logs(Settings())
circle = []
circle.append(circle)
log_action(Action.POLL_ERROR, role="a \\ud800 b", number=2**70, deep={"a": ["\\udfff", circle]}, half=0.5, infinite=float("inf"), of=None)
log_action(Action.POLL_ERROR, role="names", **{"\\ud800": 1})
log_action(Action.POLL_ERROR, role="after", number=7, deep={"a": ["\N{GREEK SMALL LETTER ALPHA}"]})
logging.getLogger("theirs").error("read \\ud800")
"""


def test_a_line_is_written_whatever_values_it_contains(tmp_path: Path) -> None:
    """Text that is not valid Unicode, numbers that are too long for most readers, and objects that contain themselves."""
    with (tmp_path / "log").open("wb") as log:
        assert subprocess.run([sys.executable, "-c", ODD], stderr=log, timeout=60, check=False).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [line.get("role", line.get("event")) for line in lines] == ["a \\ud800 b", "names", "after", "read \\ud800"]
    first, named, after, _ = lines
    assert (first["number"], first["half"], first["infinite"], "of" in first) == (2**70, 0.5, "inf", False)
    assert "\\udfff" in first["deep"]
    assert named["\\ud800"] == 1
    assert (after["number"], after["deep"]) == (7, {"a": ["\N{GREEK SMALL LETTER ALPHA}"]})
    json.dumps(lines, ensure_ascii=False).encode()
