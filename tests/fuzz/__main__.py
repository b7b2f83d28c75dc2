"""`make fuzz`: inputs that strangers could send, made at random, against a time and memory budget.

A target is a module of this package with a function `run(*, seconds, seed, folder)` that returns its findings.
"""

import argparse
import importlib
import pkgutil
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import tests.fuzz

Run = Callable[..., list[str]]


def targets() -> dict[str, Run]:
    """Every target by its name."""
    names = [module.name for module in pkgutil.iter_modules(tests.fuzz.__path__) if not module.name.startswith(("_", "test_"))]
    modules = {name: importlib.import_module(f"tests.fuzz.{name}") for name in names}
    return {name: module.run for name, module in modules.items() if hasattr(module, "run")}


def main() -> int:
    """Returns 0 if nothing was found."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(known))
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", default="", help="a number that gives the same inputs again; a new one by default")
    given = parser.parse_args()
    seed = int(given.seed) if given.seed else secrets.randbelow(1 << 32)
    folder = Path(tempfile.mkdtemp(prefix=f"bulkreg-fuzz-{given.target}-"))
    print(f"{given.target}: {given.seconds:g} s, seed {seed}", flush=True)
    found = known[given.target](seconds=given.seconds, seed=seed, folder=folder)
    for finding in found:
        print(finding)
    print(f"{len(found)} findings" if found else "nothing found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
