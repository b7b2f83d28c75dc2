"""One run: start, load and faults at the same time, recovery, drain, and only then the verdict."""

import asyncio
import contextlib
import json
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.announcements import read_announced_ends, read_differing_events
from tests.chaos.clients import Submitter, run_clients
from tests.chaos.cluster import Cluster
from tests.chaos.history import History
from tests.chaos.judge import Finding, Rule, Verdict, judge
from tests.chaos.leavers import finish_forgettings, forgetting_findings, read_pseudonyms, with_their_ids
from tests.chaos.monitor import Monitor, Sample, leaks
from tests.chaos.nemesis import Fault, Nemesis, Stage, Strike, pauses, role_faults, single_stage
from tests.chaos.notes import note_findings, read_noted_items
from tests.chaos.operator import Operator
from tests.chaos.receipts import audit_logs, log_findings, read_receipts, receipt_findings, replace_forked_log
from tests.chaos.receiver import ALLOWED, Receiver, delivery_findings, finish_deliveries, make_webhook, running_receiver
from tests.chaos.rest import Rest
from tests.chaos.restored_database import OlderCopy
from tests.chaos.tables import read_batches, read_periods, read_totals
from tests.chaos.upstream import Upstream
from tests.chaos.work import Work

WARM_UP_S = 2.0
# The load before the copy is made that is restored, and after it.
COPIED_AFTER_S, FORGOTTEN_S = 3.0, 3.0
SAMPLES = 300
SAY_EVERY_S = 10.0
DRAIN_LOOK_S = 1.0
# An hour leaves two million items, and a replay of them takes five minutes beside other work.
CHECKED_WITHIN_S = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do. The same seed gives the same faults and requests in the same order. Which of them coincide depends on the machine."""

    seed: str
    chaos_s: float
    clients: int = 8
    calm_s: float = 3.0
    """Mean time between two faults of one nemesis."""
    spared_s: float = 0.0
    """For this long, at the end of the chaos, our own processes are not killed, so that they live long enough to show leaks."""
    drained_within_s: float = 180.0
    """After the recovery. The sweeper finds a lost record within a minute."""
    is_restored: bool = False
    """Whether the database is restored once from an older copy before the chaos."""
    only: str = ""
    """Only faults whose name contains this. Empty means all of them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Settings of the product."""
    stage: Callable[[Path, Mapping[str, str]], contextlib.AbstractContextManager[Stage]] = single_stage
    """Starts the product in a home, with these settings."""


@dataclass(slots=True, kw_only=True)
class Result:
    """Everything that the report shows."""

    plan: Plan
    history: History
    strikes: Sequence[Strike]
    not_reached: Sequence[str]
    """What the run could not break."""
    samples: Sequence[Sample]
    renewed: Sequence[str]
    """The consumer groups that the operator gave to roles whose group was refused."""
    verdict: Verdict
    began_s: float
    took_s: Mapping[str, float]
    """By phase."""

    @property
    def is_green(self) -> bool:
        """Whether nothing was lost, doubled, stuck or wrong."""
        return not self.verdict.findings

    @property
    def faults(self) -> Mapping[str, int]:
        """How often each fault happened."""
        return Counter(strike.fault for strike in self.strikes)


def run(plan: Plan, folder: Path, say: Callable[[str], None]) -> Result:
    """Runs the plan in an empty folder. Raises if the product can't be started, or does not recover."""
    history, strikes, took_s = History(), list[Strike](), dict[str, float]()
    began_s = time.monotonic()
    with (
        running_receiver(plan.seed) as (receiver, receiver_url),
        plan.stage(folder / "home", {**plan.environment, **ALLOWED}) as stage,
    ):
        cluster = stage.cluster
        monitor, operator = Monitor(cluster, every_s=max(1.0, plan.chaos_s / SAMPLES)), Operator(cluster)
        with _phase("start", took_s, began_s):
            work = Work(plan.seed, history)
            upstream = Upstream(plan.seed, cluster.settings, work, history)
            make_webhook(cluster, receiver, receiver_url)
        found: list[Finding] = []
        told_twice: Set[str] = frozenset()
        replaced_log: int | None = None
        if plan.is_restored:
            with _phase("restore", took_s):
                told_twice, replaced_log = _restore(plan, cluster, history, work, upstream, receiver, found, say)
        with _phase("chaos", took_s), _in_thread(monitor.run), _in_thread(operator.run):
            found += load_and_harm(plan, stage, history, work, upstream, strikes, say)
        with _phase("heal", took_s), _in_thread(operator.run):
            cluster.wait_until_healed()
            upstream.finish()
        with _phase("drain", took_s), _in_thread(monitor.run), _in_thread(operator.run):
            unrest = _drain(cluster, plan.drained_within_s, say) or finish_deliveries(cluster, receiver)
        with _phase("forget", took_s):
            found += finish_forgettings(cluster)
        with _phase("judge", took_s):
            totals, ends = read_totals(cluster.postgres_url), read_announced_ends(cluster.settings)
            pseudonyms = read_pseudonyms(cluster.postgres_url, history)
            verdict = judge(
                history,
                with_their_ids(read_batches(cluster.postgres_url), pseudonyms),
                totals,
                ends,
                read_periods(cluster.postgres_url),
            )
            verdict.findings += found
            verdict.findings += _breaches(cluster)
            verdict.findings += _told_otherwise(cluster)
            verdict.findings += read_differing_events(cluster.settings, told_twice)
            verdict.findings += note_findings(history, read_noted_items(cluster.postgres_url, history), told_twice)
            verdict.findings += forgetting_findings(cluster, history, pseudonyms, folder)
            verdict.findings += delivery_findings(receiver, ends, told_twice)
            answer = audit_logs(cluster, within_s=CHECKED_WITHIN_S)
            verdict.findings += log_findings(answer, audits=totals.audits, replaced=replaced_log)
            receipts = read_receipts(cluster, plan.seed, folder)
            verdict.findings += receipt_findings(receipts)
            verdict.judged |= {
                "erasures": len(history.erasures),
                "people forgotten": len(pseudonyms),
                "deliveries": len(receiver.bodies),
                "leaves of logs": answer.get("leaves", 0),
                "receipts": len(receipts),
            }
            verdict.findings += [Finding(Rule.LEAK, "processes", leak) for leak in leaks(monitor.samples, stage.fills_for_s)]
            if cluster.product.stack["pids"]["supervisor"] != [cluster.supervisor]:
                verdict.findings.append(Finding(Rule.SUPERVISOR, "processes", "the supervisor is another process"))
            if unrest:
                late = f"{unrest}, {plan.drained_within_s:g} s after the recovery"
                verdict.findings.append(Finding(Rule.STUCK, "the whole", late))
    if left := monitor.left_behind():
        verdict.findings.append(Finding(Rule.LEFT_BEHIND, "processes", f"{left} outlived `bulkreg down`"))
    return Result(
        plan=plan,
        history=history,
        strikes=strikes,
        not_reached=cluster.not_reached,
        samples=monitor.samples,
        renewed=operator.renewed,
        verdict=verdict,
        began_s=began_s,
        took_s=took_s,
    )


