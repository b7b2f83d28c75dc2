"""`bulkreg receipts verify`: what it says of a receipt, and that it needs nothing but the file."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web
from typer.testing import CliRunner

from cli.commands import receipts
from cli.main import app
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.receipt import Fault
from tests.support.merkle_log import example_receipt, receipt_bytes
from tests.unit.test_cli_client import problem, server

FIRST_VERSION = Path(__file__).parents[1] / "data" / "receipts" / "version-1.json"
KEY = SigningKey("records.example.org", bytes(range(32)))
OTHER = SigningKey("records.example.org", bytes(32))


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    file = tmp_path / "receipt.json"
    file.write_bytes(receipt_bytes(example_receipt(records=[2, 5], size=7, key=KEY, forgotten=[5])))
    return file


def verify(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["receipts", "verify", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_receipt_of_the_first_version_holds_for_ever() -> None:
    code, told, remarks = verify(FIRST_VERSION, "--key", KEY.verifier)
    assert (code, remarks) == (0, "")
    lines = [line.rstrip() for line in told.splitlines()]
    assert lines == [
        "The receipt holds.",
        "records: 2, dated 2026-03-03 to 2026-03-06",
        "log: records.example.org/nordlys, 7 entries when it was signed",
        "signed by: records.example.org+21f10ef8+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4",
        "fingerprint: 5647 5aa7 5463 474c 0285 df5d bf2b cab7",
        "record  what        date        mentor           type          minutes  by      check",
        "     2  registered  2026-03-03  mentor-2         conversation       32  ingrid  holds",
        "     5  registered  2026-03-06  (not disclosed)  conversation       35  ingrid  holds",
    ]


def test_without_a_trusted_key_it_says_that_none_was_compared(receipt: Path) -> None:
    code, told, remarks = verify(receipt)
    assert code == 0
    assert told.startswith("The receipt holds.")
    assert "The key was not compared" in remarks
    assert json.loads(verify(receipt, "--json")[1])["key_compared"] is False


def test_another_key_than_the_trusted_one_is_refused(receipt: Path) -> None:
    code, told, _ = verify(receipt, "--key", OTHER.verifier)
    assert code == 1
    assert "not signed with the key that you named" in told
    assert verify(receipt, "--key", OTHER.verifier, "--key", KEY.verifier)[0] == 0


def test_a_changed_record_is_named(receipt: Path) -> None:
    receipt.write_bytes(receipt.read_bytes().replace(b'"duration_minutes":32', b'"duration_minutes":62'))
    code, told, _ = verify(receipt)
    assert code == 1
    assert told.startswith("The receipt does not hold:\n  1 of 2 records: see below.\n")
    assert "Record 2 or its proof was changed" in told
    document = json.loads(verify(receipt, "--json")[1])
    assert not document["holds"]
    assert [(each["fault"], each["position"]) for each in document["faults"]] == [(Fault.RECORD_CHANGED, 0)]


def test_under_a_changed_checkpoint_no_record_is_said_to_hold(receipt: Path) -> None:
    receipt.write_bytes(receipt.read_bytes().replace(b"/nordlys\\n7\\n", b"/nordlys\\n6\\n"))
    code, told, _ = verify(receipt)
    assert code == 1
    assert "holds" not in told
    assert "not proved" in told


def test_a_file_that_is_no_receipt_is_bad_input(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("mentor;minutes\n")
    code, _, told = verify(file)
    assert code == 2
    assert told.startswith("This is not a receipt: ")
    assert verify(tmp_path / "missing.json")[0] == 2


def test_what_is_no_key_is_bad_input(receipt: Path) -> None:
    code, _, told = verify(receipt, "--key", "records.example.org")
    assert code == 2
    assert told.startswith("--key: ")


def test_a_check_needs_no_network_no_settings_and_no_server(receipt: Path) -> None:
    program = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from cli.main import app\n"
        "try: app()\n"
        "except SystemExit as end: code = end.code\n"
        "assert not {'aiohttp', 'confluent_kafka', 'psycopg2', 'sqlalchemy'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "receipts", "verify", receipt],
        env={"BULKREG_DATABASE_URL": "nonsense", "BULKREG_HOME": "/nowhere"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "The receipt holds.")


BATCH = UUID(int=7)


def get(answers: Sequence[web.Response], *arguments: object) -> tuple[int, bytes, str]:
    """What `receipts get` prints against a server that sends these responses."""
    left = list(answers)

    async def answer(request: web.Request) -> web.Response:
        assert request.path.endswith(f"/{BATCH}/receipt")
        return left.pop(0)

    async def run() -> Any:
        async with server(answer) as url:
            command = ["receipts", "get", str(BATCH), "--url", url, "--token", "t", "--org", "nordlys", *map(str, arguments)]
            return await asyncio.to_thread(CliRunner().invoke, app, command)

    result = asyncio.run(run())
    assert left == []
    return result.exit_code, result.stdout_bytes, result.stderr


def test_a_receipt_is_saved_as_it_came(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    content = FIRST_VERSION.read_bytes()
    found = web.Response(body=content, content_type="application/json")
    assert get([found], "--save", file) == (0, b"", "")
    assert file.read_bytes() == content
    assert get([web.Response(body=content, content_type="application/json")]) == (0, content, "")


def test_a_receipt_that_is_not_ready_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_AGAIN_AFTER_S", 0.0)
    not_ready = [problem(409, code="receipt_not_ready") for _ in range(3)]
    assert get([*not_ready, web.Response(body=b"{}", content_type="application/json")]) == (0, b"{}", "")
    monkeypatch.setattr(receipts, "_NOTARY_S", 0.0)
    assert get([problem(409, code="receipt_not_ready")]) == (2, b"", "Detail.\n")


def test_a_receipt_that_will_never_be_there_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "receipt.json"
    assert get([problem(409, code="nothing_registered")], "--save", file)[0] == 2
    assert not file.exists()
    assert get([], "--json")[0] == 2
