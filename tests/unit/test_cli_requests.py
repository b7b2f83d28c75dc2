"""What the commands ask the API for, and when they stop asking."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from aiohttp import web
from typer.testing import CliRunner, Result

from cli.main import app
from schemas.paths import ACTIVITIES_PATH, API_PATH, API_ROOT, CLOSED_PERIOD_PATH, WEBHOOKS_PATH
from tests.support.time_zone import local_time
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
    body: Any = None
    seen: str | None = None
    """The ETag in If-Match."""


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
        body, headers = await request.read(), request.headers
        query = {name: ",".join(request.query.getall(name)) for name in request.query}
        told = (headers.get("Idempotency-Key"), json.loads(body) if body else None, headers.get("If-Match"))
        seen.append(Asked(request.method, request.path, query, *told))
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
def in_st_johns() -> Iterator[None]:
    with local_time("America/St_Johns"):
        yield


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


# --- What options say -----------------------------------------------------------------------------------------------------------------

OTHER = str(UUID(int=3))
KEPT: Json = {"item_id": OTHER, "code": "period_closed"}
SUMS: Json = {"activities": 0, "minutes": 0}

# What the API returns to each of these commands: everything that any of them reads.
ANY: Json = batch() | {
    "data": [],
    "groups": [],
    "next_cursor": None,
    "pagination": {"total": 0, "next_cursor": None},
    "already_revoked": 0,
    "revoked_by": "boss",
    "kept": [],
    "live": SUMS,
    "revoked": SUMS,
    "template_id": OTHER,
    "webhook_id": OTHER,
    "event_id": OTHER,
    "secret": "s",
    "previous_secret_until": "2026-03-25T10:00:00Z",
}

COMMANDS: dict[str, tuple[str, str, Json]] = {
    "list --status partial --status failed --needs-attention --coordinator c --label Monday --limit 7": (
        "GET",
        API_PATH,
        {
            "status": "partial,failed",
            "needs_attention": "true",
            "coordinator_id": "c",
            "q": "Monday",
            "limit": "7",
            "page": "1",
        },
    ),
    f"retry {BATCH} --item {OTHER}": ("POST", f"{API_PATH}/{BATCH}/retry", {"item_ids": [OTHER]}),
    f"retry {BATCH} --only-retryable": ("POST", f"{API_PATH}/{BATCH}/retry", {"only_retryable": True}),
    f"cancel {BATCH} --reason mistake": ("POST", f"{API_PATH}/{BATCH}/cancel", {"cancellation_reason": "mistake"}),
    f"cancel {BATCH}": ("POST", f"{API_PATH}/{BATCH}/cancel", {}),
    f"revoke {BATCH} --reason mistake": ("POST", f"{API_PATH}/{BATCH}/revoke", {"reason": "mistake", "dry_run": False}),
    f"revoke {BATCH} --reason mistake --items {OTHER} --dry-run": (
        "POST",
        f"{API_PATH}/{BATCH}/revoke",
        {"reason": "mistake", "dry_run": True, "item_ids": [OTHER]},
    ),
    "activities list --from 2026-01-01 --to 2026-03-31 --type visit --chapter oslo --coordinator c --mentor m --live --limit 7": (
        "GET",
        ACTIVITIES_PATH,
        {
            "from": "2026-01-01",
            "to": "2026-03-31",
            "activity_type": "visit",
            "chapter_id": "oslo",
            "coordinator_id": "c",
            "mentor_id": "m",
            "revoked": "false",
            "limit": "7",
        },
    ),
    "activities list --revoked --cursor c": ("GET", ACTIVITIES_PATH, {"revoked": "true", "limit": "20", "cursor": "c"}),
    "activities export --from 2026-01-01 --chapter oslo --live --format ndjson": (
        "GET",
        f"{ACTIVITIES_PATH}.ndjson",
        {"from": "2026-01-01", "chapter_id": "oslo", "revoked": "false"},
    ),
    "activities summary --from 2026-01-01 --to 2026-03-31 --mentor m --by month --by chapter --by month": (
        "GET",
        f"{ACTIVITIES_PATH}/summary",
        {"from": "2026-01-01", "to": "2026-03-31", "mentor_id": "m", "group_by": "month,chapter"},
    ),
    f"activities revoke {OTHER} --reason mistake": ("POST", f"{ACTIVITIES_PATH}/{OTHER}/revoke", {"reason": "mistake"}),
    "templates save Mondays m-1 m-2 --type visit --minutes 60 --weekday 1 --coordinator c": (
        "POST",
        f"{API_ROOT}/templates",
        {
            "name": "Mondays",
            "mentor_ids": ["m-1", "m-2"],
            "activity_type": "visit",
            "duration_minutes": 60,
            "weekday": 1,
            "coordinator_id": "c",
        },
    ),
    f"templates delete {OTHER} --yes": ("DELETE", f"{API_ROOT}/templates/{OTHER}", {}),
    "webhooks add https://receiver.example.org/in --event BatchCompleted --event ActivitiesRevoked": (
        "POST",
        WEBHOOKS_PATH,
        {"url": "https://receiver.example.org/in", "events": ["BatchCompleted", "ActivitiesRevoked"]},
    ),
    f"webhooks rotate-secret {OTHER}": ("POST", f"{WEBHOOKS_PATH}/{OTHER}/rotate-secret", {}),
    f"webhooks enable {OTHER}": ("POST", f"{WEBHOOKS_PATH}/{OTHER}/enable", {}),
    f"webhooks test {OTHER}": ("POST", f"{WEBHOOKS_PATH}/{OTHER}/test", {}),
    f"webhooks deliveries {OTHER} --state failed --limit 7": (
        "GET",
        f"{WEBHOOKS_PATH}/{OTHER}/deliveries",
        {"state": "failed", "limit": "7"},
    ),
    "directory show mentors --coordinator c --q kari --active-on 2026-03-25": (
        "GET",
        f"{API_ROOT}/directory/mentors",
        {"coordinator_id": "c", "q": "kari", "active_on": "2026-03-25", "limit": "1000"},
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_asks_for_what_its_options_say(command: str) -> None:
    result, [asked] = ran(*command.split(), answer=lambda _: web.json_response(ANY))
    assert result.exit_code == 0, result.output
    said = asked.query if asked.method == "GET" else asked.body or {}
    assert (asked.method, asked.path, said) == COMMANDS[command]
    assert (asked.key is not None) == (asked.method == "POST")


@pytest.mark.parametrize("command", [f"retry {BATCH}", f"revoke {BATCH} --reason x", f"activities revoke {OTHER} --reason x"])
def test_a_key_of_the_caller_is_sent(command: str) -> None:
    _, [asked] = ran(*command.split(), "--idempotency-key", "mine", answer=lambda _: web.json_response(ANY))
    assert asked.key == "mine"


@pytest.mark.parametrize(("status", "exit_code"), [("completed", 0), ("partial", 1), ("failed", 1), ("cancelled", 1)])
def test_who_waits_for_a_batch_is_told_whether_items_failed(status: str, exit_code: int) -> None:
    for command, expected in (
        (["status", BATCH], 0),
        (["status", BATCH, "--watch"], exit_code),
        (["retry", BATCH, "--watch"], exit_code),
        (["retry", BATCH], 0),
    ):
        result, _ = ran(*command, answer=lambda _: web.json_response(batch(status=status)))
        assert (command, result.exit_code) == (command, expected)


@pytest.mark.parametrize(("kept", "exit_code"), [([], 0), ([KEPT], 1)])
def test_a_revocation_that_keeps_something_says_so(kept: list[object], exit_code: int) -> None:
    result, _ = ran("revoke", BATCH, "--reason", "x", answer=lambda _: web.json_response(ANY | {"kept": kept}))
    assert (result.exit_code, "period_closed" in result.stdout) == (exit_code, bool(kept))


@pytest.mark.parametrize(
    ("command", "path"), [(["templates", "list"], "templates"), (["directory", "show", "mentors"], "mentors")]
)
def test_each_page_of_a_listing_is_of_the_same_coordinator(command: list[str], path: str) -> None:
    row = {"template_id": OTHER, "name": "n", "activity_type": "visit", "duration_minutes": 60, "weekday": None, "mentor_ids": []}

    def pages(asked: Asked) -> web.StreamResponse:
        return web.json_response(
            {"data": [row | {"coordinator_id": "c"}], "next_cursor": None if asked.query.get("cursor") else "2"}
        )

    result, asked = ran(*command, "--coordinator", "c", "--json", answer=pages)
    assert (result.exit_code, len(json.loads(result.stdout)["data"])) == (0, 2)
    assert [(each.query.get("cursor"), each.query["coordinator_id"]) for each in asked] == [(None, "c"), ("2", "c")]
    assert asked[0].path.endswith(path)


def receiver(**shown: Any) -> Json:
    ours = {"webhook_id": "w", "url": "u", "events": ["e"], "enabled": True, "failing_since": None}
    return {"data": [ours | {"disabled_at": "Monday", "disabled_because": "gone"} | shown]}


@pytest.mark.parametrize(
    ("command", "answer", "said", "unsaid"),
    [
        (f"activities revoke {OTHER} --reason x", ANY | {"already_revoked": True}, "was revoked before, by boss", "is revoked"),
        (f"activities revoke {OTHER} --reason x", ANY | {"already_revoked": False}, "is revoked", "before"),
        (f"cancel {BATCH}", batch(unresolved=2), "2 still wait", "0 still wait"),
        (f"cancel {BATCH}", batch(unresolved=0), BATCH, "still wait"),
        ("webhooks list", receiver(), "enabled", "since"),
        ("webhooks list", receiver(failing_since="noon"), "failing since noon", "enabled"),
        ("webhooks list", receiver(enabled=False, failing_since="noon"), "since Monday: gone", "noon"),
    ],
)
def test_a_person_is_told_what_has_become_of_it(command: str, answer: Json, said: str, unsaid: str) -> None:
    result, _ = ran(*command.split(), answer=lambda _: web.json_response(answer))
    shown = " ".join(result.stdout.split())
    assert (result.exit_code, said in shown, unsaid in shown) == (0, True, False), result.output


# --- Closed periods -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("closed", "command", "wanted"),
    [
        (None, "close 2026-03-31", "2026-03-31"),
        ("2026-03-31", "close 2026-03-31", "2026-03-31"),
        ("2026-03-31", "close 2026-04-01", "2026-04-01"),
        ("2026-03-31", "close 2026-03-30", "use `bulkreg period reopen`"),
        ("2026-03-31", "reopen", None),
        ("2026-03-31", "reopen --through 2026-03-31", "2026-03-31"),
        ("2026-03-31", "reopen --through 2025-12-31", "2025-12-31"),
        ("2026-03-31", "reopen --through 2026-04-01", "use `bulkreg period close`"),
        (None, "reopen --through 2026-04-01", "use `bulkreg period close`"),
    ],
)
def test_a_period_is_closed_and_reopened_as_it_was_seen(closed: str | None, command: str, wanted: str | None) -> None:
    def period(_asked: Asked) -> web.StreamResponse:
        return web.json_response({"closed_through": closed, "unresolved": 0, "history": []}, headers={"ETag": '"7"'})

    result, [_, *changes] = ran("period", *command.split(), "--reason", "the report is sent", answer=period)
    if wanted is not None and wanted.startswith("use"):
        assert (result.exit_code, wanted in result.stderr, changes) == (2, True, [])
        return
    [change] = changes
    assert (result.exit_code, change.method, change.path) == (0, "PUT", CLOSED_PERIOD_PATH)
    assert change.body == {"closed_through": wanted, "reason": "the report is sent"}
    # It is refused if somebody has changed the period since.
    assert (change.seen, change.key is None) == ('"7"', False)


# --- Receipts -------------------------------------------------------------------------------------------------------------------------


def test_only_a_receipt_that_comes_soon_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.receipts._AGAIN_AFTER_S", 0.01)
    for code, requests, exit_code in (("receipt_not_ready", 2, 0), ("batch_running", 1, 2), ("nothing_registered", 1, 2)):
        result, asked = ran("receipts", "get", BATCH, answer=refusing(409, code=code))
        assert (code, len(asked), result.exit_code) == (code, requests, exit_code)
