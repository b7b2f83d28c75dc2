"""The benchmark: warms the product up, measures several rounds, and makes the table and the curves."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from compose.bench import database_limit, rows
from compose.bench.curves import Curve, Curves
from compose.bench.doubts import doubts
from compose.bench.generator import Generator
from compose.bench.growth import count_activities, fill
from compose.bench.jobs import SMALL_ITEMS, Open
from compose.bench.kafka_pair import bare_pair
from compose.bench.peers.running import PEERS, measure_peer
from compose.bench.plans import Plan
from compose.bench.processes import Processes
from compose.bench.rounds import CLIENTS, Instruments, Round, Step, measure_round
from compose.bench.samples import Row
from compose.bench.target import BenchTarget, make_organizations
from orchestrator.storage.connecting import open_engine


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of a run."""

    rows: Sequence[Row]
    curves: Sequence[Curve]
    doubts: Sequence[str]
    """A sentence for each reason to doubt the figures."""


class Bench:
    """Measures a target by a plan. `step` tells people what is being measured.

    Every method raises GeneratorEndedError, NotFinalError, ProcessReplacedError, ConsumerEndedError or PeerFailedError when the figures would
    mean nothing.
    """

    def __init__(self, target: BenchTarget, plan: Plan, step: Step) -> None:
        self._target = target
        self._plan = plan
        self._step = step
        self._processes = Processes(target.pids)

    def run(self, *, up_s: Mapping[str, float]) -> Figures:
        """Measures everything in the plan. `up_s` is how long the product took to start, for each kind of start."""
        engine = open_engine(self._target.settings().owner_url, application_name="bulkreg bench")
        days = make_organizations(engine)
        try:
            with Generator(self._target, days) as generator:
                with self._step("warming up"):  # so that no figure is of a cold product
                    generator.load(Open(self._plan.warm_up_batches, SMALL_ITEMS, CLIENTS))
                curves = Curves(generator, self._plan.rounds, self._step)
                grown = [curves.at(count_activities(engine), self._plan.sizes)] if self._plan.grown else []
                rounds = self._rounds(engine, generator)
                table = [*self._table(rounds), *rows.start_rows(up_s)]
                drawn = []
                if self._plan.places is not None:
                    drawn += [curves.against_clients(self._plan.places), curves.against_batch_size(self._plan.places)]
                for activities in self._plan.grown:
                    with self._step(f"filling the tables to {activities:,} activities"):
                        fill(engine, days, activities)
                    grown.append(curves.at(activities, self._plan.sizes))
        finally:
            engine.dispose()
        if grown:
            how = f"Rate: batches of {SMALL_ITEMS} from {CLIENTS} clients. Latency: one at a time."
            table += rows.growth_rows(grown)
            drawn.append(Curve("activities in the tables", how, grown))
        return Figures(table, drawn, doubts(rounds, os.cpu_count() or 1))

    def _rounds(self, engine: Engine, generator: Generator) -> list[Round]:
        settings = self._target.settings()
        sizes = self._plan.sizes
        with database_limit.limit_database(self._target.postgres) as url, bare_pair(settings) as pair_rate:
            tools = Instruments(
                settings,
                engine,
                url,
                pair_rate,
                generator,
                self._processes,
                self._step,
                partial(measure_peer, self._target.postgres),
                PEERS if self._plan.peers else (),
            )
            with self._step("warming the limits up"):
                database_limit.measure(url, sizes.limit_items // 20)
                pair_rate(sizes.pair_messages // 20)
            return [
                measure_round(tools, sizes, f"round {number} of {self._plan.rounds}")
                for number in range(1, self._plan.rounds + 1)
            ]

    def _table(self, rounds: Sequence[Round]) -> list[Row]:
        with self._step(f"{self._plan.idle_s:g} s without a load"):
            rest = rows.AtRest(self._processes.idle_percent(self._plan.idle_s), self._processes.memory_mb())
        return [
            *rows.throughput_rows(rounds),
            *rows.peer_rows(rounds),
            *rows.latency_rows(rounds),
            *rows.large_rows(rounds, self._plan.sizes.large_items),
            *rows.rest_rows(rest),
        ]
