"""`bulkreg bench`: measures the product's speed and its limits in the same run."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from cli.servers.embedded import embedded_installed
from cli.terminal.command import Audience, command
from cli.terminal.failures import BadInputError, UnreachableError, UnwritableError
from cli.terminal.output import Output, printable, table
from cli.terminal.progress import working

SHORT_TAKES = "under two minutes"
LONG_TAKES = "about twenty minutes, and 8 GB of disk while it runs"
LONG_GROWS_TO = 5_000_000


def register(app: typer.Typer) -> None:
    """Adds the command."""

    @command(app, "bench", audience=Audience.DEVELOPERS, example="bulkreg bench --report bench.html")
    def bench(
        output: Output,
        home: Annotated[
            Path | None,
            typer.Option(
                help="A running stack, also of an earlier version. Default: one of its own, removed afterwards.", file_okay=False
            ),
        ] = None,
        long: Annotated[bool, typer.Option("--long", help=f"More and larger rounds, and grown tables: {LONG_TAKES}.")] = False,
        grow: Annotated[
            int | None,
            typer.Option(
                help=f"Fill the tables to N activities (1.2 KB each) and measure again. 0: not; the default, but {LONG_GROWS_TO:,} with --long.",
                metavar="N",
                min=0,
            ),
        ] = None,
        peers: Annotated[
            bool,
            typer.Option("--peers", help="Measure other libraries in the same run, in the environment that `make peers` makes."),
        ] = False,
        report: Annotated[
            Path | None, typer.Option(help="Draw curves, too, into this HTML file: a minute more.", dir_okay=False)
        ] = None,
    ) -> None:
        """Measure throughput, latency and rest beside the limits of database and Kafka. The short form takes under two minutes."""
        with embedded_installed():
            from compose.bench.bench import Bench
            from compose.bench.page import figure, page, verdict
            from compose.bench.peers.running import is_installed
            from compose.bench.plans import LONG, PLACES, SHORT, grown_to
            from compose.bench.target import BenchTarget
            from compose.embedded.home import Home

        if report is not None and not report.parent.is_dir():
            raise BadInputError(f"{report.parent} is no directory: --report writes a file into one that exists")
        if peers and not is_installed():
            raise BadInputError("The other libraries are not installed: --peers needs the environment that `make peers` makes.")
        grown = grown_to((LONG_GROWS_TO if long else 0) if grow is None else grow)
        plan = replace(LONG if long else SHORT, places=None if report is None else PLACES, grown=grown, peers=peers)
        output.remark(f"This takes {LONG_TAKES if long else SHORT_TAKES} on two cores.")

        def step(words: str) -> AbstractContextManager[None]:
            if not output.is_live:
                output.remark(words)
            return working(output, words)

        with _started(home, step) as started:
            target = BenchTarget.running_in(Home(started.home))
            if target is None:
                raise UnreachableError(
                    f"Nothing runs in {started.home}. Start it with: bulkreg up --detach --home {started.home}"
                )
            figures = Bench(target, plan, step).run(up_s=started.up_s)
        if report is not None:
            try:
                report.write_text(page(figures), encoding="utf-8")
            except OSError as error:
                raise UnwritableError(f"{printable(report)} can't be written: {error.strerror}") from error
            output.remark(f"The page with the curves is {report}")
        shown = [
            [r.what, figure(r.median), f"{figure(r.lowest)} - {figure(r.highest)}", r.unit, r.goal, verdict(r)]
            for r in figures.rows
        ]
        for doubt in figures.doubts:
            output.remark(doubt)
        output.answer(asdict(figures), table(["what", "median", "spread", "unit", "goal", "met"], shown))


@dataclass(frozen=True)
class _Started:
    """A running stack, and how many seconds `up` took for each kind of start."""

    home: Path
    up_s: Mapping[str, float]


@contextmanager
def _started(home: Path | None, step: Callable[[str], AbstractContextManager[None]]) -> Iterator[_Started]:
    """Yields the given stack, or one that lives as long as the block. In both cases `up` is timed in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="bulkreg-bench-") as folder, ExitStack() as running:
        own = Path(folder) / "home"
        _download()
        with step("starting the product on a new home"), _running(own) as new_s:
            pass
        with step("starting it again on the same home"):
            again_s = running.enter_context(_running(own))
        if home is not None:
            running.close()
        yield _Started(home or own, {"on a new home": new_s, "again on the same home": again_s})


def _download() -> None:
    """Downloads what a first start would download, so that it is in no measured time. Raises UnreachableError."""
    with embedded_installed():
        from compose.embedded.kafka import fetch
    from compose.embedded.product import StartError

    if "BULKREG_KAFKA_BOOTSTRAP_SERVERS" in os.environ:
        return
    try:
        fetch()
    except StartError as error:
        raise UnreachableError(str(error)) from error


@contextmanager
def _running(home: Path) -> Iterator[float]:
    """Runs the product in a home as long as the block lasts. Yields the seconds until it was ready."""
    environment = {name: value for name, value in os.environ.items() if name != "BULKREG_HOME"}
    program = [sys.executable, "-P", "-m", "cli"]
    began = time.perf_counter()
    up = [*program, "up", "--detach", "--home", str(home)]
    started = subprocess.run(up, capture_output=True, text=True, env=environment, check=False)
    if started.returncode != 0:
        raise UnreachableError(f"The benchmark's own stack did not start:\n{started.stderr}")
    taken_s = time.perf_counter() - began
    try:
        yield taken_s
    finally:
        subprocess.run([*program, "down", "--home", str(home)], capture_output=True, env=environment, check=True)
