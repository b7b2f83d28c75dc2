"""`stack.json` tells commands what runs in a home."""

from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.terminal.failures import ExitCode
from compose.embedded.home import Home, HomeError
from compose.embedded.stack_file import StackFile

RUNNING = StackFile(
    api="http://127.0.0.1:8080",
    kafka="127.0.0.1:9092",
    postgres="postgresql://bulkreg:secret@127.0.0.1:5432/bulkreg",
    topic_copies=1,
    console="http://127.0.0.1:8080/console/",
    token="t",
    admin_token=None,
    pids={"supervisor": [7], "relay": [8]},
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_what_runs_is_read_as_it_was_written_until_nothing_runs(home: Home) -> None:
    assert StackFile.read(home) is None
    with home.claimed():
        assert StackFile.read(home) is None
        RUNNING.write(home.stack_file)
        assert StackFile.read(home) == RUNNING
    assert home.stack_file.exists()
    assert StackFile.read(home) is None


def test_fields_of_a_newer_version_are_ignored_and_a_missing_one_is_named(home: Home) -> None:
    with home.claimed():
        RUNNING.write(home.stack_file)
        written = orjson.loads(home.stack_file.read_bytes())
        home.stack_file.write_bytes(orjson.dumps({**written, "added": 1}))
        assert StackFile.read(home) == RUNNING
        del written["console"]
        home.stack_file.write_bytes(orjson.dumps(written))
        with pytest.raises(HomeError, match="no console; stop it with bulkreg down --home"):
            StackFile.read(home)
        for command in (["info"], ["list"]):
            refused = CliRunner().invoke(app, [*command, "--home", str(home.path)])
            assert (refused.exit_code, "no console; stop it" in " ".join(refused.stderr.split())) == (ExitCode.BAD_INPUT, True)
