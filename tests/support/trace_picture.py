"""Draws a trace as SVG: a bar for each span, below its parent."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _ROW, _TOP = 900, 250, 26, 44
_INDENT = 14
_NS_PER_MS = 1_000_000
_TICKS = 5
_COLOURS = {"split": "#0b6e99", "register": "#5a7d2a", "fold": "#7a4f9a"}
_OTHER_COLOUR = "#c2571a"


@dataclass(frozen=True, slots=True)
class Bar:
    """A span. Times are nanoseconds since 1970."""

    name: str
    started_ns: int
    ended_ns: int
    span_id: str
    parent_id: str


def drawn(title: str, bars: Sequence[Bar]) -> str:
    """Returns the picture."""
    first, last = min(bar.started_ns for bar in bars), max(bar.ended_ns for bar in bars)
    scale = (_WIDTH - _LEFT - 90) / max(1, last - first)
    height = _TOP + _ROW * len(bars) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        ' font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number in range(_TICKS + 1):
        at = (last - first) * number / _TICKS
        x = _LEFT + at * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 12}" y2="{height - 6}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP - 18}" text-anchor="middle" fill="#666">{at / _NS_PER_MS:.0f} ms</text>')
    for row, (depth, bar) in enumerate(_in_order(bars)):
        y = _TOP + _ROW * row
        x, width = _LEFT + (bar.started_ns - first) * scale, max(2.0, (bar.ended_ns - bar.started_ns) * scale)
        colour = _COLOURS.get(bar.name, _OTHER_COLOUR)
        parts.append(f'<text x="{8 + _INDENT * depth}" y="{y + 14}" fill="#222">{escape(bar.name)}</text>')
        parts.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="16" rx="2" fill="{colour}"/>')
        lasted = (bar.ended_ns - bar.started_ns) / _NS_PER_MS
        parts.append(f'<text x="{x + width + 6:.1f}" y="{y + 14}" fill="#222">{lasted:.1f} ms</text>')
    return "\n".join([*parts, "</svg>\n"])


def _in_order(bars: Sequence[Bar]) -> Iterator[tuple[int, Bar]]:
    """Each span with its depth, before its children, which come by their time."""
    children: defaultdict[str, list[Bar]] = defaultdict(list)
    known = {bar.span_id for bar in bars}
    for bar in sorted(bars, key=lambda bar: bar.started_ns):
        children[bar.parent_id if bar.parent_id in known else ""].append(bar)

    def below(parent: str, depth: int) -> Iterator[tuple[int, Bar]]:
        for bar in children[parent]:
            yield depth, bar
            yield from below(bar.span_id, depth + 1)

    yield from below("", 0)
