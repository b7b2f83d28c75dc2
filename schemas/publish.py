"""Writes the JSON Schema of every event to `schemas/json`, one file for each type and version: `python -m schemas.publish`.

The committed files are the contract with readers and writers elsewhere. `incompatibilities` finds changes that would break it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from schemas.events import EVENTS, EventData, type_name
from schemas.published import published_schema

DIRECTORY = Path(__file__).parent / "json"

# Readers that were written for the old schema rely on these bounds, and writers rely on values within them being accepted.
_UPPER_BOUNDS = ("maxLength", "maxItems", "maximum", "exclusiveMaximum")
_LOWER_BOUNDS = ("minLength", "minItems", "minimum", "exclusiveMinimum")


def event_models() -> list[type[EventData]]:
    """Every event, once."""
    return list(dict.fromkeys(model for models in EVENTS.values() for model in models))


def rendered(model: type[EventData]) -> bytes:
    """The schema of one event as it is committed."""
    schema = {"$id": f"{type_name(model)}.json", **published_schema(model)}
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"


def path_of(model: type[EventData]) -> Path:
    """The file in which the schema of an event is committed."""
    return DIRECTORY / f"{model.__name__}.v1.json"


def incompatibilities(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The changes in the new schema that break the old contract. Fields may only be added, with defaults, and types may be neither narrowed nor
    widened (docs/events.md, Evolution)."""
    return list(_compare("", _resolved(old, old), _resolved(new, new)))


def _resolved(schema: Any, root: dict[str, Any]) -> Any:
    """The schema with its references replaced by their definitions."""
    if isinstance(schema, list):
        return [_resolved(each, root) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return _resolved(root["$defs"][name], root)
    return {key: _resolved(value, root) for key, value in schema.items() if key not in ("$defs", "$id", "title", "description")}


def _compare(where: str, old: Any, new: Any) -> Iterator[str]:
    if not isinstance(old, dict) or not isinstance(new, dict):
        if old != new:
            yield f"{where or '/'}: {old!r} became {new!r}"
        return
    for name in ("type", "format", "enum", "const", "pattern"):
        if old.get(name) != new.get(name):
            yield f"{where or '/'}: {name} {old.get(name)!r} became {new.get(name)!r}"
    for name in _UPPER_BOUNDS:
        if name in new and new[name] < old.get(name, float("inf")):
            yield f"{where or '/'}: {name} narrowed to {new[name]}"
    for name in _LOWER_BOUNDS:
        if name in new and new[name] > old.get(name, float("-inf")):
            yield f"{where or '/'}: {name} narrowed to {new[name]}"
    yield from _compare_fields(where, old, new)
    for name in ("items", "additionalProperties"):
        if name in old or name in new:
            yield from _compare(f"{where}/{name}", old.get(name), new.get(name))
    for name in ("anyOf", "prefixItems"):
        before, after = old.get(name, []), new.get(name, [])
        if len(before) != len(after):
            yield f"{where or '/'}: {name} has {len(after)} alternatives instead of {len(before)}"
        for index, (one, other) in enumerate(zip(before, after, strict=False)):
            yield from _compare(f"{where}/{name}/{index}", one, other)


def _compare_fields(where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{where}/{name}: was removed"
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{where}/{name}: is now required"
    # Readers rely on required fields being present.
    for name in set(old.get("required", ())) - set(new.get("required", ())):
        yield f"{where}/{name}: is now optional"
    for name in before.keys() & after.keys():
        yield from _compare(f"{where}/{name}", before[name], after[name])


def publish() -> None:
    """Writes all schemas. Raises ValueError, and writes nothing, if a change is incompatible with a committed schema."""
    DIRECTORY.mkdir(exist_ok=True)
    broken = [
        f"{path_of(model).name}: {problem}"
        for model in event_models()
        if path_of(model).exists()
        for problem in incompatibilities(orjson.loads(path_of(model).read_bytes()), orjson.loads(rendered(model)))
    ]
    if broken:
        raise ValueError("incompatible with the published schemas; add a new version of the event instead:\n" + "\n".join(broken))
    for model in event_models():
        path_of(model).write_bytes(rendered(model))


if __name__ == "__main__":
    publish()
