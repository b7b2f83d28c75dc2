"""Writes the AsyncAPI 3 document of all topics from the models: `python -m schemas.asyncapi`.

Its schemas are JSON Schema draft 7, which every AsyncAPI tool reads. Those in `schemas/json` are 2020-12, as pydantic writes them.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from schemas import events
from schemas.envelope import CONTENT_TYPE_JSON, SOURCE, Topic
from schemas.events import EVENTS, EventData, type_name
from schemas.publish import event_models
from schemas.published import published_schemas

PATH = Path(__file__).parent / "asyncapi.yaml"

Json = dict[str, Any]

_BINDING_VERSION = "0.5.0"
_PREFIX: Json = {"default": "bulk-registration", "description": "The deployment's topic prefix (BULKREG_TOPIC_PREFIX)."}
_UUID: Json = {"type": "string", "format": "uuid"}
_TEXT: Json = {"type": "string", "minLength": 1}

_ABOUT = """\
One list of mentors in, one activity record each out, exactly once. Upstream services write `BatchSubmitted` to the batches topic and
read its result from the lifecycle topic. The other topics are internal, and described for those who inspect them.

Every message is a CloudEvents 1.0 event in Kafka binary mode with a JSON value. Ids are deterministic: a repeated message has the same id
as the first. Readers ignore unknown fields. docs/events.md says what a producer has to do, with an example.
"""

_CHANNELS: Mapping[Topic, tuple[str, Json]] = {
    Topic.BATCHES: (
        "Submitted batches and operations on them. Upstream services write `BatchSubmitted` here, in binary or structured mode. A sender"
        " with write access can submit for every organization. Only the product writes the other types.",
        {**_UUID, "description": "The batch's id, so that its events stay in order."},
    ),
    Topic.COMMANDS: (
        "One command for each item and attempt of small batches, and for each request to revoke. Only the product writes here.",
        {
            **_TEXT,
            "description": "`organization_id:mentor_id`, so that a large batch spreads over the partitions; of `RevokeActivity` the item's id.",
        },
    ),
    Topic.COMMANDS_BULK: (
        "The commands of large batches, so that small ones never wait behind them. Only the product writes here.",
        {
            **_TEXT,
            "description": "`organization_id:mentor_id`, so that a large batch spreads over the partitions; of `RevokeActivity` the item's id.",
        },
    ),
    Topic.RESULTS: (
        "Announces the outcome of each command, which is already in the database. Only the product writes here.",
        {
            **_TEXT,
            "description": "`batch_id:n`, with one n for each hundred positions, so that a large batch does not fill one partition.",
        },
    ),
    Topic.LIFECYCLE: (
        "What happened to batches, activities and closed periods, and the checkpoints of receipts, for upstream services. Only the product"
        " writes here.",
        {
            **_TEXT,
            "description": "The batch's id; for `PeriodClosed`, `PeriodReopened` and `CheckpointSigned` the organization's.",
        },
    ),
    Topic.DEAD_LETTER: (
        "Records that could not be read or will never be accepted, with their origin and the reason. Only the product writes here.",
        {**_TEXT, "description": "`topic/partition/offset` of the record; for `DeadLetterRedriven` the dead letter's id."},
    ),
}

# The topics that the product reads, and the role that reads each.
_READ_BY: Mapping[Topic, str] = {
    Topic.BATCHES: "splitter",
    Topic.COMMANDS: "registration",
    Topic.COMMANDS_BULK: "registration",
    Topic.RESULTS: "aggregator",
}

_BATCH_ID = "7c0e4a52-43a1-4ee8-9d0b-6a1f5f0c3a11"
_EXAMPLES: Mapping[type[EventData], Json] = {
    events.BatchSubmitted: {
        "batch_id": _BATCH_ID,
        "organization_id": "org-01",
        "coordinator_id": "coord-119",
        "label": "Monday group",
        "override_duplicates": False,
        "part": 1,
        "parts": 1,
        "total_items": 1,
        "items": [
            {
                "position": 0,
                "mentor_id": "mentor-482",
                "activity_type": "peer_session",
                "activity_date": "2026-03-25",
                "duration_minutes": 60,
                "notes": "Brought a friend along.",
                "client_reference": "row 7",
            }
        ],
    },
    events.BatchCompleted: {
        "batch_id": _BATCH_ID,
        "organization_id": "org-01",
        "status": "completed",
        "total_items": 1,
        "pending": 0,
        "completed": 1,
        "failed": 0,
        "cancelled": 0,
        "retry_number": 0,
        "completed_at": "2026-03-26T10:00:00.214000Z",
    },
    events.ActivitiesRevoked: {
        "batch_id": _BATCH_ID,
        "organization_id": "org-01",
        "revocation": 4,
        "part": 1,
        "reason": "Wrong date",
        "revoked_by": "coord-119",
        "revoked_at": "2026-03-27T08:00:00.105000Z",
        "revoked_positions": [[0, 0]],
    },
    events.PeriodClosed: {
        "organization_id": "org-01",
        "number": 1,
        "closed_through": "2026-03-31",
        "previously": None,
        "reason": "The report for the first quarter is sent",
        "changed_by": "admin-1",
        "changed_at": "2026-04-15T08:00:00.105000Z",
    },
    events.PeriodReopened: {
        "organization_id": "org-01",
        "number": 2,
        "closed_through": "2025-12-31",
        "previously": "2026-03-31",
        "reason": "A visit was forgotten",
        "changed_by": "admin-1",
        "changed_at": "2026-04-16T08:00:00.105000Z",
    },
    events.CheckpointSigned: {
        "organization_id": "org-01",
        "log": 1,
        "origin": "bulkreg.example.org/org-01",
        "size": 41,
        "root": "H4Zvd1cDoZJz0bWJDWcUb2B5QDRkwB0ZQ5iqTb2gdXk=",
        "checkpoint": "bulkreg.example.org/org-01\n41\nH4Zvd1cDoZJz0bWJDWcUb2B5QDRkwB0ZQ5iqTb2gdXk=\n\n\u2014 bulkreg.example.org"
        " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n",
        "signed_at": "2026-03-26T10:00:01.105000Z",
    },
    events.BatchRejected: {
        "batch_id": _BATCH_ID,
        "organization_id": "org-01",
        "rejected_event_id": "attendance-4711",
        "batch_continues": False,
        "problems": [
            {
                "pointer": "/items/0/activity_date",
                "code": "not_a_date",
                "detail": "must be a valid date, like 2026-03-25",
            }
        ],
    },
}


def document() -> Json:
    """The AsyncAPI document."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Bulk Registration Orchestrator: events", "version": "1", "description": _ABOUT},
        "defaultContentType": CONTENT_TYPE_JSON.decode(),
        "channels": {topic.value: _channel(topic) for topic in Topic},
        "operations": _operations(),
        "components": {
            "schemas": {"CloudEvent": _cloud_event(), **_payloads()},
            "messages": {model.__name__: _message(topic, model) for topic, models in EVENTS.items() for model in models},
        },
    }


