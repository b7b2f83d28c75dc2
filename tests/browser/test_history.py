"""The list of batches, with its filters and pages."""

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from playwright.sync_api import BrowserContext, expect

from schemas.paths import API_PATH
from tests.browser.conftest import Held, Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.pipeline import Pipeline, item, mentors


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
