"""The page of a batch: what happened to each person, while it happens."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.browser.conftest import Held, Watch, log_in, photograph
from tests.browser.test_console import check
from tests.browser.test_registering import respond
from tests.support.api_server import ApiServer
from tests.support.console import running_console, running_provider, with_console
from tests.support.pipeline import COORDINATOR, Pipeline, item, mentors
from tests.support.process import environment
from tests.support.waiting import PATIENCE_S, eventually

LIST = "async (path) => (await fetch(path, { headers: { 'X-Bulkreg-Console': '1' } })).json()"


@pytest.fixture
def server(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """The console of that pipeline."""
    with running_console(with_console(settings)) as (server, _):
        yield server


def open_batch(page: Page, server: ApiServer, batch_id: object, *, name: str = "Coordinator") -> None:
    """Logs in and opens the page of a batch."""
    log_in(page, server, name)
    page.goto(f"{server.url}/console/batches/{batch_id}")
    page.locator(".people").wait_for()


def press_until(page: Page, locator: Locator, key: str = "Tab") -> None:
    """Moves the focus by keyboard until an element has it. The focus is never lost on the way."""
    locator.wait_for()
    for _ in range(40):
        if locator.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"40 times {key} do not lead to {locator}")


def test_a_batch_is_followed_to_its_end(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody")], label="Monday group")
    page = context.new_page()
    open_batch(page, server, batch_id)
    expect(page.locator(".sentence")).to_have_text("Running: 0 of 3 registered")
    expect(page.get_by_role("progressbar", name="Progress")).to_have_js_property("value", 0)
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Waiting")
    photograph(page, screenshots / "batch-running.png")
    page.get_by_role("button", name="nobody").focus()

    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("2 of 3 registered, 1 needs you")
    expect(page.get_by_role("progressbar")).to_have_count(0)
    rows = page.locator(".people tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("Not in the organization's directory. Choose another person")
    expect(rows.nth(1)).to_contain_text("Registered")
    expect(page.get_by_role("button", name="nobody")).to_be_focused()
    expect(page.get_by_role("status").filter(has_text="1 needs you")).to_have_count(1)
    check(page, screenshots / "batch-partial.png")

    # Large numbers are grouped, as the language does it.
    listed = page.evaluate(LIST, API_PATH)
    listed["data"][0] |= {"total_items": 10_000, "completed": 9_700, "failed": 300}
    respond(page, API_PATH, 200, listed)
    page.goto(f"{server.url}/console/batches")
    expect(page.get_by_text("9,700 of 10,000 registered, 300 need you")).to_be_visible()
    page.get_by_role("button", name="Norsk").click()
    expect(page.get_by_text("9\u00a0700 av 10\u00a0000 registrert")).to_be_visible()
    assert watch.faults == []


def test_failed_people_are_corrected_and_retried_by_keyboard(
    pipeline: Pipeline, server: ApiServer, engine: Engine, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE registration.mentor SET name = 'Dag Nesse', active_until = '2024-12-31' WHERE mentor_id = 'mentor-4'")
        )
        connection.execute(text("UPDATE registration.mentor SET name = 'Eva Lund' WHERE mentor_id = 'mentor-5'"))
    pipeline.submit(mentors(1))
    pipeline.drain()
    batch_id = pipeline.submit([*mentors(2), item("mentor-4"), item("nobody")], label="Monday group")
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id)
    press_until(page, page.get_by_role("link", name="Correct and retry (3)"))
    page.keyboard.press("Enter")
    rows = page.get_by_role("group")
    expect(rows).to_have_count(3)
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_disabled()
    check(page, screenshots / "correct.png")

    # Each message is at its field, and a duplicate says who registered the other one.
    date = page.get_by_role("group", name="Dag Nesse").get_by_label("Date")
    assert "Was not an active mentor on this date" in described(date)
    expect(page.get_by_role("group", name="Mentor", exact=True)).to_contain_text("Is already registered by Coordinator")
    press_until(page, page.get_by_label("Register anyway"))
    page.keyboard.press("Space")
    press_until(page, date)
    page.keyboard.press("Control+a")
    page.keyboard.type("16/12/2024")
    person = page.get_by_role("group", name="nobody").get_by_label("Mentor")
    press_until(page, person)
    page.keyboard.type("Eva")
    expect(page.locator(".correct footer")).to_contain_text("Mentor, Dag Nesse, nobody")
    page.keyboard.press("Control+Enter")

    # What can't be read is said at its field, which has the focus.
    expect(date).to_be_focused()
    assert "Slashes can mean day/month or month/day" in described(date)
    page.keyboard.press("Control+a")
    page.keyboard.type("16.12.2024")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".sentence")).to_contain_text("Running: 1 of 4 registered")
    expect(page.locator("#outcome")).to_have_text("3 were sent again.")
    assert page.url.endswith(str(batch_id))
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("All 4 registered")

    # Each person's history says who corrected what.
    expect(page.locator(".people .result[data-state=success]")).to_have_count(4)
    page.get_by_role("button", name="Dag Nesse").click()
    dialog = page.get_by_role("dialog", name="Dag Nesse")
    expect(dialog).to_contain_text("Corrected by Coordinator")
    expect(dialog).to_contain_text("Date: 25.03.2026 → 16.12.2024")
    check(page, screenshots / "batch-person.png")
    assert watch.faults == []


def test_the_focus_stays_near_what_goes_away(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch
) -> None:
    page = context.new_page()
    first = pipeline.submit([*mentors(2), item("nobody")])
    open_batch(page, server, first)
    # The batch ends, so nobody can cancel it any more.
    press_until(page, page.get_by_role("button", name="Cancel", exact=True))
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("2 of 3 registered, 1 needs you")
    expect(page.get_by_role("heading", level=1)).to_be_focused()

    # The row of the person whose dialog was open has moved.
    second = pipeline.submit([*mentors(2, first=3), item("nobody")])
    page.goto(f"{server.url}/console/batches/{second}")
    press_until(page, page.locator("#row-1"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    pipeline.drain()
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Not registered")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#row-1")).to_be_focused()

    # Nothing is lost while a request is under way, nor when it fails.
    done = page.get_by_role("button", name="Done with it")
    press_until(page, done, "Shift+Tab")
    context.set_offline(True)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
    expect(done).to_be_focused()
    context.set_offline(False)
    expect(page.locator("#outcome")).to_be_focused()

    # The next page of people begins at its first row, and the last one has no next.
    long = pipeline.submit([item(f"nobody-{number}") for number in range(101)])
    pipeline.drain()
    page.goto(f"{server.url}/console/batches/{long}")
    press_until(page, page.get_by_role("button", name="Next page"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#rows-shown")).to_contain_text("101 of 101")
    expect(page.locator("#rows-shown")).to_be_focused()
    assert [error for error in watch.faults if "DISCONNECTED" not in error] == []


def test_one_of_many_mentors_is_named_rather_than_listed(
    pipeline: Pipeline, server: ApiServer, engine: Engine, context: BrowserContext, watch: Watch
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id) SELECT organization_id, 'extra-' || n,"
                " 'Extra ' || n, chapter_id FROM registration.mentor CROSS JOIN generate_series(1, 150) n WHERE mentor_id = 'mentor-1'"
            )
        )
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    page = context.new_page()
    log_in(page, server)
    page.goto(f"{server.url}/console/batches/{batch_id}/correct")
    mentor = page.get_by_role("group", name="nobody").get_by_label("Mentor")
    mentor.fill("Extra")
    expect(page.locator("datalist option")).to_have_count(20)
    page.keyboard.press("Control+Enter")
    expect(mentor).to_be_focused()
    assert "Nobody in the directory has this name" in described(mentor)
    mentor.fill("extra 77")
    page.keyboard.press("Tab")
    expect(mentor).to_have_value("Extra 77")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#outcome")).to_have_text("1 was sent again.")
    pipeline.drain()
    expect(page.locator(".people tbody tr")).to_contain_text("Extra 77")
    assert watch.faults == []


def described(field: Locator) -> str:
    """The hint and the message that belong to a field."""
    return str(
        field.evaluate(
            "(field) => field.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent).join(' ')"
        )
    )


def test_somebody_who_was_faster_is_shown(pipeline: Pipeline, server: ApiServer, context: BrowserContext) -> None:
    batch_id = pipeline.submit([item("mentor-1", minutes=2000), item("mentor-2", minutes=2000)])
    pipeline.drain()
    page = context.new_page()
    log_in(page, server)
    page.goto(f"{server.url}/console/batches/{batch_id}/correct")
    expect(page.get_by_role("group")).to_have_count(2)
    for row in page.get_by_role("group").all():
        row.get_by_label("Duration").fill("1,5 h")
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as other:
        first = other.get(f"{API_PATH}/{batch_id}").json()["items"][0]["item_id"]
        correction = {"item_id": first, "duration_minutes": 45}
        assert other.post(f"{API_PATH}/{batch_id}/retry", json={"corrections": [correction]}).status_code == 202
    pipeline.drain()
    page.get_by_role("button", name="Retry these 2").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else has already taken care of")
    expect(page.locator("#summary")).to_be_focused()
    expect(page.locator("section.row")).to_contain_text("45 min")
    expect(page.get_by_role("group").get_by_label("Duration")).to_have_value("1,5 h")
    page.get_by_role("button", name="Retry this 1").click()
    expect(page.locator("#outcome")).to_have_text("1 was sent again.")
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("All 2 registered")


def test_a_running_batch_is_cancelled(pipeline: Pipeline, server: ApiServer, context: BrowserContext, screenshots: Path) -> None:
    batch_id = pipeline.submit(mentors(3), label="Wrong week")
    page = context.new_page()
    open_batch(page, server, batch_id)
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel this registration?")
    expect(dialog).to_contain_text("Registered, and stays so: 0. Not registered yet, and will not be: 3.")
    page.get_by_label("Why (optional)").fill("The week was wrong")
    check(page, screenshots / "batch-cancel.png")
    page.get_by_role("button", name="Cancel the registration").click()
    expect(page.locator("#outcome")).to_have_text("Cancelled: 0 of 3 registered, 3 stopped.")
    expect(page.locator("#outcome")).to_be_focused()
    pipeline.drain()
    page.reload()
    expect(page.locator(".sentence")).to_have_text("Cancelled: 0 of 3 registered")
    expect(page.get_by_role("main")).to_contain_text("The week was wrong")
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Cancelled, not registered")
    expect(page.get_by_role("link", name="Register again")).to_have_attribute("href", f"/console/new?again={batch_id}")


def test_registrations_are_undone_by_keyboard(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    batch_id = pipeline.submit(mentors(3), label="Tuesday visits")
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id)
    # One person.
    press_until(page, page.locator(".people button").first)
    page.keyboard.press("Enter")
    press_until(page, page.get_by_role("button", name="Undo this one"))
    page.keyboard.press("Enter")
    reason = page.get_by_label("Why?")
    press_until(page, reason)
    page.keyboard.type("Wrong person")
    page.keyboard.press("Enter")
    expect(page.locator("#outcome")).to_have_text("1 activity was undone.")
    expect(page.locator("#outcome")).to_be_focused()
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Undone")
    # All others. The dialog says beforehand what it touches.
    press_until(page, page.get_by_role("button", name="Undo", exact=True), "Shift+Tab")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Undo this registration?")
    expect(dialog).to_contain_text("2 activities will be undone.")
    expect(dialog).to_contain_text("1 had been undone before.")
    press_until(page, reason)
    page.keyboard.press("Enter")
    assert "Say why, for example" in dialog.inner_text()
    expect(reason).to_be_focused()
    check(page, screenshots / "batch-undo.png")
    page.keyboard.type("Wrong date")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#outcome")).to_contain_text("2 activities were undone.")
    expect(page.locator(".sentence")).to_have_text("All 3 registered, 3 undone")
    expect(page.get_by_role("button", name="Undo", exact=True)).to_have_count(0)
    assert watch.faults == []


@contextlib.contextmanager
def api_process(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The API with the console in a process of its own, which a test can kill."""
    secrets = {"jwt_hs256_key": settings.jwt_hs256_key, "oidc_client_secret": settings.oidc_client_secret}
    variables = environment(settings) | {
        f"BULKREG_{name.upper()}": value.get_secret_value() for name, value in secrets.items() if value is not None
    }
    with (folder / "api.out").open("ab") as out:
        process = subprocess.Popen([sys.executable, "-m", "cli", "run", "api"], env=variables, stdout=out, stderr=out)
    try:
        eventually(lambda: is_up(settings), what="the API")
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def is_up(settings: Settings) -> bool:
    """Whether the API responds."""
    try:
        return httpx.get(f"{settings.public_url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_killed_api_and_a_lost_network_leave_true_numbers(
    settings: Settings, pipeline: Pipeline, context: BrowserContext, tmp_path: Path
) -> None:
    console = with_console(settings)
    server = ApiServer(console, str(console.public_url))
    batch_id = pipeline.submit([*mentors(3), item("nobody")])
    page = context.new_page()
    with running_provider(console):
        with api_process(console, tmp_path) as process:
            open_batch(page, server, batch_id)
            expect(page.locator(".sentence")).to_have_text("Running: 0 of 4 registered")
            process.kill()
            expect(page.get_by_role("main")).to_contain_text("The connection is lost. The page catches up when it is back.")
        pipeline.drain()
        with api_process(console, tmp_path):
            expect(page.locator(".sentence")).to_have_text("3 of 4 registered, 1 needs you")
            expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Not registered")
            page.reload()
            expect(page.locator(".sentence")).to_have_text("3 of 4 registered, 1 needs you")
            # What was asked for without a network happens when it is back, once.
            context.set_offline(True)
            page.get_by_role("button", name="Done with it").click()
            expect(page.get_by_role("alert")).to_contain_text("The service can't be reached.")
            context.set_offline(False)
            expect(page.locator(".sentence")).to_have_text("3 of 4 registered, 1 failed")
            page.goto(f"{server.url}/console/batches")
            expect(page.get_by_role("status").filter(has_text="1 registration")).to_have_count(1)


