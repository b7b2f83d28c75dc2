"""Shows how far a command's batches are: a bar on a terminal, lines elsewhere if `--watch` is given."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.terminal.output import Output, printable
from cli.terminal.styles import are_forbidden

# Shorter work needs no bar.
BAR_AFTER_S = 2.0

STATES = ("completed", "failed", "cancelled", "pending")


class BatchProgress:
    """The combined progress of some batches. `update` takes a batch as the API returns it."""

    def __init__(self, total_batches: int, total_items: int, bar: Progress | None, *, prints_lines: bool) -> None:
        self._batches: dict[str, Mapping[str, Any]] = {}
        self._total_batches = total_batches
        self._total_items = total_items
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=total_items, counts="")
        self._prints_lines = prints_lines

    def update(self, batch: Mapping[str, Any]) -> None:
        """Shows the present state of the batch."""
        if self._prints_lines and self._batches.get(batch["batch_id"]) != batch:
            print(f"{batch['batch_id']}  {described(batch)}", flush=True)
        self._batches[batch["batch_id"]] = batch
        if self._bar is not None and self._task is not None:
            counts = {state: sum(each[state] for each in self._batches.values()) for state in STATES}
            done = sum(each["total_items"] - each["pending"] for each in self._batches.values())
            finished = sum(each["pending"] == 0 for each in self._batches.values())
            self._bar.update(
                self._task,
                completed=done,
                total=max(self._total_items, done),
                description=f"{finished} of {self._total_batches} batches"
                if self._total_batches > 1
                else printable(batch["status"]),
                counts=", ".join(f"{count} {_WORDS[state]}" for state, count in counts.items()),
            )


_WORDS = {"completed": "success", "failed": "failed", "cancelled": "cancelled", "pending": "pending"}


def described(batch: Mapping[str, Any]) -> str:
    """Returns a batch's state in a line."""
    counts = ", ".join(f"{batch[state]} {_WORDS[state]}" for state in STATES if batch[state])
    return f"{batch['status']}: {counts} of {batch['total_items']}"


def speed(progress: Mapping[str, Any]) -> str:
    """Returns the speed and the remaining time of a batch that is processing."""
    finished_at = printable(progress["estimated_completion_at"])
    return f"{progress['percent']} %, {progress['items_per_second']:.3g} items a second, finished about {finished_at}"


@contextmanager
def batch_progress(output: Output, *, total_batches: int, total_items: int, watch: bool) -> Iterator[BatchProgress]:
    """Shows the progress of batches while the block runs: immediately with `watch`, otherwise if it takes longer than two seconds."""
    bar = _bar(output, BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[counts]}")) if output.is_live else None
    progress = BatchProgress(total_batches, total_items, bar, prints_lines=watch and bar is None and not output.json)
    with _shown(bar, after_s=0.0 if watch else BAR_AFTER_S):
        yield progress


@contextmanager
def working(output: Output, description: str) -> Iterator[None]:
    """Shows a spinner while the block runs, if it takes longer than two seconds."""
    bar = _bar(output) if output.is_live else None
    if bar is not None:
        bar.add_task(description, total=None)
    with _shown(bar, after_s=BAR_AFTER_S):
        yield


@contextmanager
def counting(output: Output, description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far the block is, if it takes longer than two seconds. The block calls the yielded function with the number of steps
    done."""
    bar = _bar(output, BarColumn(), MofNCompleteColumn()) if output.is_live else None
    task = None if bar is None else bar.add_task(description, total=total)

    def advance(steps: int) -> None:
        if bar is not None and task is not None:
            bar.advance(task, steps)

    with _shown(bar, after_s=BAR_AFTER_S):
        yield advance


def _bar(output: Output, *columns: ProgressColumn) -> Progress:
    console = Console(
        file=sys.stderr,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=None if are_forbidden(by_option=output.no_color) else "auto",
    )
    shown = (SpinnerColumn(), TextColumn("{task.description}"), *columns, TimeElapsedColumn())
    return Progress(*shown, console=console, transient=True)


@contextmanager
def _shown(bar: Progress | None, *, after_s: float) -> Iterator[None]:
    if bar is None:
        yield
        return
    timer = threading.Timer(after_s, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
