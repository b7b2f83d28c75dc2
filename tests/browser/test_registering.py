"""The main job in a browser: registering mentors for the first time, again, and from a spreadsheet; by mouse, and by keyboard alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.browser.conftest import Watch, log_in
from tests.browser.registering import NAMES, Effort, Registering, registering_console


@pytest.fixture
def registering(settings: Settings, engine: Engine) -> Iterator[Registering]:
    """A console on which nothing is registered yet."""
    with registering_console(settings, engine) as registering:
        yield registering


@pytest.fixture
def effort(context: BrowserContext) -> Effort:
    """Counts from the beginning."""
    return Effort(context)


@pytest.fixture
def page(context: BrowserContext, effort: Effort, registering: Registering) -> Page:
    """The first page, logged in as the coordinator of Bergen. Efforts are counted in it."""
    page = context.new_page()
    log_in(page, registering.server)
    return page


def test_the_first_time_takes_five_clicks_and_the_minutes(
    registering: Registering, page: Page, effort: Effort, watch: Watch, screenshots: Path
) -> None:
    effort.restart()
    page.get_by_role("navigation").get_by_role("link", name="New registration").click()
    page.get_by_text("Hospital visit").click()
    # A person who has just chosen the type gets to the minutes by Tab: over the date and its two chips.
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_label("Duration")).to_be_focused()
    page.keyboard.type("1,5 h")
    expect(page.get_by_text("1 h 30 min")).to_be_visible()
    page.get_by_role("button", name="All of Bergen (25)").click()
    page.screenshot(path=screenshots / "new.png", full_page=True)
    page.get_by_role("button", name="Review 25").click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    page.screenshot(path=screenshots / "review.png", full_page=True)
    page.get_by_role("button", name="Register 25").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert effort.clicks == 5
    assert registering.registered() == {f"m-{number:02}" for number in range(1, len(NAMES) + 1)}
    # Only the language may be kept where scripts can read it, and no name is in an address.
    assert page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage)]") == [[], []]
    assert [url for url in watch.requests if "m-01" in url or "Astrid" in url] == []
    assert [error for error in watch.errors if "status of 401" not in error] == []
