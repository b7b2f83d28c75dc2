"""The spans of a batch's trace, if the process sends traces (docs/operations.md, Traces; docs/decisions/0048-traces.md).

Without tracing, `current()` is None, and the roles do nothing more than to look at it.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from schemas.envelope import id_of_trace, is_sampled

MAX_LINKS = 25
"""The most batches that the span of a micro-batch is linked to."""


class Kind(StrEnum):
    """What a span is, in OpenTelemetry's words."""

    SERVER = "SERVER"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


@dataclass(frozen=True, slots=True)
class Place:
    """A span in its trace. Both ids are hexadecimal."""

    trace_id: str
    span_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """A finished span. `span_id` is None if no other span names it as its parent. Times are nanoseconds since 1970."""

    name: str
    kind: Kind
    trace_id: str
    span_id: str | None
    parent_id: str | None
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, str | int]
    links: Sequence[Place] = ()


class Tracing(Protocol):
    """Decides about traces, and sends spans."""

    def samples(self, trace_id: str, is_parent_sampled: bool | None) -> bool:
        """Whether a new batch's trace is sent. `is_parent_sampled`: what the client decided; None: it has no trace."""

    def send(self, span: Span) -> None:
        """Sends a span of a sampled trace, later and in another thread. Raises nothing."""

    def close(self) -> None:
        """Sends what waits."""


_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces: they name an endpoint, and nothing switches traces off."""
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or environment.get("OTEL_TRACES_EXPORTER") == "none"
    return not is_disabled and any(environment.get(name) for name in _ENDPOINTS)


_current: Tracing | None = None


def begin(tracing: Tracing | None) -> None:
    """Sets the tracing of this process."""
    global _current
    _current = tracing


def current() -> Tracing | None:
    """The tracing of this process; None if it sends no traces."""
    return _current


def now_ns() -> int:
    """The time for a span."""
    return time.time_ns()


def sampled(new_trace_id: str, parent: str | None) -> bool:
    """Whether the trace of a new batch is sampled. `parent`: the trace of the client's request, if it has one. A process that sends no traces
    keeps the client's decision."""
    is_parent_sampled = None if parent is None else is_sampled(parent)
    if _current is None:
        return bool(is_parent_sampled)
    return _current.samples(new_trace_id, is_parent_sampled)


def beginning(trace: str, batch_id: UUID) -> Place:
    """The first span of a batch in its trace. It follows from the batch's id, so that every role knows the parent of its own spans."""
    return Place(id_of_trace(trace), hashlib.sha256(b"span" + batch_id.bytes).hexdigest()[:16])
