"""`make mutate`: does the suite turn red when the product is wrong? docs/mutation.md explains it and has the result."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutation.coverage_map import CoverageMap, measure
from tests.mutation.mutant import Mutant
from tests.mutation.report import write_report
from tests.mutation.runner import Judged, copy_of, first_red, judge_all, mutated
from tests.mutation.session import Session
from tests.mutation.tree import all_mutants, sample

ROOT = Path(__file__).parents[2]
WHOLE_SUITE_S = 3_600


def main() -> int:
    """Measures coverage unless it was measured, judges a sample, then its survivors together against the whole suite, and writes a report."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="how many mutants, half of them in SQL")
    parser.add_argument("--seed", type=int, default=14, help="the same seed draws the same mutants from the same tree")
    parser.add_argument("--only", nargs="*", default=[""], help="only files whose path begins with one of these")
    parser.add_argument("--also", nargs="*", default=[], help="tests that the coverage does not contain yet; they run first")
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time, each with its own servers")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="the folder with what is kept between runs")
    parser.add_argument("--coverage", type=Path, help="the folder with the coverage, if it is another one")
    parser.add_argument("--measure", action="store_true", help="measure the coverage again")
    parser.add_argument("--no-suite", action="store_true", help="do not run the survivors against the whole suite")
    options = parser.parse_args()
    folder: Path = options.folder.resolve()

    coverage: Path = (options.coverage or folder / "coverage").resolve()
    if options.measure or not (coverage / "data").exists():
        measure(ROOT, coverage, ["-n", str(options.workers), "--dist", "loadscope"])
    known = [mutant for mutant in all_mutants(ROOT) if mutant.path.startswith(tuple(options.only))]
    chosen = sample(ROOT, known, options.count, options.seed)
    session = Session(folder / "session.ndjson")
    done = session.read()
    print(
        f"{len(known)} mistakes can be made; {len(chosen)} drawn, {sum(one.id in done for one in chosen)} judged before",
        flush=True,
    )

    def note(judged: Judged) -> None:
        session.note(judged.mutant.id, judged.test, judged.mutant.summary)
        by = f"  by {judged.test}" if judged.test else ""
        print(f"{'noticed ' if judged.test else 'SURVIVED'} {judged.mutant.summary}{by}", flush=True)

    tests = CoverageMap(coverage, ROOT, options.also)
    judge_all(ROOT, folder, [one for one in chosen if one.id not in done], tests, options.workers, note)
    survivors = [one for one in chosen if not session.read()[one.id]]
    if survivors and not options.no_suite:
        with copy_of(ROOT, folder / "tree-suite") as tree:
            _by_halves(tree, survivors, session, options.workers)
    noticed = session.read()
    write_report(ROOT / "docs" / "mutation.md", chosen, noticed, seed=options.seed)
    left = [one for one in chosen if not noticed[one.id]]
    print(
        f"{len(chosen) - len(left)} of {len(chosen)} noticed; the others:",
        *(f"  {one.id} {one.summary}" for one in left),
        sep="\n",
    )
    return 0


def _by_halves(tree: Path, mutants: Sequence[Mutant], session: Session, workers: int) -> None:
    """Runs all of them at once against the whole suite. If that is red, divides them in halves until each is known."""
    arguments = ["-x", "-n", str(workers), "--dist", "loadscope"]
    with mutated(tree, mutants):
        red = first_red(tree, arguments, stack=None, timeout_s=WHOLE_SUITE_S)
    print(f"{len(mutants)} at once: {red or 'nothing is red'}", flush=True)
    if red is None:
        return
    if len(mutants) == 1:
        session.note(mutants[0].id, red, mutants[0].summary)
        return
    middle = len(mutants) // 2
    _by_halves(tree, mutants[:middle], session, workers)
    _by_halves(tree, mutants[middle:], session, workers)


if __name__ == "__main__":
    sys.exit(main())
