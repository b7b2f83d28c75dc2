"""The page docs/mutation.md: how many mutants the suite noticed, and why the others survive."""

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutation.mutant import Kind, Mutant

_REASONS = Path(__file__).parent / "reasons.toml"
_BEGIN, _END = "<!-- result -->\n", "<!-- end of result -->\n"


def write_report(page: Path, mutants: Sequence[Mutant], noticed: Mapping[str, str], *, seed: int) -> None:
    """Replaces the result on the page. The text around it is written by hand."""
    before, _, rest = page.read_text().partition(_BEGIN)
    page.write_text(before + _BEGIN + _result(mutants, noticed, seed) + _END + rest.partition(_END)[2])


def _result(mutants: Sequence[Mutant], noticed: Mapping[str, str], seed: int) -> str:
    reasons: dict[str, str] = tomllib.loads(_REASONS.read_text())
    drawn, red = Counter(one.kind for one in mutants), Counter(one.kind for one in mutants if noticed.get(one.id))
    survivors = [one for one in mutants if not noticed.get(one.id)]
    total = len(mutants) - len(survivors)
    lines = [
        f"Seed {seed}: **{total} of {len(mutants)} noticed ({total / max(1, len(mutants)):.0%})**, in SQL "
        f"{sum(red[kind] for kind in Kind if kind.is_sql)} of {sum(drawn[kind] for kind in Kind if kind.is_sql)}.",
        "",
        "| kind | drawn | noticed |",
        "| --- | ---: | ---: |",
        *(f"| {kind} | {drawn[kind]} | {red[kind]} |" for kind in Kind if drawn[kind]),
        "",
    ]
    if survivors:
        lines += ["| survivor | the mistake | why it survives |", "| --- | --- | --- |"]
        lines += [f"| `{one.id}` | {_cell(one.summary)} | {reasons.get(one.id, 'not examined yet')} |" for one in survivors]
        lines.append("")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
