"""`bulkreg up`, `down` and `info`: the whole product on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import orjson
import typer

from cli.servers.embedded import embedded_installed
from cli.servers.running import DEFAULT_HOME
from cli.servers.settings import forget_servers, load_settings
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, ExitCode, UnreachableError
from cli.terminal.output import Output, printable
from cli.terminal.streams import refusal
from compose.embedded.home import Home, HomeError, HomeInUseError
from compose.embedded.product import Product, StartError
from compose.embedded.stack_file import StackFile
from orchestrator.process.ports import LAST_PORT

DOWN_TIMEOUT_S = 90.0  # more than all the supervisor's own timeouts together
POLL_S = 0.05


HomeOption = Annotated[Path, typer.Option("--home", envvar="BULKREG_HOME", help="The folder for data, logs and addresses.")]


def register(app: typer.Typer, product: Product) -> None:
    """Adds the three commands. `product` is what `up` sets up and runs."""

    @command(app, "up", audience=Audience.DEVELOPERS, example="bulkreg up --detach --home /var/tmp/bulkreg --port 8080")
    def up(
        output: Output,
        home: HomeOption = DEFAULT_HOME,
        port: Annotated[
            int | None, typer.Option(help="Port of the API. Default: the last one, 8080 or a free one.", min=1, max=LAST_PORT)
        ] = None,
        detach: Annotated[
            bool, typer.Option("--detach", help="Return when it is ready, and keep it running in the background.")
        ] = False,
        cluster: Annotated[
            bool, typer.Option("--cluster", help="Run three brokers, and PostgreSQL with a synchronous standby, in a new home.")
        ] = False,
    ) -> ExitCode:
        """Start the whole product on this machine and keep it running. Ctrl-C stops it; a second one exits immediately."""
        if not detach:
            return run_stack(Home(home), product, port, lambda file: show(file, json=output.json), cluster=cluster)
        _detached(Home(home))
        show(_running(home), json=output.json)
        if refusal() is not None:
            output.remark("It is running. Show its addresses with: bulkreg info")
        return ExitCode.DONE

    @command(app, "down", audience=Audience.DEVELOPERS, example="bulkreg down --home /var/tmp/bulkreg")
    def down(output: Output, home: HomeOption = DEFAULT_HOME) -> None:
        """Stop what `up` has started in a home, in order. The data stays."""
        place = Home(home)
        pid = place.holder()
        if pid is None:
            raise UnreachableError(f"nothing runs in {place.path}")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_TIMEOUT_S
        while place.holder() == pid:
            if time.monotonic() > deadline:
                raise UnreachableError(f"process {pid} has not stopped within {DOWN_TIMEOUT_S:g} s; see {place.logs}")
            time.sleep(POLL_S)
        sentence = f"Stopped (process {pid}). The data is in {printable(place.path)}."
        output.answer({"stopped": pid}, sentence, done=sentence)

    @command(app, "info", audience=Audience.DEVELOPERS, example="bulkreg info --json | jq -r .token")
    def info(output: Output, home: HomeOption = DEFAULT_HOME) -> None:
        """Print the addresses, tokens and processes of the stack in a home."""
        show(_running(home), json=output.json)


def run_stack(
    home: Home, product: Product, port: int | None, on_ready: Callable[[StackFile], None], *, cluster: bool = False
) -> ExitCode:
    """Runs the product here until a signal stops it. Raises BadInputError, and UnreachableError when something does not start."""
    # Imported here, because a deployment with its own Kafka and PostgreSQL has no embedded servers installed.
    with embedded_installed():
        from compose.embedded.stack import PortTakenError, Stack, StackOptions

    postgres_url, kafka_bootstrap_servers = _given_servers()
    forget_servers(database=postgres_url is None, kafka=kafka_bootstrap_servers is None)
    options = StackOptions(port=port, postgres_url=postgres_url, kafka_bootstrap_servers=kafka_bootstrap_servers, cluster=cluster)
    try:
        stopped_by = Stack(home, product, options, _report).run(on_ready)
    except (HomeInUseError, PortTakenError) as error:
        raise BadInputError(str(error)) from error
    except StartError as error:
        raise UnreachableError(str(error)) from error
    return ExitCode.INTERRUPTED if stopped_by == signal.SIGINT else ExitCode.DONE


def _given_servers() -> tuple[str | None, str | None]:
    """Returns PostgreSQL's URL and Kafka's bootstrap servers from the environment. None: that server is to be embedded."""
    settings = load_settings()
    given = settings.model_fields_set
    return (
        settings.database_url.get_secret_value() if "database_url" in given else None,
        settings.kafka_bootstrap_servers if "kafka_bootstrap_servers" in given else None,
    )


def _detached(home: Home) -> None:
    """Runs this command without --detach in a new session. Returns when it is ready."""
    _, kafka_bootstrap_servers = _given_servers()
    if kafka_bootstrap_servers is None:
        with embedded_installed():
            from compose.embedded.kafka import fetch

        try:
            fetch()  # in the foreground, so that the user sees the progress
        except StartError as error:
            raise UnreachableError(str(error)) from error
    home.create()
    with (home.logs / "up.log").open("a+b") as log:
        said_before = log.seek(0, os.SEEK_END)
        command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--detach")]
        supervisor = subprocess.Popen(  # its standard output contains the tokens, so it goes to no log
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
        try:
            while supervisor.poll() is None:
                file = StackFile.read(home)
                if file is not None and file.pids["supervisor"] == [supervisor.pid]:
                    return
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            supervisor.terminate()
            supervisor.wait()
            raise
        log.seek(said_before)
        failure = BadInputError if supervisor.returncode == ExitCode.BAD_INPUT else UnreachableError
        said = log.read().decode(errors="replace").strip()
        unwritten = (
            f"The product ended with exit code {supervisor.returncode}, and the reason could not be written to {home.logs / 'up.log'}."
            " Check that the disk is not full."
        )
        raise failure(said or unwritten)


def _running(path: Path) -> StackFile:
    try:
        home = Home(path)
        file = StackFile.read(home)
    except HomeError as error:
        raise BadInputError(str(error)) from error
    if file is None:
        raise UnreachableError(f"nothing runs in {home.path}; start it with: bulkreg up --home {home.path}")
    return file


def show(file: StackFile, *, json: bool) -> None:
    """Prints all addresses. The JSON document is one line, so that a program that starts `up` knows when it is complete."""
    if json:
        typer.echo(orjson.dumps(file).decode())
        sys.stdout.flush()
        return
    for name, value in (
        ("Console", file.console),
        ("API", file.api),
        ("Kafka", file.kafka),
        ("PostgreSQL", file.postgres),
        ("Token (service)", file.token),
        ("Token (admin)", file.admin_token or "none: there is no organization yet"),
        ("Processes", ", ".join(f"{role} {pid}" for role, pids in file.pids.items() for pid in pids)),
    ):
        typer.echo(f"{name + ':':17}{value}")
    sys.stdout.flush()


def _report(line: str) -> None:
    typer.echo(line, err=True)