def test_the_history_is_filtered_and_paged(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    submitted_on = datetime.now(ZoneInfo("Europe/Oslo")).strftime("%d.%m.%Y")
    for number in range(1, 28):
        pipeline.submit(mentors(1, first=number), label=f"Group {number}")
    pipeline.submit([item("nobody")], label="Group of nobody")
    pipeline.drain()
    page = context.new_page()
    log_in(page, server, "Boss")
    page.goto(f"{server.url}/console/batches")
    rows, count = page.locator(".batches tbody tr"), page.locator(".history [role=status]")
    expect(count).to_have_text("28 registrations")
    expect(rows).to_have_count(25)
    expect(rows.nth(0)).to_contain_text("None registered, 1 needs you")
    expect(rows.nth(0)).to_contain_text("Coordinator")
    check(page, screenshots / "history.png")
    page.get_by_role("button", name="Next page").click()
    expect(rows).to_have_count(3)
    expect(page.get_by_role("navigation", name="History")).to_contain_text("28 of 28")
    page.get_by_role("button", name="Previous page").click()
    expect(rows).to_have_count(25)

    page.get_by_label("Name contains").fill("group 2")
    page.keyboard.press("Enter")
    expect(count).to_have_text("9 registrations")
    assert "group" not in page.url
    page.get_by_label("Only those that need somebody").check()
    page.get_by_role("button", name="Show", exact=True).click()
    expect(page.get_by_role("main")).to_contain_text("No registrations match.")
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text("28 registrations")
    page.get_by_label("Whose").select_option("Mine")
    page.get_by_role("button", name="Show", exact=True).click()
    expect(count).to_have_text("0 registrations")
    page.reload()
    expect(page.get_by_label("Whose")).to_have_value("mine")
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("From date").fill("25/03/2026")
    page.keyboard.press("Enter")
    expect(page.get_by_label("From date")).to_be_focused()
    expect(page.get_by_label("From date")).to_have_accessible_description(re.compile("Slashes"))
    page.get_by_label("From date").fill(submitted_on)
    page.keyboard.press("Enter")
    expect(count).to_have_text("28 registrations")
    page.get_by_label("From date").fill("1.1.2020")
    page.get_by_label("To date").fill("31.12.2020")
    page.keyboard.press("Enter")
    expect(count).to_have_text("0 registrations")
    assert watch.faults == []


def test_the_history_shows_what_was_asked_for_last(pipeline: Pipeline, server: ApiServer, context: BrowserContext) -> None:
    for number in range(1, 4):
        pipeline.submit(mentors(1, first=number), label=f"Group {number}")
    page = context.new_page()
    log_in(page, server, "Boss")
    page.goto(f"{server.url}/console/batches")
    rows = page.locator(".batches tbody tr")
    expect(rows).to_have_count(3)
    held = Held(page, re.compile(re.escape(f"{API_PATH}?")))
    for name in ("group 1", "group 2", "group 3"):
        page.get_by_label("Name contains").fill(name)
        page.keyboard.press("Enter")
    held.let_go()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Group 3")


def test_an_auditor_sees_results_and_changes_nothing(pipeline: Pipeline, server: ApiServer, context: BrowserContext) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes="Talked about the summer"), item("nobody")])
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id, name="Auditor")
    expect(page.locator(".batch .buttons > *")).to_have_text(["Download", "Receipt", "Print"])
    page.locator(".people button").nth(1).click()
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Download").click()
    assert "mentor-1" in download.value.path().read_text(encoding="utf-8-sig")
    page.locator(".people button").nth(1).click()
    expect(dialog.get_by_role("button")).to_have_text(["Close"])
    assert "Talked" not in page.content()


