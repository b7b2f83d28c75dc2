"""The closed period in a browser: an administrator closes and reopens it, and others only read it."""

from pathlib import Path

from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import Watch, log_in, log_out
from tests.browser.test_console import check
from tests.support.api_server import ApiServer


def test_an_administrator_closes_and_reopens_the_period(
    console: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    log_in(page, console, "Boss")
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("link", name="Closed period").click()
    state = page.locator("#state")
    expect(state).to_have_text("No period is closed")
    through, why = page.get_by_label("Last day of the closed period"), page.get_by_label("Why?")
    through.fill("31.12.2999")
    page.get_by_role("button", name="Close through 31.12.2999").click()
    expect(page.get_by_text("The date is in the future.")).to_be_visible()
    expect(page.get_by_text("Say why, for example")).to_be_visible()
    expect(through).to_be_focused()

    through.fill("25.03.2026")
    why.fill("The report was sent")
    check(page, screenshots / "period-form.png")
    page.get_by_role("button", name="Close through 25.03.2026").press("Enter")
    expect(state).to_have_text("Closed through 25.03.2026")
    expect(state).to_be_focused()
    # To reopen, somebody has to remove the date.
    expect(through).to_have_value("25.03.2026")
    expect(page.get_by_role("button", name="Change", exact=True)).to_be_visible()

    # Nothing in the period can be undone, and the page says so.
    page.get_by_role("link", name="To all activities").click()
    page.get_by_role("button", name="All dates").click()
    page.get_by_role("row").get_by_role("link", name="Mentor").first.click()
    expect(page.get_by_text("The date is in a closed period.")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    page.goto(f"{console.url}/console/period")

    through.fill("")
    why.fill("A visit was forgotten")
    page.get_by_role("button", name="Reopen everything").click()
    expect(state).to_have_text("No period is closed")
    changes = page.get_by_role("listitem")
    expect(changes).to_have_count(2)
    expect(changes.nth(0)).to_contain_text("A visit was forgotten")
    expect(changes.nth(1)).to_contain_text("Closed through 25.03.2026")
    check(page, screenshots / "period.png")
    assert watch.faults == []

    log_out(page)
    log_in(page, console, "Auditor")
    page.goto(f"{console.url}/console/period")
    expect(page.get_by_role("listitem")).to_have_count(2)
    expect(page.get_by_role("textbox")).to_have_count(0)
