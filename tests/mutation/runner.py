"""Runs mutants in copies of the tree, and never in the tree itself, so that no mutant can be left behind."""

import contextlib
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.coverage_map import CoverageMap
from tests.mutation.mutant import Mutant, apply, by_path
from tests.support.stack import EXTERNAL, Stack, running_stack

# A mutant that makes its tests hang counts as noticed, after this time plus three times what they took before.
PATIENCE_S = 30.0
# The servers are replaced after this many mutants, because each mutant leaves topics behind.
SERVERS_LAST = 40
# It compares a statement with its header, so it would notice a missing condition only because its parameter is missing, too.
NO_JUDGE = "tests/unit/test_statements.py::test_each_declared_parameter_is_used"


@dataclass(frozen=True, slots=True)
class Judged:
    """`test` is the test that turned red, or None."""

    mutant: Mutant
    test: str | None


@contextlib.contextmanager
def copy_of(root: Path, folder: Path) -> Iterator[Path]:
    """The files that git knows or would add, as they are in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, check=True, capture_output=True
    ).stdout.decode()
    shutil.rmtree(folder, ignore_errors=True)
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def mutated(tree: Path, mutants: Sequence[Mutant]) -> Iterator[None]:
    """The copy with these edits while the block runs."""
    originals = {path: (tree / path).read_bytes() for path in by_path(mutants)}
    for path, here in by_path(mutants).items():
        (tree / path).write_bytes(apply(originals[path], here))
    try:
        yield
    finally:
        for path, content in originals.items():
            (tree / path).write_bytes(content)


def judge_all(
    root: Path, folder: Path, mutants: Sequence[Mutant], tests: CoverageMap, workers: int, note: Callable[[Judged], None]
) -> None:
    """Runs each mutant with the tests that run its lines, `workers` at a time. `note` is called with each result, by one thread at a time."""
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        waiting.put(mutant)
    lock = threading.Lock()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with copy_of(root, folder / f"tree-{number}") as tree:
                while not failures and not waiting.empty():
                    with running_stack("embedded", folder / f"stack-{number}") as stack:
                        _some(tree, stack, waiting, tests, lock, note)
                    shutil.rmtree(folder / f"stack-{number}", ignore_errors=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _some(
    tree: Path,
    stack: Stack,
    waiting: "queue.SimpleQueue[Mutant]",
    tests: CoverageMap,
    lock: threading.Lock,
    note: Callable[[Judged], None],
) -> None:
    for _ in range(SERVERS_LAST):
        try:
            mutant = waiting.get_nowait()
        except queue.Empty:
            return
        chosen = tests.tests_of(mutant)
        red = None
        if chosen:
            with mutated(tree, [mutant]):
                red = first_red(tree, ["-n", "0", "-x", *chosen], stack=stack, timeout_s=PATIENCE_S + 3 * tests.took_s(chosen))
        with lock:
            note(Judged(mutant, red))


def first_red(tree: Path, arguments: Sequence[str], *, stack: Stack | None, timeout_s: float) -> str | None:
    """The first test that is red, or None. A run that breaks before its first test, or hangs, is red as well."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree)}
    if stack is not None:
        servers = (stack.postgres_url, stack.kafka_bootstrap_servers)
        environment |= {"BULKREG_TEST_STACK": "external", **dict(zip(EXTERNAL, servers, strict=True))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "not full",
        "--hypothesis-profile=ci",
        "-p",
        "no:cacheprovider",
        f"--deselect={NO_JUDGE}",
        *arguments,
    ]
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            return "(hangs)"
    if process.returncode == 0:
        return None
    red = [line.split(" - ")[0] for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return red[0].split(" ", 1)[1] if red else "(does not start)"
