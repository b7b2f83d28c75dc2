"""Turns samples into the figures of a row: medians, spreads and percentiles."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: the median of the rounds with its spread, its unit and its goal."""

    what: str
    unit: str
    median: float
    lowest: float
    highest: float
    goal: str = ""
    met: bool | None = None
    """Whether the median meets the goal in this run. None: there is no goal."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for the median, and its words."""

    words: str
    at_least: float = -math.inf
    at_most: float = math.inf


def row(what: str, unit: str, samples: Sequence[float], goal: Goal | None = None) -> Row:
    """Returns a row of one sample from each round."""
    median = statistics.median(samples)
    lowest, highest = min(samples), max(samples)
    if goal is None:
        return Row(what, unit, median, lowest, highest)
    return Row(what, unit, median, lowest, highest, goal.words, goal.at_least <= median <= goal.at_most)


def percentile(samples: Sequence[float], percent: int) -> float:
    """Returns the smallest sample that is not below this percentage of the samples."""
    return sorted(samples)[max(0, math.ceil(len(samples) * percent / 100) - 1)]