def _restore(
    plan: Plan,
    cluster: Cluster,
    history: History,
    work: Work,
    upstream: Upstream,
    receiver: Receiver,
    found: list[Finding],
    say: Callable[[str], None],
) -> tuple[Set[str], int | None]:
    """Makes a copy under load, and restores it after more load. Returns the ids of the batches that are announced twice, and the number of the
    log of receipts that was replaced."""
    copies: list[OlderCopy] = []

    async def until() -> None:
        await asyncio.sleep(COPIED_AFTER_S)
        copies.append(await asyncio.to_thread(OlderCopy, cluster))
        await asyncio.sleep(FORGOTTEN_S)

    def come_to_rest() -> None:
        cluster.wait_until_healed()
        if unrest := _drain(cluster, plan.drained_within_s, say) or finish_deliveries(cluster, receiver):
            found.append(Finding(Rule.STUCK, "the restored database", unrest))

    work.has_fights = False
    with _in_thread(upstream.run):
        run_clients(plan.clients, plan.seed, cluster.api, cluster.token, work, history, until, Submitter)
    work.has_fights = True
    upstream.finish()
    come_to_rest()
    told_twice = copies[0].restore(found)
    say(
        f"restored a database that knows the end of {len(history.submissions) - len(told_twice)} batches of {len(history.submissions)}"
    )
    come_to_rest()
    replaced_log = replace_forked_log(cluster)
    say(
        "its log of receipts can be continued"
        if replaced_log is None
        else "its log of receipts had forked, and another was begun"
    )
    return told_twice, replaced_log


