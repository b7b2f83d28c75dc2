"""What a look at a deployment comes to: findings, each with how serious it is and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    ADVICE = "advice"
    """It works, and could be better or safer."""
    UNSAFE = "unsafe"
    """It would work, or seem to, and must not be run like this."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` says what to do about it; None when it is well."""

    subject: str
    state: State
    detail: str
    fix: str | None = None
