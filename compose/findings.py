"""The findings of an examination of a deployment: each with its severity and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum

# A person waits for the result: longer than a healthy server needs, shorter than the clients' own timeouts.
TIMEOUT_S = 5.0


class State(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    ADVICE = "advice"
    """It works, but could be better or safer."""
    UNSAFE = "unsafe"
    """It works, or seems to, but must not run like this."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` says what to do. None: all is well."""

    subject: str
    state: State
    detail: str
    fix: str | None = None
