"""What the commands ask the API for, and when they stop asking."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from aiohttp import web
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from schemas.paths import API_PATH
from tests.unit.test_cli_client import problem, server

Json = dict[str, Any]

BATCH = str(UUID(int=1))
ITEM: Json = {"mentor_id": "m", "activity_type": "visit", "activity_date": "2026-01-01", "duration_minutes": 1}


class Asked(NamedTuple):
    """A request as the API received it."""

    method: str
    path: str
    query: dict[str, str]
    key: str | None


def batch(**shown: Any) -> Json:
    numbers = dict.fromkeys(("total_items", "completed", "failed", "cancelled", "pending", "revoked", "unresolved", "retried"), 0)
    names = {"batch_id": BATCH, "organization_id": "org-01", "label": None, "status": "completed"}
    return {**numbers, **names, "errors_by_code": {}, "items": [], "next_item_cursor": None, **shown}


def done(_asked: Asked) -> web.StreamResponse:
    return web.json_response(batch())


def ran(*command: str, answer: Callable[[Asked], web.StreamResponse] = done) -> tuple[Result, list[Asked]]:
    """The result of the command, and what it asked for."""
    seen: list[Asked] = []

    async def respond(request: web.Request) -> web.StreamResponse:
        await request.read()
        seen.append(Asked(request.method, request.path, dict(request.query), request.headers.get("Idempotency-Key")))
        return answer(seen[-1])

    async def run() -> Result:
        async with server(respond) as url:
            return await asyncio.to_thread(CliRunner().invoke, app, [*command, "--url", url, "--token", "t", "--org", "org-01"])

    return asyncio.run(run()), seen


@pytest.fixture
def lines(tmp_path: Path) -> str:
    """A file with three submissions."""
    file = tmp_path / "three.ndjson"
    file.write_text("".join(json.dumps({"items": [ITEM | {"duration_minutes": minutes}]}) + "\n" for minutes in (1, 2, 3)))
    return str(file)


# --- Submissions ----------------------------------------------------------------------------------------------------------------------


def sent(asked: list[Asked]) -> list[str | None]:
    return [each.key for each in asked if (each.method, each.path) == ("POST", API_PATH)]


def test_each_submission_of_a_file_has_a_key_of_its_own(lines: str, tmp_path: Path) -> None:
    result, asked = ran("submit", lines, "--idempotency-key", "mine")
    assert (result.exit_code, sent(asked)) == (0, ["mine:1", "mine:2", "mine:3"])
    only = tmp_path / "one.json"
    only.write_text(json.dumps({"items": [ITEM]}))
    result, asked = ran("submit", str(only), "--idempotency-key", "mine")
    assert (result.exit_code, sent(asked)) == (0, ["mine"])


def test_two_equal_lines_of_a_file_are_two_submissions(tmp_path: Path) -> None:
    file = tmp_path / "equal.ndjson"
    file.write_text((json.dumps({"items": [ITEM]}) + "\n") * 2)
    derived, again = sent(ran("submit", str(file))[1]), sent(ran("submit", str(file))[1])
    assert len(set(derived)) == 2
    assert again == derived, "what was submitted is not submitted twice"
    assert len({*derived, *sent(ran("submit", str(file), "--again")[1])}) == 4


def refusing(status: int, **content: Any) -> Callable[[Asked], web.StreamResponse]:
    """Refuses the first submission and accepts the others."""
    first = iter([problem(status, **content)])
    return lambda asked: next(first, None) or done(asked)


@pytest.mark.parametrize("status", [400, 409, 412, 413, 422])
def test_a_refused_submission_stops_no_other(lines: str, status: int) -> None:
    result, asked = ran("submit", lines, "--json", answer=refusing(status, code="any"))
    told = json.loads(result.stdout)
    assert (result.exit_code, len(sent(asked)), [each["line"] for each in told["refused"]]) == (2, 3, [1])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refused_caller_sends_nothing_more(lines: str, status: int) -> None:
    result, asked = ran("submit", lines, "--json", answer=refusing(status, code="any"))
    assert (result.exit_code, len(sent(asked)), "refused" in json.loads(result.stdout)) == (2, 1, False)


@pytest.mark.parametrize(("status", "exit_code"), [(422, 2), (500, 3), (501, 3)])
def test_an_error_of_the_server_is_no_mistake_in_the_input(status: int, exit_code: int) -> None:
    result, _ = ran("status", BATCH, answer=lambda _: problem(status, code="any"))
    assert (result.exit_code, "Detail." in result.stderr) == (exit_code, True)


# --- Listings -------------------------------------------------------------------------------------------------------------------------


def listing(_asked: Asked) -> web.StreamResponse:
    return web.json_response({"data": [], "pagination": {"total": 0, "next_cursor": None}})


def test_a_page_is_named_by_its_number_or_by_a_cursor() -> None:
    for options, expected in (([], ("1", None)), (["--page", "3"], ("3", None)), (["--cursor", "c"], (None, "c"))):
        result, [asked] = ran("list", *options, answer=listing)
        assert (result.exit_code, asked.query.get("page"), asked.query.get("cursor")) == (0, *expected)


@pytest.fixture
def in_st_johns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/St_Johns")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_st_johns")
def test_times_are_those_of_the_persons_clock() -> None:
    times = ["--submitted-from", "2026-01-15T10:00:00", "--submitted-to", "2026-07-15T10:00:00"]
    result, [asked] = ran("list", *times, answer=listing)
    told = [asked.query[name] for name in ("submitted_from", "submitted_to")]
    assert (result.exit_code, told) == (0, ["2026-01-15T10:00:00-03:30", "2026-07-15T10:00:00-02:30"])


def test_every_page_of_results_has_only_the_wanted_items() -> None:
    def pages(asked: Asked) -> web.StreamResponse:
        after = asked.query.get("item_cursor")
        return web.json_response(batch(next_item_cursor={None: "9", "9": "19"}.get(after)))

    result, asked = ran("results", BATCH, "--status", "failed", answer=pages)
    assert result.exit_code == 0
    told = [(each.query.get("item_cursor"), each.query.get("items")) for each in asked]
    assert told == [(None, "failed"), ("9", "failed"), ("19", "failed")]


@pytest.mark.parametrize(("notes", "expected"), [("unchanged", "true"), ("", None)])
def test_notes_are_asked_for_only_if_the_corrections_have_some(tmp_path: Path, notes: str, expected: str | None) -> None:
    item_id = str(UUID(int=2))
    file = tmp_path / "corrections.csv"
    file.write_text(f"item_id,duration_minutes,notes\n{item_id},60,{notes}\n")
    item = ITEM | {"item_id": item_id, "status": "failed", "attempt": 1, "notes": "unchanged"}

    def results(asked: Asked) -> web.StreamResponse:
        return web.json_response(item if asked.path.endswith(".ndjson") else batch())

    result, asked = ran("retry", BATCH, "--correct", str(file), answer=results)
    assert (result.exit_code, [each.method for each in asked]) == (0, ["GET", "POST"]), result.output
    assert asked[0].query.get("notes") == expected