def test_a_note_is_erased(pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch) -> None:
    batch_id = pipeline.submit([item("mentor-1", notes="Talked about the summer")])
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id)
    person, dialog = page.locator(".people button").first, page.get_by_role("dialog")
    for answer in ("Keep the note", "Erase the note"):
        person.click()
        dialog.get_by_text("Note", exact=True).click()
        expect(dialog).to_contain_text("Talked about the summer")
        dialog.get_by_role("button", name="Erase the note").click()
        expect(dialog.get_by_role("heading")).to_contain_text("Erase the note about")
        dialog.get_by_role("button", name=answer).click()
        expect(dialog).to_be_hidden()
    expect(page.locator("#outcome")).to_have_text("The note is erased.")
    person.click()
    expect(dialog.get_by_role("button").first).to_be_visible()
    assert "Talked" not in page.content()
    assert pipeline.status(batch_id).items[0].values.notes is None
    assert watch.faults == []


def test_a_batch_is_followed_where_no_stream_gets_through(pipeline: Pipeline, server: ApiServer, context: BrowserContext) -> None:
    context.route("**/events?*", lambda route: route.fulfill(status=502))
    batch_id = pipeline.submit([*mentors(2), item("nobody")])
    page = context.new_page()
    open_batch(page, server, batch_id)
    with page.expect_request("**wait=20**"):
        pass
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("2 of 3 registered, 1 needs you")
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Not registered")