def load_and_harm(
    plan: Plan,
    stage: Stage,
    history: History,
    work: Work,
    upstream: Upstream,
    strikes: list[Strike],
    say: Callable[[str], None],
) -> Sequence[Finding]:
    """Returns what failed in causing the faults. The run is then red, and what happened until then is judged all the same."""
    cluster = stage.cluster
    failed: list[Finding] = []
    checks: list[Callable[[], None]] = []

    def nemesis(name: str, faults: Sequence[Fault]) -> Nemesis:
        chosen = [fault for fault in faults if plan.only in fault.name]
        return Nemesis(cluster, chosen, f"{plan.seed} {name}", calm_s=plan.calm_s, strikes=strikes)

    async def wait(ends_s: float, *, longer_s: float) -> None:
        while (left_s := ends_s - time.monotonic()) > longer_s:
            for check in checks:
                check()
            say(f"{left_s:5.0f} s left: {len(history.submissions)} batches asked for, {len(strikes)} faults")
            await asyncio.sleep(min(left_s - longer_s + 0.01, SAY_EVERY_S))

    async def until() -> None:
        await asyncio.sleep(WARM_UP_S)
        ends_s = time.monotonic() + plan.chaos_s
        try:
            with contextlib.ExitStack() as harm:
                for name, faults in stage.faults.items():
                    checks.append(harm.enter_context(_in_thread(nemesis(name, faults).run)))
                with _in_thread(nemesis("roles", role_faults()).run):
                    await wait(ends_s, longer_s=plan.spared_s)
                with _in_thread(nemesis("pauses", pauses()).run):
                    await wait(ends_s, longer_s=0.0)
        except Exception as error:
            say("".join(traceback.format_exception(error)))
            left_s = ends_s - time.monotonic()
            failed.append(Finding(Rule.NO_MORE_FAULTS, "the whole", f"{left_s:.0f} s before the end: {error!r}"))

    with _in_thread(upstream.run):
        run_clients(plan.clients, plan.seed, cluster.api, cluster.token, work, history, until)
    return failed


def _drain(cluster: Cluster, within_s: float, say: Callable[[str], None]) -> str:
    """Waits until everything is at rest. Returns what is not at rest when the time is over."""
    deadline = time.monotonic() + within_s
    rest = Rest(cluster.settings)
    while (missing := rest.missing()) and time.monotonic() < deadline:
        say(f"draining: {missing}")
        time.sleep(DRAIN_LOOK_S)
    if not missing:
        return ""
    return f"{missing} ({rest.refused() or rest.queued() or 'no record waits on a topic'})"


def _breaches(cluster: Cluster) -> Iterator[Finding]:
    """What the product's own check finds."""
    answer = json.loads(cluster.product.bulkreg("verify", "--json", code=None, within_s=CHECKED_WITHIN_S))
    if "breaches" not in answer:
        yield Finding(Rule.VERIFY, "the whole", f"could not be checked: {answer}")
    for breach in answer.get("breaches", ()):
        if breach["detail"].startswith("role_restarts:"):
            continue  # They were killed.
        yield Finding(Rule.VERIFY, f"batch {breach['batch_id']}", f"invariant {breach['invariant']}: {breach['detail']}")


def _told_otherwise(cluster: Cluster) -> Iterator[Finding]:
    """Where the topics alone, read from their beginning, rebuild something else: an event was lost, or is wrong."""
    answer = json.loads(cluster.product.bulkreg("replay", "--json", code=None, within_s=CHECKED_WITHIN_S))
    if "differences" not in answer:
        yield Finding(Rule.TOPICS, "the whole", f"could not be read: {answer}")
    for each in answer.get("differences", ()):
        yield Finding(Rule.TOPICS, f"batch {each['batch_id']}", str(each))
    for batch_id in answer.get("not_covered", ()):
        yield Finding(Rule.TOPICS, f"batch {batch_id}", "the topics do not contain it")


@contextlib.contextmanager
def _phase(name: str, took_s: dict[str, float], began_s: float | None = None) -> Iterator[None]:
    begins_s = time.monotonic() if began_s is None else began_s
    yield
    took_s[name] = time.monotonic() - begins_s


@contextlib.contextmanager
def _in_thread(work: Callable[[threading.Event], None]) -> Iterator[Callable[[], None]]:
    """Runs `work` beside the block, and tells it when the block ends. Its error is raised at the end, or by the function that this yields."""
    is_over = threading.Event()
    raised: list[BaseException] = []

    def main() -> None:
        try:
            work(is_over)
        except BaseException as error:
            raised.append(error)

    def check() -> None:
        if raised:
            raise raised[0]

    thread = threading.Thread(target=main)
    thread.start()
    try:
        yield check
    finally:
        is_over.set()
        thread.join()
    check()
