"""The run as one HTML page: what was done, which faults there were, how unknown calls ended, and the verdict."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from html import escape

from compose.bench.svg import Line, Plot, svg
from tests.chaos.history import Ending, Operation
from tests.chaos.monitor import Sample, growths
from tests.chaos.run import Result

PLACES = 8
"""The number of marks on the time axis."""

TOLD = 10
"""Of this many batches with findings, the whole story is shown."""

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse; margin: .5em 0 1em } td, th { padding: .25em .8em .25em 0; text-align: left; border-bottom: 1px solid #ddd }
td:not(:first-child) { font-variant-numeric: tabular-nums } .green { color: #2b7a2b } .red { color: #b00020 }
svg { margin: .5em 1em .5em 0 } p { max-width: 45em }
"""


def page(result: Result) -> str:
    """The whole page. It loads nothing from elsewhere."""
    colour = "green" if result.is_green else "red"
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.took_s.items())
    judged = ", ".join(f"{number:,} {what}" for what, number in result.verdict.judged.items())
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Bulk Registration Orchestrator: chaos</title>',
            f"<style>{_STYLE}</style></head><body><h1>Chaos</h1>",
            f'<p class="{colour}"><b>{verdict(result)}</b></p>',
            f"<p>{datetime.now(UTC):%d %B %Y, %H:%M} UTC. Seed {escape(result.plan.seed)}, {result.plan.clients} clients and an upstream "
            f"service. {phases}. Judged: {judged}.</p>",
            _findings(result),
            "<h2>Calls</h2>",
            table(["", *Ending], _calls(result)),
            "<h2>How calls with an unknown outcome ended</h2>",
            table(["", "done", "not done"], _settled(result)),
            "<h2>Faults</h2>",
            table(["", "times", "seconds"], _faults(result)),
            *(f"<p>{sentence}</p>" for sentence in result.not_reached),
            f"<p>Groups that no coordinator served, and what they were renewed to: {', '.join(result.renewed)}.</p>"
            if result.renewed
            else "",
            "<h2>Memory, descriptors and threads</h2>",
            "<p>Each process at these moments, whichever process it was then; PostgreSQL with its number of connections. "
            "Where one process lived for a minute and a half or more, the table has its medians of the first and last third.</p>",
            table(["", "what", "first", "last"], [[n, w, f"{a:.0f}", f"{b:.0f}"] for n, w, a, b in growths(result.samples)]),
            *(_plots(name, result) for name in dict.fromkeys(sample.name for sample in result.samples)),
            "</body></html>\n",
        )
    )


def verdict(result: Result) -> str:
    """The verdict in a sentence."""
    if result.is_green:
        return "Green: nothing lost, nothing doubled, nothing stuck, all invariants hold."
    return f"Red: {len(result.verdict.findings)} findings."


def summary(result: Result) -> str:
    """The numbers as text."""
    unknown = ", ".join(f"{row[0]} {row[1]} done and {row[2]} not" for row in _settled(result)) or "none"
    phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.took_s.items())
    lines = [
        f"seed {result.plan.seed}: {phases}",
        "calls: " + "; ".join(f"{row[0]} {row[1]} ok, {row[2]} failed, {row[3]} unknown" for row in _calls(result)),
        "judged: " + ", ".join(f"{number} {what}" for what, number in result.verdict.judged.items()),
        f"unknown: {unknown}",
        "faults: " + ", ".join(f"{number} x {fault}" for fault, number in sorted(result.faults.items())),
        *(f"renewed: {name}" for name in result.renewed),
        *(str(finding) for finding in result.verdict.findings[:50]),
        *result.not_reached,
        verdict(result),
    ]
    return "\n".join(lines)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As HTML."""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _findings(result: Result) -> str:
    rows = [[finding.rule, finding.label, finding.detail] for finding in result.verdict.findings]
    if not rows:
        return ""
    about = list(dict.fromkeys(finding.label for finding in result.verdict.findings))[:TOLD]
    stories = (f"<h3>{escape(label)}</h3>{table(['second', 'what', ''], _story(label, result))}" for label in about)
    return table(["rule", "where", "what"], rows) + "".join(stories)


def _story(label: str, result: Result) -> Iterable[Sequence[str]]:
    """What was done to a batch and seen of it, and the faults meanwhile."""
    history = result.history
    calls = [(call.began_s, f"{call.operation} {call.outcome}", str(call)) for call in history.calls.get(label, ())]
    seen = [
        (seen.at_s, f"client {seen.client} saw {seen.status}", str(seen.counts)) for seen in history.observations.get(label, ())
    ]
    events = sorted(calls + seen)
    if events:
        first_s, last_s = events[0][0] - 5, events[-1][0] + 5
        faults = [(s.began_s, s.fault, f"{s.lasted_s:.1f} s") for s in result.strikes if first_s < s.began_s < last_s]
        events = sorted(events + faults)
    for at_s, what, detail in events:
        yield [f"{at_s - result.began_s:.3f}", what, detail]


def _calls(result: Result) -> Iterable[Sequence[str]]:
    counted = result.history.counted()
    for operation in Operation:
        yield [operation, *(f"{counted.get((operation, outcome), 0):,}" for outcome in Ending)]
    yield ["read", *(f"{result.history.reads[outcome]:,}" for outcome in Ending)]


def _settled(result: Result) -> Iterable[Sequence[str]]:
    for operation in Operation:
        ends = [result.verdict.settled[operation, end] for end in ("done", "not done")]
        if any(ends):
            yield [operation, *(f"{number:,}" for number in ends)]


def _faults(result: Result) -> Iterable[Sequence[str]]:
    for fault, number in sorted(result.faults.items()):
        seconds = sum(strike.lasted_s for strike in result.strikes if strike.fault == fault)
        yield [fault, str(number), f"{seconds:.1f}"]


def _plots(name: str, result: Result) -> str:
    of_process = [sample for sample in result.samples if sample.name == name]
    shown = (
        [of_process[len(of_process) * index // PLACES] for index in range(PLACES)] if len(of_process) >= PLACES else of_process
    )
    if not shown:
        return ""
    places = [f"{sample.at_s - result.began_s:.0f}" for sample in shown]

    def line(label: str, value: Callable[[Sample], float]) -> Line:
        return Line(label, [value(sample) for sample in shown])

    memory = Plot(f"{name}: memory", "seconds", "MB", places, [line("memory", lambda sample: sample.memory_mb)])
    number = Plot(
        f"{name}: descriptors, threads",
        "seconds",
        "",
        places,
        [line("open", lambda sample: sample.descriptors), line("threads", lambda sample: sample.threads)],
    )
    return svg(memory) + svg(number)
