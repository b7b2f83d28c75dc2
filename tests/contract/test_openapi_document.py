"""The OpenAPI document itself: valid for other programs, and complete."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import openapi_spec_validator
import pytest

from api import openapi
from api.access.identity import ORGANIZATION_HEADER
from schemas.paths import API_PATH

ROOT = Path(__file__).parents[2]
DOCUMENT = openapi.document()


def test_the_document_is_valid() -> None:
    openapi_spec_validator.validate(DOCUMENT)


def schemas(node: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the document that has its own default or example."""
    if isinstance(node, dict):
        if ("default" in node or "examples" in node) and isinstance(node.get("examples", []), list):
            yield place, node
        for name, below in node.items():
            yield from schemas(below, f"{place}/{name}")
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from schemas(below, f"{place}/{index}")


@pytest.mark.parametrize(("place", "schema"), list(schemas(DOCUMENT)), ids=lambda value: value if isinstance(value, str) else "")
def test_defaults_and_examples_match_their_schemas(place: str, schema: dict[str, Any]) -> None:
    shape = {name: value for name, value in schema.items() if name not in ("default", "examples")}
    validator = jsonschema_rs.Draft202012Validator(shape | {"components": DOCUMENT["components"]}, validate_formats=True)
    for given in [*([schema["default"]] if "default" in schema else []), *schema.get("examples", [])]:
        validator.validate(given)


def test_every_operation_says_what_a_success_returns() -> None:
    silent = [
        f"{method} {path}"
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if not any(status.startswith("2") for status in operation["responses"])
    ]
    assert silent == []


def test_every_list_of_a_documented_value_names_each_once() -> None:
    """Generators of clients make a constant of each."""
    lists = [(place, node) for place, node in enums(DOCUMENT) if len(set(map(str, node))) < len(node)]
    assert lists == []


def enums(node: Any, place: str = "") -> Iterator[tuple[str, list[Any]]]:
    """The values of every `enum` of the document, with its place."""
    if isinstance(node, dict):
        if isinstance(node.get("enum"), list):
            yield place, node["enum"]
        for name, below in node.items():
            yield from enums(below, f"{place}/{name}")
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from enums(below, f"{place}/{index}")


def documented(where: str) -> set[str]:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    return {each["name"] for operation in operations for each in operation.get("parameters", ()) if each["in"] == where}


def test_every_header_that_is_read_is_documented() -> None:
    # HTTP itself defines these: the token's header, and the headers of a body.
    of_http = {"Authorization", "Content-Encoding", "Expect"}
    read = set()
    for module in (ROOT / "api").rglob("*.py"):
        text = module.read_text()
        read |= set(re.findall(r'headers\.get(?:all|one)?\("([^"]+)"', text)) | set(
            re.findall(r'(?:tags|\.header)\("([^"]+)"', text)
        )
        read |= {ORGANIZATION_HEADER} if ".header(ORGANIZATION_HEADER)" in text else set()
    assert {"Idempotency-Key", "If-Match", "If-None-Match", "traceparent", ORGANIZATION_HEADER} <= read
    assert read - of_http == documented("header")


def test_the_wait_parameter_is_documented_as_a_string() -> None:
    [wait] = [
        each["schema"] for each in DOCUMENT["paths"][API_PATH + "/{batch_id}"]["get"]["parameters"] if each["name"] == "wait"
    ]
    assert (wait["type"], wait["default"]) == ("string", "0")
    assert [bool(re.search(wait["pattern"], given)) for given in ("0", "20s", "60", "60s", "61", "20 s", "", "s", "-1")] == [
        *([True] * 4),
        *([False] * 5),
    ]
