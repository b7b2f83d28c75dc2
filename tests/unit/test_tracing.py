"""When traces are sent, which, and what a span of a micro-batch says. tests/faults/test_tracing.py has a real flow."""

import subprocess
import sys
from collections.abc import Iterator
from typing import cast
from uuid import UUID

import pytest

from compose.roles import begin_tracing
from compose.telemetry import OpenTelemetry
from consumers.loop.decoding import Entry
from consumers.loop.handler import AGGREGATOR, NOTIFIER, REGISTRATION, SPLITTER, Lane, Record
from consumers.loop.micro_batch_span import send_span
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from orchestrator.process import tracing
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.tracing import MAX_LINKS, Span, beginning, sampled
from schemas.envelope import Envelope, Topic
from schemas.events import EventData

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
FIRST, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture(autouse=True)
def _none_afterwards() -> Iterator[None]:
    yield
    tracing.begin(None)


@pytest.mark.parametrize(
    ("environment", "is_asked_for"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_traces_are_sent_when_opentelemetrys_variables_name_an_endpoint(environment: dict[str, str], is_asked_for: bool) -> None:
    assert tracing.is_asked_for(environment) == is_asked_for


def test_a_process_that_sends_no_traces_has_no_opentelemetry() -> None:
    script = (
        "import sys, api.app, compose.roles, consumers.splitter, consumers.registration, consumers.aggregator, producers.relay\n"
        "import consumers.loop.runtime, consumers.upkeep.sweep_loop\n"
        "assert compose.roles.begin_tracing({}) is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is grpc"),
        ({"OTEL_TRACES_SAMPLER_ARG": "many"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_TRACES_SAMPLER_ARG": "2"}, "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_a_start_that_would_send_no_traces_is_refused(changes: dict[str, str], named: str) -> None:
    with pytest.raises(RefusedStartError, match=named):
        begin_tracing(ENDPOINT | changes)


LOW, HIGH = "0" * 31 + "1", "f" * 32
"""The ratio compares the second half of the id."""


@pytest.mark.parametrize(
    ("changes", "of_low", "of_high", "of_sampled", "of_unsampled"),
    [
        ({}, True, False, True, False),
        ({"OTEL_TRACES_SAMPLER_ARG": "1"}, True, True, True, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, False, False, False, False),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, True, True, True, True),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, False, False, True, False),
    ],
)
def test_which_traces_are_sent(
    changes: dict[str, str],
    of_low: bool,
    of_high: bool,
    of_sampled: bool,
    of_unsampled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    tracer = OpenTelemetry.of(ENDPOINT | changes)
    tracing.begin(tracer)
    assert (sampled(LOW, None), sampled(HIGH, None)) == (of_low, of_high)
    assert (sampled(HIGH, f"{HIGH}-01"), sampled(HIGH, HIGH)) == (of_sampled, of_unsampled)
    tracer.close()


def test_without_tracing_the_clients_decision_is_kept() -> None:
    assert (sampled(LOW, None), sampled(LOW, LOW), sampled(LOW, f"{LOW}-01")) == (False, False, True)


class Sent:
    """Implements `Tracing`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def samples(self, trace_id: str, is_parent_sampled: bool | None) -> bool:
        return True

    def send(self, span: Span) -> None:
        self.spans.append(span)

    def close(self) -> None:
        pass


class Data:
    def __init__(self, batch_id: UUID) -> None:
        self.batch_id = str(batch_id)


def entry(batch_id: UUID, traceparent: str | None, *, topic: Topic = Topic.COMMANDS, source: str = "/bulk-registration") -> Entry:
    envelope = Envelope("1", source, "t", b"{}", traceparent)
    record = Record(topic, 0, 0, 0, envelope, cast("EventData", Data(batch_id)))
    raw = RawRecord(topic.value, 0, 0, 0, None, b"{}", ())
    return Entry(raw, PartitionOffsets(topic, topic.value, 0), 0, 2, Lane.SMALL, record, None)


def spans_of(role: str, *entries: Entry) -> list[Span]:
    sent = Sent()
    send_span(sent, role, entries, 5)
    return sent.spans


def test_a_micro_batch_without_sampled_records_has_no_span() -> None:
    refused = entry(FIRST, None)
    refused.record = None
    assert spans_of("registration", entry(FIRST, f"00-{TRACE}-{SPAN}-00"), entry(FIRST, None), entry(FIRST, "x"), refused) == []


def test_a_micro_batch_is_a_child_of_its_first_sampled_batch_and_linked_to_all() -> None:
    other = "b" * 32
    [span] = spans_of(
        "registration",
        entry(UUID(int=9), f"00-{'c' * 32}-{SPAN}-00"),
        entry(FIRST, f"00-{TRACE}-{SPAN}-01"),
        entry(FIRST, f"00-{TRACE}-{SPAN}-01"),
        entry(OTHER, f"00-{other}-{SPAN}-01"),
    )
    begun = beginning(TRACE, FIRST)
    assert (span.name, span.trace_id, span.span_id, span.parent_id) == ("register", TRACE, None, begun.span_id)
    assert list(span.links) == [begun, beginning(other, OTHER)]
    assert span.attributes["messaging.batch.message_count"] == 4


def test_every_role_that_reads_topics_has_a_name_for_its_spans() -> None:
    roles = (SPLITTER, REGISTRATION, AGGREGATOR, NOTIFIER)
    spans = [span for role in roles for span in spans_of(role, entry(FIRST, f"00-{TRACE}-{SPAN}-01"))]
    assert [span.name for span in spans] == ["split", "register", "fold", "notify"]


def test_there_are_at_most_25_links() -> None:
    [span] = spans_of("aggregator", *[entry(UUID(int=number), f"00-{TRACE}-{SPAN}-01") for number in range(40)])
    assert len(span.links) == MAX_LINKS == 25


def test_the_links_are_to_batches_however_many_records_each_has() -> None:
    [span] = spans_of(
        "registration",
        *[entry(FIRST, f"00-{TRACE}-{SPAN}-01") for _ in range(MAX_LINKS)],
        entry(OTHER, f"00-{TRACE}-{SPAN}-01"),
    )
    assert list(span.links) == [beginning(TRACE, FIRST), beginning(TRACE, OTHER)]


def test_an_upstream_batch_begins_in_the_splitter() -> None:
    [span] = spans_of("splitter", entry(FIRST, f"00-{TRACE}-{SPAN}-01", topic=Topic.BATCHES, source="/crm"))
    assert (span.name, span.span_id, span.parent_id) == ("split", beginning(TRACE, FIRST).span_id, SPAN)
