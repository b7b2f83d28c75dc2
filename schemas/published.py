"""The names that models have in the published documents: a model's `title`, else the name of its class.

A class can be renamed, but its published name stays, because clients generate code from it.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

Json = dict[str, Any]

_OWN = "#/$defs/"


def published_name(model: type[BaseModel]) -> str:
    """The model's name in the published documents."""
    return model.model_config.get("title") or model.__name__


def published_schema(model: type[BaseModel]) -> Json:
    """The JSON Schema of one model, with nested models as `$defs`."""
    return _renamed(model.model_json_schema(), _OWN)


def published_schemas(models: Iterable[type[BaseModel]], *, prefix: str) -> Json:
    """The schemas of these models and of nested ones, by published name. References begin with the prefix."""
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=prefix + "{model}")
    definitions: Json = _renamed(schemas, prefix)["$defs"]
    return definitions


def _renamed(schema: Json, prefix: str) -> Json:
    """The schema with its definitions and references named by titles. Raises ValueError if two definitions have the same title."""
    definitions: Json = schema.get("$defs", {})
    names = {name: definition.get("title", name) for name, definition in definitions.items()}
    if len(set(names.values())) < len(names):
        raise ValueError(f"two models are published under one name: {sorted(names.values())}; give each its own title")
    references = {prefix + name: prefix + published for name, published in names.items()}
    renamed: Json = _with_references(schema, references)
    if definitions:
        renamed["$defs"] = {
            published: renamed["$defs"][name] for published, name in sorted((new, old) for old, new in names.items())
        }
    return renamed


def _with_references(schema: Any, references: dict[str, str]) -> Any:
    if isinstance(schema, list):
        return [_with_references(each, references) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: references[value] if name == "$ref" else _with_references(value, references) for name, value in schema.items()}