def rendered() -> str:
    """The document as it is committed."""
    text: str = yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=130)
    return f"# Written by `make schemas`; change the models instead.\n{text}"


class _Plain(yaml.SafeDumper):
    """Writes YAML for people: no anchors, and line breaks as in the source."""

    def ignore_aliases(self, _data: object) -> bool:
        """Writes repeated content in full each time."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _text)


def _channel(topic: Topic) -> Json:
    description, _ = _CHANNELS[topic]
    return {
        "address": topic.on_cluster("{prefix}"),
        "description": description,
        "parameters": {"prefix": _PREFIX},
        "messages": {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in EVENTS[topic]},
    }


def _message(topic: Topic, model: type[EventData]) -> Json:
    _, key = _CHANNELS[topic]
    required = ["ce_type"] if model is events.BatchSubmitted else ["ce_type", "ce_time", "content-type", "traceparent"]
    message: Json = {
        "name": type_name(model),
        "title": model.__name__,
        "summary": inspect.getdoc(model),
        "contentType": CONTENT_TYPE_JSON.decode(),
        "headers": {
            "allOf": [
                {"$ref": "#/components/schemas/CloudEvent"},
                {"type": "object", "required": required, "properties": {"ce_type": {"const": type_name(model)}}},
            ]
        },
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING_VERSION}},
    }
    if model in _EXAMPLES:
        message["examples"] = [{"name": model.__name__, "payload": _EXAMPLES[model]}]
    return message


def _operations() -> Json:
    """The operations from the product's point of view: it receives what others send to it."""
    operations: Json = {
        "receiveUpstreamBatches": {
            "action": "receive",
            "channel": _channel_ref(Topic.BATCHES),
            "summary": "Upstream services send a batch, or one part of it. `batch_id` is the sender's idempotency key.",
            "messages": [_message_ref(Topic.BATCHES, events.BatchSubmitted)],
        }
    }
    for topic in Topic:
        name = topic.value.title().replace("-", "")
        every = [_message_ref(topic, model) for model in EVENTS[topic]]
        operations[f"send{name}"] = {"action": "send", "channel": _channel_ref(topic), "messages": every}
        if topic in _READ_BY:
            operations[f"receive{name}"] = {
                "action": "receive",
                "channel": _channel_ref(topic),
                "summary": f"Inside the product: read by its {_READ_BY[topic]}.",
                "messages": every,
            }
    return operations


def _channel_ref(topic: Topic) -> Json:
    return {"$ref": f"#/channels/{topic.value}"}


def _message_ref(topic: Topic, model: type[EventData]) -> Json:
    return {"$ref": f"#/channels/{topic.value}/messages/{model.__name__}"}


def _cloud_event() -> Json:
    return {
        "type": "object",
        "description": "The attributes of a CloudEvent in Kafka binary mode, as headers.",
        "required": ["ce_specversion", "ce_id", "ce_source"],
        "properties": {
            "ce_specversion": {"const": "1.0"},
            "ce_id": {
                **_TEXT,
                "description": "Unique for its source. The product's ids are UUIDs; a repeated event has the same id.",
            },
            "ce_source": {**_TEXT, "description": f"The sender. The product's source is `{SOURCE}`."},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_subject": {**_TEXT, "description": "On some events of the product: the event's key."},
            "content-type": {"const": CONTENT_TYPE_JSON.decode()},
            "traceparent": {"type": "string", "description": "W3C Trace Context; a batch keeps its sender's trace."},
        },
    }


def _payloads() -> Json:
    definitions: Json = _as_draft_7(published_schemas(event_models(), prefix="#/components/schemas/"))
    return definitions


def _as_draft_7(schema: Any) -> Any:
    """Converts a schema to draft 7, which has a tuple's schemas in `items`. Everything else that pydantic writes here is the same."""
    if isinstance(schema, list):
        return [_as_draft_7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {("items" if name == "prefixItems" else name): _as_draft_7(value) for name, value in schema.items()}


def publish() -> None:
    """Writes the document."""
    PATH.write_text(rendered(), encoding="utf-8")


if __name__ == "__main__":
    publish()
