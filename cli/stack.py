"""`bulkreg up`, `down` and `info`: the whole product on this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from compose.embedded.home import Home, HomeInUseError
from compose.embedded.product import Product, StartError
from compose.embedded.stack_file import StackFile

DEFAULT_HOME = Path(".bulkreg")

USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

DOWN_TIMEOUT_S = 90.0  # more than all the supervisor's own deadlines together
POLL_S = 0.05


HomeOption = Annotated[Path, typer.Option("--home", envvar="BULKREG_HOME", help="Where data, logs and addresses are kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer, product: Product) -> None:
    """Adds the three commands. `product` says what `up` sets up and runs."""

    @app.command(epilog="Example: bulkreg up --detach --home /var/tmp/bulkreg --port 8080")
    def up(
        home: HomeOption = DEFAULT_HOME,
        port: Annotated[
            int | None, typer.Option(help="Of the API. Default: last time's, 8080 or a free one.", min=1, max=65535)
        ] = None,
        detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready; it runs on in the background.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Start the whole product on this machine and keep it running. Ctrl-C stops it, a second one leaves at once."""
        if detach:
            _detached(Home(home))
            _show(Home(home), json=json)
        else:
            raise typer.Exit(run_stack(Home(home), product, port, lambda file: show(file, json=json)))

    @app.command(epilog="Example: bulkreg down --home /var/tmp/bulkreg")
    def down(home: HomeOption = DEFAULT_HOME, json: JsonOption = False) -> None:
        """Stop what `up` has started in a home, all in order. The data stays."""
        place = Home(home)
        pid = place.holder()
        if pid is None:
            _fail(UNREACHABLE, f"nothing runs in {place.path}")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_TIMEOUT_S
        while place.holder() == pid:
            if time.monotonic() > deadline:
                _fail(UNREACHABLE, f"process {pid} has not stopped within {DOWN_TIMEOUT_S:g} s; see {place.logs}")
            time.sleep(POLL_S)
        typer.echo(orjson.dumps({"stopped": pid}).decode() if json else f"Stopped (process {pid}). The data is in {place.path}.")

    @app.command(epilog="Example: bulkreg info --json | jq -r .token")
    def info(home: HomeOption = DEFAULT_HOME, json: JsonOption = False) -> None:
        """Print the addresses, the tokens and the processes of what runs in a home."""
        _show(Home(home), json=json)


def run_stack(home: Home, product: Product, port: int | None, on_ready: Callable[[StackFile], None]) -> int:
    """Runs the product here until a signal stops it; the exit code."""
    # Imported here: a deployment that has its own Kafka and PostgreSQL is installed without the embedded ones.
    from compose.embedded.stack import PortTakenError, Stack, StackOptions

    postgres_url, kafka_bootstrap_servers = _given_servers()
    options = StackOptions(port=port, postgres_url=postgres_url, kafka_bootstrap_servers=kafka_bootstrap_servers)
    try:
        stopped_by = Stack(home, product, options, _report).run(on_ready)
    except (HomeInUseError, PortTakenError) as error:
        _fail(USAGE, str(error))
    except StartError as error:
        _fail(UNREACHABLE, str(error))
    return INTERRUPTED if stopped_by == signal.SIGINT else 0


def _given_servers() -> tuple[str | None, str | None]:
    """URL of PostgreSQL and bootstrap servers of Kafka, where the environment names them; None for what is to be embedded."""
    # Imported here: the other commands need not wait for the database's driver.
    from orchestrator.settings import Settings

    settings = Settings()
    given = settings.model_fields_set
    return (
        settings.database_url.get_secret_value() if "database_url" in given else None,
        settings.kafka_bootstrap_servers if "kafka_bootstrap_servers" in given else None,
    )


def _detached(home: Home) -> None:
    """Runs this same command without --detach in a session of its own; returns when it is ready."""
    _, kafka_bootstrap_servers = _given_servers()
    if kafka_bootstrap_servers is None:
        from compose.embedded.kafka import fetch

        try:
            fetch()  # here, where somebody can see how far it is
        except StartError as error:
            _fail(UNREACHABLE, str(error))
    home.create()
    with (home.logs / "up.log").open("a+b") as log:
        said_before = log.seek(0, os.SEEK_END)
        command = [sys.executable, *(argument for argument in sys.orig_argv[1:] if argument != "--detach")]
        supervisor = subprocess.Popen(  # its standard output has the tokens, which belong in no log
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
        _fail(supervisor.returncode or UNREACHABLE, log.read().decode(errors="replace").strip())


def _show(home: Home, *, json: bool) -> None:
    file = StackFile.read(home)
    if file is None:
        _fail(UNREACHABLE, f"nothing runs in {home.path}; start it with: bulkreg up --home {home.path}")
    show(file, json=json)


def show(file: StackFile, *, json: bool) -> None:
    """Prints where everything is."""
    if json:
        typer.echo(orjson.dumps(file.model_dump()).decode())
        return
    for name, value in (
        ("API", file.api),
        ("Kafka", file.kafka),
        ("PostgreSQL", file.postgres),
        ("Token (service)", file.token),
        ("Token (admin)", file.admin_token or "none: there is no organization yet"),
        ("Processes", ", ".join(f"{role} {pid}" for role, pids in file.pids.items() for pid in pids)),
    ):
        typer.echo(f"{name + ':':17}{value}")


def _report(line: str) -> None:
    typer.echo(line, err=True)


def _fail(code: int, message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)
