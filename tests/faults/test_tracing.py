"""Traces on a real flow: each batch that is sampled has one connected trace, also when its events are delivered again (decision 48)."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import SecretStr
from sqlalchemy import Engine

from compose.telemetry import OpenTelemetry
from orchestrator.process import tracing
from orchestrator.process.failpoints import InjectedError
from orchestrator.process.settings import Settings
from schemas.envelope import Topic
from schemas.events import BATCH_COMPLETED, BATCH_SUBMITTED
from schemas.paths import API_PATH
from tests.faults.roles import (
    aggregator_role,
    armed,
    registration_role,
    running_flow,
    running_relay,
    running_role,
    splitter_role,
    wait_until_completed,
)
from tests.support.api_server import KEY, running_api
from tests.support.kafka import reading
from tests.support.otlp_receiver import receiving
from tests.support.pipeline import Pipeline
from tests.support.trace_picture import Bar, drawn
from tests.support.waiting import eventually

CLIENT_TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
PICTURE = "BULKREG_TEST_TRACE_PICTURE"

_READS = {"messaging.system": "kafka", "messaging.operation.type": "process"}
_WRITES = {"messaging.system": "kafka", "messaging.operation.type": "send", "bulkreg.role": "relay"}
ATTRIBUTES: Mapping[str, Mapping[str, object]] = {
    f"POST {API_PATH}": {
        "http.request.method": "POST",
        "http.route": API_PATH,
        "http.response.status_code": 202,
        "bulkreg.items": 25,
    },
    "outbox publish": _WRITES | {"messaging.destination.name": "batches", "bulkreg.event_type": BATCH_SUBMITTED},
    "split": _READS | {"messaging.destination.name": "batches", "bulkreg.role": "splitter"},
    "register": _READS | {"messaging.destination.name": "commands", "bulkreg.role": "registration"},
    "fold": _READS | {"messaging.destination.name": "results", "bulkreg.role": "aggregator"},
    "batch complete": _WRITES | {"messaging.destination.name": "lifecycle", "bulkreg.event_type": BATCH_COMPLETED},
}
"""What a search for spans can use, beside the batch's id."""


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    """The spans of everything that this test runs. A new trace is never sampled, only a client's that is."""
    with receiving() as (endpoint, spans):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        tracer = OpenTelemetry.of(os.environ)
        tracing.begin(tracer)
        yield spans
        tracing.begin(None)
        tracer.close()


def sent(spans: list[Span]) -> list[Span]:
    """Has everything sent, and returns the spans of the client's trace."""
    tracer = tracing.current()
    assert tracer is not None
    tracer.close()
    return [span for span in spans if span.trace_id.hex() == CLIENT_TRACE]


def submitted(settings: Settings, mentors: Sequence[int], *, flags: str) -> UUID:
    items = [
        {"mentor_id": f"mentor-{number}", "activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
        for number in mentors
    ]
    with running_api(settings) as api, api.client() as client:
        answer = post(client, {"items": items}, f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-{flags}")
    return UUID(answer["batch_id"])


def post(client: httpx.Client, body: object, traceparent: str) -> dict[str, str]:
    response = client.post(API_PATH, json=body, headers={"traceparent": traceparent})
    assert response.status_code == 202, response.text
    answer: dict[str, str] = response.json()
    return answer


def attributes_of(span: Span) -> dict[str, object]:
    """The attributes, without the number of records, which differs from run to run."""
    found = {each.key: each.value.string_value or each.value.int_value for each in span.attributes}
    return {key: value for key, value in found.items() if key != "messaging.batch.message_count"}


def is_connected(spans: Sequence[Span]) -> bool:
    """Whether every span's parent is one of them, or the client's."""
    known = {span.span_id for span in spans} | {bytes.fromhex(CLIENT_SPAN)}
    return all(span.parent_span_id in known for span in spans)


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    return Settings(**settings.model_dump(include=settings.model_fields_set), jwt_hs256_key=SecretStr(KEY))


def test_a_batch_has_one_connected_trace(
    keyed: Settings, topics: None, engine: Engine, pipeline: Pipeline, received: list[Span]
) -> None:
    with running_flow(keyed), reading(keyed, Topic.LIFECYCLE) as lifecycle:
        others = [submitted(keyed, [40 + number], flags="00") for number in range(3)]
        wait_until_completed(engine, others)
        batch = submitted(keyed, range(1, 26), flags="01")
        wait_until_completed(engine, [batch])
        lifecycle.wait_for(4)
    spans = sent(received)
    assert len(received) == len(spans), "only the sampled batch has spans"
    counts = Counter(span.name for span in spans)
    # One for each micro-batch, never for each item.
    assert 1 <= counts.pop("register") <= 6
    assert 1 <= counts.pop("fold") <= 6
    assert counts == {f"POST {API_PATH}": 1, "outbox publish": 1, "split": 1, "batch complete": 1}
    assert is_connected(spans)
    parents = {span.name: span.parent_span_id for span in spans}
    ids = {span.name: span.span_id for span in spans}
    assert parents[f"POST {API_PATH}"].hex() == CLIENT_SPAN
    assert parents["outbox publish"] == ids[f"POST {API_PATH}"]
    assert parents["split"] == ids["outbox publish"]
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    said = [(span.name, attributes_of(span)) for span in spans]
    assert [each for each in said if each[1] != {**ATTRIBUTES[each[0]], "bulkreg.batch_id": str(batch)}] == []
    if file := os.environ.get(PICTURE):
        Path(file).write_text(drawn(str(batch), [_bar(span) for span in spans]))


@pytest.mark.usefixtures("pipeline")
def test_a_repeated_submission_has_no_span_of_its_own(keyed: Settings, received: list[Span]) -> None:
    activity = {"activity_type": "visit", "activity_date": "2026-03-25", "duration_minutes": 60}
    headers = {"traceparent": f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01", "Idempotency-Key": "once"}
    with running_api(keyed) as api, api.client() as client:
        body = {"mentor_ids": ["mentor-1"], "activity": activity}
        answers = [client.post(API_PATH, json=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [span.name for span in sent(received)] == [f"POST {API_PATH}"]


def test_a_redelivery_stays_in_the_trace(
    keyed: Settings, topics: None, engine: Engine, pipeline: Pipeline, received: list[Span]
) -> None:
    batch = submitted(keyed, range(1, 6), flags="01")
    with running_relay(keyed):
        with (
            pytest.raises(InjectedError),
            running_role(armed(keyed, failpoints="consumer.after_produce=raise"), splitter_role(keyed)) as splitter,
        ):
            eventually(lambda: splitter.has_ended)
        with reading(keyed, Topic.COMMANDS) as commands, running_role(keyed, splitter_role(keyed)):
            # Each command twice, with the same headers.
            assert len({seen.headers["traceparent"] for seen in commands.wait_for(10)}) == 5
        with running_role(keyed, registration_role()), running_role(keyed, aggregator_role()):
            wait_until_completed(engine, [batch])
    spans = sent(received)
    assert Counter(span.name for span in spans)["split"] == 2
    assert is_connected(spans)


def _bar(span: Span) -> Bar:
    return Bar(span.name, span.start_time_unix_nano, span.end_time_unix_nano, span.span_id.hex(), span.parent_span_id.hex())
