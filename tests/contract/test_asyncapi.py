"""The AsyncAPI document matches the code, is complete, and describes the events that the code writes."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema_rs
import orjson
import pytest
import yaml

from consumers.aggregator import AggregatorHandler
from consumers.registration import RegistrationHandler
from consumers.splitter import SplitterHandler
from orchestrator.batches.model import Actor, ItemValues, NewBatch, NewItem, Role
from orchestrator.batches.parts import part_event
from schemas import event_builders, events
from schemas.asyncapi import PATH, document, rendered
from schemas.envelope import Envelope, OutgoingEvent, Topic, headers
from schemas.event_builders import ItemEventHeaders
from schemas.event_reader import read_event
from schemas.events import EVENTS, EventData, type_name
from schemas.ids import event_id
from schemas.mistakes import Mistake
from schemas.publish import event_models

PAGE = Path(__file__).parents[2] / "docs" / "events.md"
BATCH = UUID("01997f00-0000-7000-8000-000000000001")
ITEM = UUID("01997f00-0000-7000-8000-000000000002")
TIME = datetime(2026, 3, 26, 10, 0, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
COUNTS = {"total_items": 1, "pending": 0, "completed": 1, "failed": 0, "cancelled": 0}


def test_the_committed_document_is_generated_from_the_code() -> None:
    """`make schemas` writes it."""
    assert PATH.read_text(encoding="utf-8") == rendered()
    assert yaml.safe_load(rendered()) == document()


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(reference: str) -> Any:
    found: Any = document()
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_every_reference_can_be_resolved() -> None:
    found = set(references(document()))
    assert len(found) > len(event_models())
    for reference in found:
        assert resolved(reference)


def operations(action: str) -> set[tuple[str, str]]:
    """The messages of each topic that are sent, or received."""
    return {
        (operation["channel"]["$ref"].rpartition("/")[2], message["$ref"].rpartition("/")[2])
        for operation in document()["operations"].values()
        if operation["action"] == action
        for message in operation["messages"]
    }


def test_every_event_is_documented_in_both_directions() -> None:
    channels = document()["channels"]
    assert {channel["address"] for channel in channels.values()} == {topic.on_cluster("{prefix}") for topic in Topic}
    every = {(topic.value, model.__name__) for topic, models in EVENTS.items() for model in models}
    assert {(topic, name) for topic, channel in channels.items() for name in channel["messages"]} == every
    assert operations("send") == every
    read = {topic.value for role in (SplitterHandler, RegistrationHandler, AggregatorHandler) for topic in role.topics}
    assert operations("receive") == {(topic, name) for topic, name in every if topic in read}


def _written() -> list[OutgoingEvent]:
    """One event of each type, as the product writes it."""
    common: dict[str, Any] = {"batch_id": BATCH, "organization_id": "org", "time": TIME, "trace_id": TRACE}
    item = {
        "batch_id": BATCH,
        "item_id": ITEM,
        "position": 0,
        "attempt": 1,
        "organization_id": "org",
    }
    command = {
        **item,
        "coordinator_id": "coordinator",
        "mentor_id": "mentor",
        "activity_type": "visit",
        "activity_date": "2026-03-25",
        "duration_minutes": 60,
        "override_duplicates": False,
    }
    error = {"code": "duplicate_activity", "message": "…", "retryable": False}
    new = NewItem(ItemValues("mentor", "visit", date(2026, 3, 25), 60, "notes"), "row 7")
    batch = NewBatch(BATCH, "coordinator", None, False, [new], TRACE)
    letter = events.DeadLetter(
        topic="t", partition=0, offset=7, reason="not_json", detail="not UTF-8", headers={"ce_id": "1"}, key=None, value="AA=="
    )
    item_headers = ItemEventHeaders(TRACE)

    def result(event_type: str, **values: object) -> OutgoingEvent:
        return event_builders.result(item | values, item_headers.of(event_type, ITEM, 1, TIME), batch_id=str(BATCH), position=0)

    def period_changed(closed_through: date | None, previously: date | None) -> OutgoingEvent:
        return event_builders.period_changed(
            organization_id="org",
            number=1,
            closed_through=closed_through,
            previously=previously,
            reason="sent",
            changed_by="me",
            time=TIME,
            trace_id=TRACE,
        )

    return [
        part_event(Actor("org", "me", Role.ADMIN), batch, 1, 1, [(0, new)], total=1, time=TIME),
        event_builders.batch_retry_requested(
            **common, retry_number=1, part=1, retried_by="me", items=[{"position": 0, "attempt": 2, "correction": {"a": 1}}]
        ),
        *event_builders.batch_cancelled(**common, reason=None, cancelled_by="me", counts=COUNTS, cancelled_positions=[(0, 3, 1)]),
        event_builders.batch_relabelled(**common, label=None, version=2),
        event_builders.batch_deleted(**common, version=3),
        *event_builders.activities_revoked(**common, revocation=4, reason="wrong", revoked_by="me", revoked_positions=[(0, 3)]),
        period_changed(date(2026, 3, 31), None),
        period_changed(None, date(2026, 3, 31)),
        event_builders.checkpoint_signed(
            organization_id="org",
            log=1,
            origin="bulkreg.test/org",
            size=3,
            root=b"r" * 32,
            checkpoint="a note",
            time=TIME,
            trace_id=TRACE,
        ),
        *(
            event_builders.register_activity(command, item_headers.of(events.REGISTER_ACTIVITY, ITEM, 1, TIME), bulk=bulk)
            for bulk in (False, True)
        ),
        *(
            event_builders.revoke_activity(
                item | {"request": 1}, item_headers.of(events.REVOKE_ACTIVITY, ITEM, 1, TIME), bulk=bulk
            )
            for bulk in (False, True)
        ),
        result(events.SUCCEEDED, activity_id=ITEM),
        result(events.FAILED, error=error),
        result(events.CANCELLED),
        event_builders.batch_completed(
            batch_id=BATCH,
            organization_id="org",
            status="completed",
            counts=COUNTS,
            retry_number=0,
            completed_at=TIME,
            trace_id=TRACE,
        ),
        event_builders.batch_rejected(
            **common,
            rejected_source="/s",
            rejected_event_id="1",
            batch_continues=False,
            mistakes=[Mistake("/items", "no_items", "must have at least one entry")],
        ),
        OutgoingEvent(
            Topic.DEAD_LETTER,
            "t/0/7",
            headers(event_id(events.DEAD_LETTER, "t", 0, 7), events.DEAD_LETTER, TIME, TRACE),
            orjson.dumps(letter.model_dump()),
        ),
        event_builders.dead_letter_redriven(dead_letter_id=ITEM, time=TIME, trace_id=TRACE),
    ]


WRITTEN = _written()


def test_this_module_writes_an_event_of_each_type() -> None:
    assert {dict(event.headers)["ce_type"].decode() for event in WRITTEN} == {type_name(model) for model in event_models()}


def validator(schema: object) -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(
        {"$ref": "#/of", "of": schema, "components": document()["components"]}, validate_formats=True
    )


@pytest.mark.parametrize("event", WRITTEN, ids=lambda event: f"{event.topic}-{dict(event.headers)['ce_type'].decode()}")
def test_written_events_match_the_document(event: OutgoingEvent) -> None:
    name = dict(event.headers)["ce_type"].decode().split(".")[2]
    message = resolved(document()["channels"][event.topic.value]["messages"][name]["$ref"])
    validator(message["payload"]).validate(orjson.loads(event.value))
    validator(message["headers"]).validate({key: value.decode() for key, value in event.headers})
    validator(message["bindings"]["kafka"]["key"]).validate(event.key)
    assert not validator(message["payload"]).is_valid({})


UPSTREAM = (
    events.BatchSubmitted,
    events.BatchCompleted,
    events.ActivitiesRevoked,
    events.PeriodClosed,
    events.PeriodReopened,
    events.CheckpointSigned,
    events.BatchRejected,
)
ON_THE_PAGE = re.findall(r"^```json\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("model", "on_the_page"),
    list(zip(UPSTREAM, ON_THE_PAGE, strict=True)),
    ids=["submitted", "completed", "revoked", "closed", "reopened", "signed", "rejected"],
)
def test_the_examples_are_valid_events(model: type[EventData], on_the_page: str) -> None:
    """The examples of the document, and those of docs/events.md."""
    [example] = document()["components"]["messages"][model.__name__]["examples"]
    for payload in (example["payload"], orjson.loads(on_the_page)):
        validator({"$ref": f"#/components/schemas/{model.__name__}"}).validate(payload)
        for topic in (topic for topic, models in EVENTS.items() if model in models):
            read = read_event(topic, Envelope("1", "/s", type_name(model), orjson.dumps(payload), None))
            assert isinstance(read, model)
