"""`make chaos`: the real product under load while everything is killed, stopped, cut off and filled up; then the verdict."""

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.nemesis import single_stage
from tests.chaos.report import page, summary
from tests.chaos.run import Plan, run
from tests.cluster.chaos import several_stage
from tests.cluster.network import has_own_network

LONG_S = 300.0
"""A run of at least this many seconds spends half of them on finding leaks."""


def main() -> int:
    """Returns 0 if the verdict is green."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="of chaos; the drain and the verdict come on top")
    parser.add_argument("--seed", default="", help="gives the same faults and requests again; a new one by default")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--calm", type=float, default=4.0, help="seconds between two faults of one nemesis, on average")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    parser.add_argument("--cluster", action="store_true", help="on three brokers and two databases, and with their faults")
    parser.add_argument("--report", type=Path, default=Path("chaos.html"))
    given = parser.parse_args()
    if given.cluster and not has_own_network():
        parser.error("--cluster needs iptables and a network of its own: run make chaos CLUSTER=1 as root")
    plan = Plan(
        seed=given.seed or secrets.token_hex(4),
        chaos_s=given.seconds,
        clients=given.clients,
        calm_s=given.calm,
        is_restored=not given.cluster,
        only=given.only,
        spared_s=given.seconds / 2 if given.seconds >= LONG_S else 0.0,
        # What is queued is worked off at a few hundred batches a second, or faster.
        drained_within_s=180.0 + given.seconds / 10,
        stage=several_stage if given.cluster else single_stage,
    )
    print(f"seed {plan.seed}: {plan.chaos_s:g} s of chaos, {plan.clients} clients", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bulkreg-chaos-"))
    result = run(plan, folder, lambda line: print(line, flush=True))
    given.report.write_text(page(result), encoding="utf-8")
    print(summary(result))
    print(f"Report: {given.report.resolve()}")
    if result.is_green:
        shutil.rmtree(folder)
        return 0
    print(f"Logs: {folder / 'home' / 'logs'}; again with the same faults: make chaos SEED={plan.seed} SECONDS={plan.chaos_s:g}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
