"""The page of a batch: what happened to each person, while it happens."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

from orchestrator.batches.model import Role
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.browser.batches import LIST, open_batch, press_until
from tests.browser.conftest import Watch, log_in, photograph, respond
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.console import running_provider, with_console
from tests.support.pipeline import COORDINATOR, Pipeline, item, mentors
from tests.support.process import environment
from tests.support.waiting import PATIENCE_S, eventually


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
