"""Each limit of a request: one below it, at it, and one above. Only the last is refused, with its pointer and its code."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from schemas.api.problems import ProblemResponse
from schemas.paths import API_PATH
from tests.contract.test_api_batches import an_item

Json = dict[str, Any]
NOBODYS = f"{API_PATH}/0190a1b2-0000-7000-8000-000000000000"


def submission(**changes: Any) -> Json:
    return {"items": [an_item()]} | changes


def of_item(**changes: Any) -> Json:
    return {"items": [an_item(**changes)]}


# The limit, how to build a body with a value of that size, and the code for one above it.
UPPER: dict[str, tuple[int, str, Callable[[int], Json], str, str]] = {
    "length of a label": (200, API_PATH, lambda n: submission(label="x" * n), "/label", "too_long"),
    "length of a coordinator's id": (100, API_PATH, lambda n: submission(coordinator_id="x" * n), "/coordinator_id", "too_long"),
    "length of a mentor's id": (100, API_PATH, lambda n: of_item(mentor_id="x" * n), "/items/0/mentor_id", "too_long"),
    "length of a type": (100, API_PATH, lambda n: of_item(activity_type="x" * n), "/items/0/activity_type", "too_long"),
    "length of notes": (10_000, API_PATH, lambda n: of_item(notes="x" * n), "/items/0/notes", "too_long"),
    "length of a reference": (
        100,
        API_PATH,
        lambda n: of_item(client_reference="x" * n),
        "/items/0/client_reference",
        "too_long",
    ),
    "size of an integer": (
        2**31 - 1,
        API_PATH,
        lambda n: of_item(duration_minutes=n),
        "/items/0/duration_minutes",
        "out_of_range",
    ),
    "size of a negative integer": (
        2**31,
        API_PATH,
        lambda n: of_item(duration_minutes=-n),
        "/items/0/duration_minutes",
        "out_of_range",
    ),
    "length of a reason": (1_000, f"{NOBODYS}/cancel", lambda n: {"reason": "x" * n}, "/reason", "too_long"),
    "length of an id in the short form": (
        100,
        API_PATH,
        lambda n: {"mentor_ids": ["x" * n], "activity": {k: v for k, v in an_item().items() if k != "mentor_id"}},
        "/mentor_ids/0",
        "too_long",
    ),
}


def said(answer: httpx.Response) -> set[tuple[str, str]]:
    if answer.status_code != 422:
        return set()
    problem = ProblemResponse.model_validate_json(answer.content)
    return {(one.pointer, one.code) for one in problem.errors or ()}


@pytest.mark.parametrize("name", UPPER)
def test_only_a_value_above_the_limit_is_refused(sender: httpx.Client, name: str) -> None:
    limit, path, body, pointer, code = UPPER[name]
    refused = {size: (pointer, code) in said(sender.post(path, json=body(size))) for size in (limit - 1, limit, limit + 1)}
    assert refused == {limit - 1: False, limit: False, limit + 1: True}


@pytest.mark.parametrize("field", ["mentor_id", "activity_type", "client_reference"])
def test_an_id_has_at_least_one_character(sender: httpx.Client, field: str) -> None:
    refused = {
        size: f"/items/0/{field}" in {at for at, _ in said(sender.post(API_PATH, json=of_item(**{field: "x" * size})))}
        for size in (0, 1)
    }
    assert refused == {0: True, 1: False}


@pytest.mark.parametrize(
    ("name", "limit", "path"), [("limit", 100, API_PATH), ("page", 1_000_000, API_PATH), ("item_limit", 1_000, NOBODYS)]
)
def test_the_limits_of_a_query(sender: httpx.Client, name: str, limit: int, path: str) -> None:
    refused = {
        size: (f"/query/{name}", "out_of_range") in said(sender.get(path, params={name: size}))
        for size in (0, 1, limit - 1, limit, limit + 1)
    }
    assert refused == {0: True, 1: False, limit - 1: False, limit: False, limit + 1: True}


def test_the_limit_of_a_wait(sender: httpx.Client) -> None:
    refused = {
        seconds: ("/query/wait", "out_of_range") in said(sender.get(NOBODYS, params={"wait": f"{seconds}s"}))
        for seconds in (0, 60, 61)
    }
    assert refused == {0: False, 60: False, 61: True}


@pytest.mark.parametrize(("length", "is_refused"), [(1, False), (254, False), (255, False), (256, True)])
def test_the_length_of_a_key(sender: httpx.Client, length: int, is_refused: bool) -> None:
    answer = sender.post(API_PATH, json=submission(), headers={"Idempotency-Key": "x" * length})
    assert ("/headers/Idempotency-Key" in {pointer for pointer, _ in said(answer)}) is is_refused, answer.text
