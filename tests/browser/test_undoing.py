"""What was registered is taken back: a batch is cancelled or undone, a note is erased."""

from pathlib import Path

from playwright.sync_api import BrowserContext, expect

from tests.browser.batches import open_batch, press_until
from tests.browser.conftest import Watch
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.pipeline import Pipeline, item, mentors


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
