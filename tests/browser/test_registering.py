"""The main job in a browser: registering mentors for the first time, again, and from a spreadsheet; by mouse, and by keyboard alone."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.browser.conftest import Watch, log_in
from tests.browser.registering import BERGEN, Effort, Registering, registering_console
from tests.support.pipeline import item


@pytest.fixture
def registering(settings: Settings, engine: Engine) -> Iterator[Registering]:
    """A console on which nothing is registered yet."""
    with registering_console(settings, engine) as registering:
        yield registering


@pytest.fixture
def effort(context: BrowserContext) -> Effort:
    """Begins to count."""
    return Effort(context)


@pytest.fixture
def page(context: BrowserContext, effort: Effort, registering: Registering) -> Page:
    """The first page, logged in as the coordinator of Bergen, with a count of clicks and keys."""
    page = context.new_page()
    log_in(page, registering.server)
    return page


def test_the_first_time_takes_five_clicks_and_the_minutes(
    registering: Registering, page: Page, effort: Effort, watch: Watch, screenshots: Path
) -> None:
    effort.restart()
    page.get_by_role("navigation").get_by_role("link", name="New registration").click()
    page.get_by_text("Hospital visit").click()
    # After choosing the type, a person gets to the minutes by Tab, across the date and its two chips.
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
    assert registering.registered() == set(BERGEN)
    # Only the language may be stored where scripts can read it, and no name is in an address.
    assert page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage)]") == [[], []]
    assert [url for url in watch.requests if "m-01" in url or "Astrid" in url] == []
    assert [error for error in watch.errors if "status of 401" not in error] == []


def test_the_weekly_group_again_takes_two_clicks_and_one_for_each_absentee(
    registering: Registering, page: Page, effort: Effort, screenshots: Path
) -> None:
    today = date.fromisoformat(registering.today())
    days = [today - timedelta(days=days) for days in (14, 7)]
    for day, members in zip(days, (BERGEN, BERGEN[:24]), strict=True):
        registering.pipeline.submit([item(mentor, day=day, kind="talk") for mentor in members], label=f"Tuesdays, {day:%d.%m.%Y}")
    registering.pipeline.submit([item(mentor, day=today, kind="course") for mentor in BERGEN[:3]])
    before = registering.registered()
    page.reload()
    groups = page.get_by_role("region", name="Register again").get_by_role("link")
    expect(groups).to_have_count(2)
    expect(groups.nth(1)).to_contain_text("Peer talk, 24 people")
    expect(groups.nth(1)).to_contain_text(f"now {today:%d.%m.%Y}")
    page.screenshot(path=screenshots / "home-again.png", full_page=True)
    effort.restart()
    groups.nth(1).click()
    page.get_by_label("Bjørn Haugen").click()
    page.get_by_role("button", name="Register 23").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert (effort.clicks, effort.keys) == (3, 0)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Tuesdays, {today:%d.%m.%Y}")
    assert registering.registered() == before
    assert registering.mentors_on(today, "talk") == set(BERGEN[:24]) - {"m-02"}


def test_the_keyboard_alone_registers_25_mentors_in_25_presses(registering: Registering, page: Page, effort: Effort) -> None:
    def press(*keys: str) -> None:
        for key in keys:
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement !== document.body"), key

    effort.restart()
    press("Tab", "Enter", "Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    page.get_by_label("Search by name").wait_for()
    # Tab goes across the link to the content, then the first type, the date and its chips, the duration, the name, the note and the
    # chapter.
    press("Tab", "Enter", "Tab", "Space", *["Tab"] * 7, "Space", "Control+Enter")
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Control+Enter")
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert effort.clicks == 0
    assert effort.keys <= 25
    assert registering.registered() == set(BERGEN)
