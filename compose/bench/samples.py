"""From samples to the figures of a row: medians, spreads and percentiles."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the median of the rounds with its spread, in a unit, beside its goal."""

    what: str
    unit: str
    median: float
    lowest: float
    highest: float
    goal: str = ""
    met: bool | None = None
    """Whether the median meets the goal in this run; None where there is none."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that the median has to keep, and its words."""

    words: str
    at_least: float = -math.inf
    at_most: float = math.inf


def row(what: str, unit: str, samples: Sequence[float], goal: Goal | None = None) -> Row:
    """One sample from each round."""
    median = statistics.median(samples)
    lowest, highest = min(samples), max(samples)
    if goal is None:
        return Row(what, unit, median, lowest, highest)
    return Row(what, unit, median, lowest, highest, goal.words, goal.at_least <= median <= goal.at_most)


def percentile(samples: Sequence[float], percent: int) -> float:
    """The smallest sample that so many percent of them do not exceed."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]
