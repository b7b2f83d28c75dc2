"""Work by keyboard alone, and where the focus is after each step. Registering, correcting and undoing are in the tests of their pages."""

from playwright.sync_api import BrowserContext, expect

from orchestrator.batches.model import Role
from schemas.paths import API_PATH
from tests.browser.batches import open_batch, press_until
from tests.browser.conftest import Watch, log_in
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR, DAY


def submit(console: ApiServer, *mentors: str) -> str:
    """Submits a batch that nobody handles, so it runs until it is cancelled."""
    items = [{"mentor_id": each, "activity_type": "visit", "activity_date": f"{DAY}", "duration_minutes": 60} for each in mentors]
    with console.client(Role.COORDINATOR, sub=COORDINATOR) as client:
        response = client.post(API_PATH, json={"coordinator_id": COORDINATOR, "items": items})
    assert response.status_code == 202, response.text
    return str(response.json()["batch_id"])


def test_a_running_batch_is_cancelled_by_keyboard(console: ApiServer, context: BrowserContext, watch: Watch) -> None:
    batch_id = submit(console, "mentor-8", "mentor-9")
    page = context.new_page()
    open_batch(page, console, batch_id)
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    press_until(page, cancel)
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Cancel this registration?")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(cancel).to_be_focused()
    page.keyboard.press("Enter")
    press_until(page, page.get_by_label("Why (optional)"))
    page.keyboard.type("The week was wrong")
    page.keyboard.press("Control+Enter")
    expect(dialog).to_be_hidden()
    expect(page.locator("#outcome")).to_be_focused()
    expect(page.locator("#outcome")).to_have_text("Cancelled: 0 of 2 registered, 2 stopped.")
    # The way on is below it.
    press_until(page, page.get_by_role("link", name="Register again"), "Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", level=1, name="Review").wait_for()
    assert watch.faults == []


def test_what_needs_nobody_any_more_is_dismissed_by_keyboard(console: ApiServer, context: BrowserContext, watch: Watch) -> None:
    page = context.new_page()
    log_in(page, console)
    press_until(page, page.get_by_role("button", name="Done with it: Monday group"))
    page.keyboard.press("Enter")
    # The button is gone, so the focus is where the page begins.
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("status").filter(has_text="Monday group no longer needs you.")).to_have_count(1)
    expect(page.get_by_role("heading", name="Needs you")).to_have_count(0)
    assert watch.faults == []