def test_a_batch_is_renamed_and_deleted(pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch) -> None:
    batch_id = pipeline.submit(mentors(2), label="Monday")
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id)
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Name of the registration").fill("Monday group")
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as other:
        assert other.put(f"{API_PATH}/{batch_id}", json={"label": "Week 13"}).status_code == 200
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else has changed the name to “Week 13” meanwhile.")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#outcome")).to_have_text("The name was changed.")
    expect(page.get_by_role("heading", level=1)).to_have_text("Monday group")
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_contain_text("2 activities are registered and stay so.")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The registration was deleted from the history")
    expect(page.locator("#outcome")).to_be_focused()
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("This registration does not exist")
    assert watch.faults == []


@pytest.mark.full
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_state_of_a_batch_is_accessible(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path, colours: Any
) -> None:
    states = {"completed": pipeline.submit(mentors(2)), "undone": pipeline.submit(mentors(2, first=3))}
    pipeline.drain()
    states |= {"partial": pipeline.submit([*mentors(1), *mentors(1, first=5)]), "failed": pipeline.submit([item("nobody")])}
    pipeline.drain()
    states |= {"running": pipeline.submit(mentors(2, first=6)), "cancelled": pipeline.submit(mentors(2, first=8))}
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as client:
        assert client.post(f"{API_PATH}/{states['undone']}/revoke", json={"reason": "wrong week"}).status_code == 200
        assert client.post(f"{API_PATH}/{states['cancelled']}/cancel").status_code == 200
    page = context.new_page()
    page.emulate_media(color_scheme=colours)
    log_in(page, server)
    paths = {
        **{state: f"batches/{batch_id}" for state, batch_id in states.items()},
        "correct": f"batches/{states['partial']}/correct",
        "nothing-to-correct": f"batches/{states['completed']}/correct",
        "gone": f"batches/{str(states['failed'])[:-4]}0000",
        "history": "batches",
        "history-empty": "batches?status=partial&from=1.1.2020&to=2.1.2020",
    }
    for name, path in paths.items():
        page.goto(f"{server.url}/console/{path}")
        page.get_by_role("heading").first.wait_for()
        check(page, screenshots / f"{name}-{colours}.png")
    assert watch.faults == []
