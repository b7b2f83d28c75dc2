"""Renders the benchmark's figures as one self-contained HTML page."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from compose.bench.bench import Figures
from compose.bench.curves import Curve
from compose.bench.samples import Row
from compose.bench.svg import Line, Plot, svg

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse } td, th { padding: .25em .8em .25em 0; text-align: left; border-bottom: 1px solid #ddd }
.number { text-align: right; font-variant-numeric: tabular-nums } .no { color: #b00020; font-weight: bold }
svg { margin: .5em 1em .5em 0 } p { max-width: 45em }
"""


def page(figures: Figures) -> str:
    """The whole page: the table, and two plots for each curve."""
    now = datetime.now(UTC)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Bulk Registration Orchestrator: benchmark</title><style>{_STYLE}</style></head><body>"
        "<h1>Benchmark</h1>"
        f"<p>{now:%d %B %Y, %H:%M} UTC. {escape(machine)}. Everything ran on this machine: the product, Kafka, PostgreSQL with fsync, and "
        "the load generator. Each figure is the median of the rounds, beside the lowest and the highest.</p>"
        f"{''.join(f'<p class=no>{escape(doubt)}</p>' for doubt in figures.doubts)}"
        f"{_table(figures.rows)}"
        f"{''.join(map(_section, figures.curves))}"
        "</body></html>\n"
    )


def figure(value: float) -> str:
    """Returns the value with three significant digits; from 100 on, as a whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict(row: Row) -> str:
    """Returns in a word whether the goal was met."""
    return "" if row.met is None else "yes" if row.met else "no"


def _table(rows: Sequence[Row]) -> str:
    lines = (
        f'<tr><td>{escape(row.what)}</td><td class="number">{figure(row.median)}</td>'
        f'<td class="number">{figure(row.lowest)} - {figure(row.highest)}</td><td>{escape(row.unit)}</td>'
        f'<td>{escape(row.goal)}</td><td class="{verdict(row)}">{verdict(row)}</td></tr>'
        for row in rows
    )
    heads = '<th>what</th><th class="number">median</th><th class="number">spread</th><th>unit</th><th>goal</th><th>met</th>'
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _section(curve: Curve) -> str:
    places = [f"{point.place:,}" for point in curve.points]
    rates = Plot("Throughput", curve.against, "items/s", places, [Line("rate", [point.rate for point in curve.points])])
    latencies = Plot(
        "Submit to terminal",
        curve.against,
        "ms",
        places,
        [Line("p50", [p.latency.p50_ms for p in curve.points]), Line("p99", [p.latency.p99_ms for p in curve.points])],
    )
    return f"<h2>Against {escape(curve.against)}</h2><p>{escape(curve.how)}</p>{svg(rates)}{svg(latencies)}"
