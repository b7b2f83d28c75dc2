"""Which tests run which line. It is measured in one run of the suite with coverage, and used to choose a mutant's tests."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coverage import CoverageData
from coverage.exceptions import NoDataError

from tests.mutation.contexts import CONTEXT, DURATIONS
from tests.mutation.mutant import Mutant
from tests.mutation.tree import PACKAGES, modules

_CONFIG = """
[run]
branch = false
parallel = true
sigterm = true
patch = subprocess
context = ${%(context)s-}
source_pkgs = %(packages)s
data_file = %(folder)s/data
disable_warnings = no-data-collected, module-not-measured, module-not-imported, couldnt-parse
"""

# The time limit for one mutant's tests. The shortest come first.
BUDGET_S = 60.0


def measure(root: Path, folder: Path, arguments: Sequence[str]) -> int:
    """Runs the suite in `root` and writes the coverage to `folder`. Returns pytest's exit code."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = folder / "coveragerc"
    config.write_text(_CONFIG % {"context": CONTEXT, "packages": ", ".join(PACKAGES), "folder": folder})
    # Processes that tests start read the file themselves, and with it the present context.
    environment = os.environ | {CONTEXT: "", DURATIONS: str(folder), "COVERAGE_PROCESS_START": str(config)}
    pytest = ["-m", "pytest", "-p", "tests.mutation.contexts", "-q", "-m", "not full", "--hypothesis-profile=ci", *arguments]
    code = subprocess.run(
        [sys.executable, "-m", "coverage", "run", f"--rcfile={config}", *pytest], cwd=root, env=environment, check=False
    ).returncode
    subprocess.run(
        [sys.executable, "-m", "coverage", "combine", "-q", f"--rcfile={config}"], cwd=root, env=environment, check=True
    )
    return code


class CoverageMap:
    """The result of `measure`."""

    def __init__(self, folder: Path, root: Path, also: Sequence[str] = ()) -> None:
        """`also` names tests that are newer than the measurement. They are run for every mutant."""
        self._also = list(also)
        self._data = CoverageData(str(folder / "data"))
        self._data.read()
        self._root = root
        self._files = sorted(self._data.measured_files())
        self._took_s: dict[str, float] = {}
        for path in folder.glob("*.json"):
            self._took_s |= json.loads(path.read_text())
        if not self._took_s:
            raise NoDataError(f"nothing was measured in {folder}")
        self._users = Users(root)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that run the mutant's lines, or lines that use the constants or the statement that it changes.

        The shortest come first, up to the time limit.
        """
        found = self._contexts(mutant.path, range(mutant.line, mutant.end_line + 1))
        for path, lines in self._users.of(mutant.names, mutant.path).items():
            found |= self._contexts(path, lines)
        tests = sorted((test for test in found if test in self._took_s), key=lambda test: (self._took_s[test], test))
        within: list[str] = []
        for test in tests:
            if within and sum(self._took_s[one] for one in within) + self._took_s[test] > BUDGET_S:
                break
            within.append(test)
        return [*self._also, *within]

    def took_s(self, tests: Sequence[str]) -> float:
        """How long these tests took."""
        return sum(self._took_s.get(test, BUDGET_S / 2) for test in tests)

    def _contexts(self, path: str, lines: Sequence[int]) -> set[str]:
        # Paths in a copy of the tree count, too, because some tests install and start one.
        found: set[str] = set()
        for name in self._files:
            if name.endswith("/" + path):
                by_line = self._data.contexts_by_lineno(name)
                found |= {context for line in lines for context in by_line.get(line, ()) if context}
        return found


class Users:
    """The lines that use a constant or a statement, by its name or through constants that use it."""

    def __init__(self, root: Path) -> None:
        self._texts = {path.as_posix(): (root / path).read_text().splitlines() for path in modules(root) if path.suffix == ".py"}

    def of(self, names: frozenset[str], path: str) -> dict[str, list[int]]:
        """The numbers of the lines, by module."""
        begun = self._readers(names, path) if path.endswith(".sql") else [(path, name) for name in names]
        used: dict[str, list[int]] = {}
        wanted, known = begun, set(begun)
        for _ in range(3):
            found: list[tuple[str, str]] = []
            for home, name in wanted:
                for other in self._places(home, name):
                    lines, owners = self._uses(other, rf"\b{re.escape(name)}\b")
                    used.setdefault(other, []).extend(lines)
                    found += [(other, owner) for owner in owners]
            wanted = [one for one in dict.fromkeys(found) if one not in known]
            known |= set(wanted)
        return {other: sorted(set(lines)) for other, lines in used.items() if lines}

    def _readers(self, names: frozenset[str], path: str) -> list[tuple[str, str]]:
        """The constants that hold these statements of a file, with their modules. A module names the file that it reads."""
        readers = [other for other, lines in self._texts.items() if any(f'"{path}"' in line for line in lines)]
        return [(other, owner) for other in readers for name in names for owner in self._uses(other, f'"{re.escape(name)}"')[1]]

    def _places(self, home: str, name: str) -> Sequence[str]:
        """Private names are used in their own module, public ones everywhere."""
        return [home] if name.startswith("_") else [*self._texts]

    def _uses(self, module: str, pattern: str) -> tuple[list[int], list[str]]:
        """The lines that match the pattern, and the constants that are assigned there."""
        lines = self._texts.get(module, [])
        numbers = [number for number, line in enumerate(lines, start=1) if re.search(pattern, line)]
        owners = (re.match(r"(\w+)(?:: [^=]+)? = ", lines[number - 1]) or _owner(lines, number) for number in numbers)
        return numbers, [owner[1] for owner in owners if owner]


def _owner(lines: Sequence[str], number: int) -> re.Match[str] | None:
    """The module-level assignment that contains this line."""
    for line in reversed(lines[: number - 1]):
        if line and not line[0].isspace() and not line.startswith((")", '"""', "}", "]")):
            return re.match(r"(\w+)(?:: [^=]+)? = ", line)
    return None
