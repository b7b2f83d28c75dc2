"""Line plots as SVG, so that a page needs no other script, font or address."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_TICKS = 5
_COLOURS = ("#0b6e99", "#c2571a", "#5a7d2a")
_HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class Line:
    """A name for the legend, and a value for each of the plot's places."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines over places at equal distances, because they are few and far apart."""

    title: str
    across: str
    """The label of the places."""
    up: str
    """The unit of the values."""
    places: Sequence[str]
    lines: Sequence[Line]


def svg(plot: Plot) -> str:
    """Returns the plot as an `<svg>` element. Each mark shows its figure as a tooltip."""
    step = _round_step(max(value for line in plot.lines for value in line.values) * _HEADROOM / _TICKS)
    x = _scale(0, max(1, len(plot.places) - 1), _LEFT + 20, WIDTH - _RIGHT - 20)
    y = _scale(0, step * _TICKS, HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img"'
        f' font-family="sans-serif" font-size="12">',
        f"<title>{escape(plot.title)}</title>",
        _text(_LEFT, 14, plot.title, weight="bold"),
        _text(_LEFT + (WIDTH - _LEFT - _RIGHT) / 2, HEIGHT - 8, plot.across, anchor="middle"),
        _text(_LEFT, 29, plot.up, colour="#666"),
    ]
    for number in range(_TICKS + 1):
        height = y(number * step)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, height + 4, f"{number * step:,.10g}", anchor="end"))
    parts += [_text(x(index), HEIGHT - _BOTTOM + 16, place, anchor="middle") for index, place in enumerate(plot.places)]
    for number, line in enumerate(plot.lines):
        parts += _drawn(line, _COLOURS[number % len(_COLOURS)], plot, x, y)
    if len(plot.lines) > 1:
        parts += _legend(plot.lines)
    return "".join([*parts, "</svg>"])


def _drawn(line: Line, colour: str, plot: Plot, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    marks = [(x(index), y(value)) for index, value in enumerate(line.values)]
    path = " ".join(f"{across:.1f},{up:.1f}" for across, up in marks)
    dots = [
        f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="{colour}">'
        f"<title>{escape(f'{line.name}, {place} {plot.across}: {value:,.4g} {plot.up}')}</title></circle>"
        for (across, up), place, value in zip(marks, plot.places, line.values, strict=True)
    ]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(lines: Sequence[Line]) -> list[str]:
    right, distance = WIDTH - _RIGHT, 56
    parts = []
    for number, line in enumerate(lines):
        left = right - distance * (len(lines) - number)
        parts.append(f'<rect x="{left}" y="20" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>')
        parts.append(_text(left + 14, 29, line.name))
    return parts


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{escape(words)}</text>'


def _scale(low: float, high: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda value: begin + (value - low) / (high - low) * (end - begin)


def _round_step(least: float) -> float:
    """Returns the next larger of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least)
