"""The names under which models are published (schemas/published.py): a renamed class keeps its title."""

import pytest
from pydantic import BaseModel

from schemas.published import published_name, published_schema, published_schemas


class Inner(BaseModel, title="Named"):
    """Is published under another name."""

    value: int


class Outer(BaseModel):
    """Is published under its own name."""

    inner: Inner
    others: tuple[Inner, ...] = ()


class Heir(Inner):
    """Has its parent's title, because pydantic inherits it."""


class Both(BaseModel):
    """Refers to two models of one title."""

    inner: Inner
    heir: Heir


def test_a_title_is_the_published_name() -> None:
    """Without a title, it is the class's name."""
    assert [published_name(model) for model in (Inner, Outer)] == ["Named", "Outer"]


def test_definitions_and_references_have_the_published_names() -> None:
    """In the schema of one model, and in the schemas of many."""
    one = published_schema(Outer)
    assert list(one["$defs"]) == ["Named"]
    assert one["properties"]["inner"] == {"$ref": "#/$defs/Named"}
    assert one["properties"]["others"]["items"] == {"$ref": "#/$defs/Named"}
    many = published_schemas([Outer], prefix="#/schemas/")
    assert list(many) == ["Named", "Outer"]
    assert many["Outer"]["properties"]["inner"] == {"$ref": "#/schemas/Named"}


def test_two_models_with_one_title_are_refused() -> None:
    """Otherwise one of them would replace the other in the document."""
    with pytest.raises(ValueError, match="each its own title"):
        published_schema(Both)
