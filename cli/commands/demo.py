"""`bulkreg demo`: starts the whole product with an example organization and a first batch, and keeps serving."""

import os
import shlex
import sys
import threading
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import typer

from cli.commands.stack import HomeOption, run_stack, show
from cli.servers.running import DEFAULT_HOME
from cli.terminal.command import Audience, command
from cli.terminal.failures import ExitCode
from cli.terminal.output import Output
from compose import embedded
from compose.embedded.home import Home
from compose.embedded.product import Product
from compose.embedded.stack_file import StackFile

EXAMPLE = Path(embedded.__file__).parent / "example"
ORGANIZATION, COORDINATOR, ADMINISTRATOR = "nordlys", "ingrid", "leader"
GROUP, TUESDAY, GROUP_TYPE, GROUP_MINUTES = "Tuesday group", 2, "peer_session", 90
TIME_ZONE = ZoneInfo("Europe/Oslo")


def register(app: typer.Typer, product: Product) -> None:
    """Adds the command."""

    @command(app, "demo", audience=Audience.DEVELOPERS, example="bulkreg demo --home /var/tmp/bulkreg-demo")
    def demo(output: Output, home: HomeOption = DEFAULT_HOME) -> ExitCode:
        """Start everything with an example organization and a first batch, and keep serving. Ctrl-C stops it."""
        story = _Story(app, home)

        def ready(stack: StackFile) -> None:
            # In a thread of its own, because this one supervises from now on.
            tell = story.tell_machines if output.json else story.tell
            threading.Thread(target=tell, args=(stack,), name="demo", daemon=True).start()

        return run_stack(Home(home), product, None, ready)


class _Story:
    """The steps of the demonstration: ordinary commands, each shown before it runs. All of them may be repeated."""

    def __init__(self, app: typer.Typer, home: Path) -> None:
        self._app = app
        self._home = home
        self._directory = ["directory", "import", _shown(EXAMPLE / "directory")]
        self._before = self._submit("registered-before.csv", ADMINISTRATOR, "Already registered")
        self._group = self._submit(home.resolve() / "tuesday-group.csv", COORDINATOR, GROUP)
        self._first = self._submit("tuesday-visits.csv", COORDINATOR, "Tuesday visits")

    def tell(self, stack: StackFile) -> None:
        """Shows people every step with its output, live, and what to try next."""
        self._say("The example organization: its mentors, and who may register for whom.")
        if not self._type(self._directory):
            return
        self._say("One visit is registered already, by the organization's administrator.")
        if not self._type([*self._before, "--watch"]):
            return
        self._say(
            "A group of 25 meets every Tuesday. Ingrid saved it as a template, and registered the meeting of the week before last."
        )
        self._save_group()
        if not self._type([*self._group, "--watch"]):
            return
        self._say("Now Ingrid, who coordinates the mentors of Bergen, submits her list: the first batch.")
        if not self._type([*self._first, "--watch"]):
            return
        batch = self._answer(self._first)
        typer.echo()
        show(StackFile.read(Home(self._home)) or stack, json=False)  # with the token of the organization that was just imported
        typer.echo(self._next_steps(stack, batch["batch_id"]))

    def tell_machines(self, stack: StackFile) -> None:
        """Prints one document for programs when the first batch is finished."""
        self._answer(self._directory)
        self._answer(self._before)
        self._save_group()
        self._answer(self._group)
        batch = self._answer(self._first)
        running = StackFile.read(Home(self._home)) or stack
        typer.echo(orjson.dumps({"stack": running, "batch": batch}))

    def _save_group(self) -> None:
        """Saves the group's template, unless an earlier demonstration has, and writes the list of its meeting."""
        mentors = (EXAMPLE / "weekly-group.csv").read_text().split()[1:]
        organization = ["--org", ORGANIZATION, "--coordinator", COORDINATOR]
        if not self._answer(["templates", "list", *organization])["data"]:
            values = ["--type", GROUP_TYPE, "--minutes", str(GROUP_MINUTES), "--weekday", str(TUESDAY)]
            self._answer(["templates", "save", GROUP, *mentors, *values, *organization])
        today = datetime.now(TIME_ZONE).date()
        # Not the last Tuesday: the console proposes that one, and so nobody of the group is registered on it yet.
        met = today - timedelta(days=(today.isoweekday() - TUESDAY) % 7 + 7)
        rows = ["mentor_id,activity_type,activity_date,duration_minutes"]
        rows += [f"{mentor},{GROUP_TYPE},{met},{GROUP_MINUTES}" for mentor in mentors]
        (self._home / "tuesday-group.csv").write_text("\n".join(rows) + "\n")

    def _submit(self, file: str | Path, coordinator: str, label: str) -> list[str]:
        """The command for a file of the example, or for another one."""
        return ["submit", _shown(EXAMPLE / file), "--org", ORGANIZATION, "--coordinator", coordinator, "--label", label]

    def _say(self, sentence: str) -> None:
        typer.echo(f"\n{sentence}")

    def _type(self, arguments: list[str]) -> bool:
        """Shows a command and runs it. Returns whether the command worked (some items may have failed)."""
        typer.echo(f"$ {self._typed(arguments)}")
        return self._run(arguments) in (ExitCode.DONE, ExitCode.SOME_FAILED)

    def _answer(self, arguments: list[str]) -> dict[str, Any]:
        """Returns the document that a command prints."""
        printed = BytesIO()
        with redirect_stdout(TextIOWrapper(printed, write_through=True)) as text:
            self._run([*arguments, "--json"])
        text.detach()
        document: dict[str, Any] = orjson.loads(printed.getvalue())
        return document

    def _run(self, arguments: list[str]) -> int:
        code: int = self._app([*arguments, "--home", str(self._home)], standalone_mode=False)
        return code

    def _typed(self, arguments: list[str]) -> str:
        """Returns a command as it can be copied into a terminal in the same working directory."""
        home = [] if self._home == DEFAULT_HOME else ["--home", str(self._home)]
        return shlex.join([*_program(), *arguments, *home])

    def _next_steps(self, stack: StackFile, batch_id: str) -> str:
        results = self._typed(["results", batch_id, "--format", "csv"])
        corrected = str(self._home / "corrected.csv")
        group = self._submit("monday-group.csv", COORDINATOR, "Monday group")
        return f"""
Try next, in another terminal, in this directory:

  # where it stands, and what there is
  {self._typed(["status", batch_id])}
  {self._typed(["list"])}
  # Astrid's id was mistyped: put it right, and try that item again. What succeeded is never run again.
  {results} | sed -n '1p; s/"astrid-1"/"astrid-01"/p' > {shlex.quote(corrected)}
  {self._typed(["retry", batch_id, "--correct", corrected, "--yes", "--watch"])}
  # a list of your own: this one comes with the product; edit it, and see what each item would give
  {self._typed([*group, "--preview"])}
  {self._typed([*group, "--watch"])}
  # stop a batch that was a mistake: refused here, because this one has ended
  {self._typed(["cancel", batch_id, "--reason", "Wrong week"])}
  # check on the live data that nothing is lost or doubled
  {self._typed(["verify"])}

The API's reference: {stack.api}/docs. The README and docs/cli.md go on from here. Serving until Ctrl-C.

In a browser, open the console, and log in as Ingrid: {stack.console}"""


def _shown(path: Path) -> str:
    """Returns a path in the shortest form that can be typed here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _program() -> list[str]:
    """Returns the words with which this program was called."""
    called = sys.argv[0]
    return [called] if os.access(called, os.X_OK) else [sys.executable, "-m", "cli"]
