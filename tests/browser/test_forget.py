"""An administrator has a mentor forgotten in the browser."""

from pathlib import Path

from playwright.sync_api import BrowserContext, expect
from sqlalchemy import Engine, text

from orchestrator.directory.forgetting import Forgetter
from orchestrator.process.failpoints import failpoints
from orchestrator.storage.people import ForgettingKey
from tests.browser.conftest import Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer


def test_an_administrator_has_a_mentor_forgotten(
    console: ApiServer, engine: Engine, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    log_in(page, console, "Boss")
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("link", name="Forget a mentor").click()
    mentor, state = page.get_by_label("The mentor's id"), page.locator("#state")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Write the id of the mentor.")).to_be_visible()
    expect(mentor).to_be_focused()
    mentor.fill("mentor-1")
    mentor.press("Enter")
    expect(state).to_have_text("Forget Mentor (mentor-1)?")
    expect(state).to_be_focused()
    check(page, screenshots / "forget.png")
    page.get_by_role("button", name="Do not forget").click()
    expect(mentor).to_have_value("mentor-1")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Forget for good").click()
    expect(state).to_have_text("It is asked for, and begins within a minute.")
    expect(state).to_be_focused()
    assert Forgetter(ForgettingKey("k" * 32), failpoints("")).work(engine).people == 1
    page.get_by_role("button", name="Look again").click()
    expect(state).to_have_text("The person is forgotten.")
    assert "mentor-1" not in page.content()
    page.get_by_role("button", name="Forget another mentor").click()
    expect(mentor).to_have_value("")
    mentor.fill("mentor-2")
    mentor.press("Enter")
    page.get_by_role("button", name="Forget for good").click()
    expect(state).to_have_text("It is asked for, and begins within a minute.")
    # As the sweeper leaves a request for an id that nobody has.
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE registration.forgetting SET mentor_id = NULL, done_at = now() WHERE mentor_id = 'mentor-2'")
        )
    page.get_by_role("button", name="Look again").click()
    expect(state).to_have_text("Nobody has this id. Nothing was changed. Check how it is written.")
    page.get_by_role("button", name="Forget another mentor").click()
    expect(mentor).to_have_value("")
    assert watch.faults == []
    assert not [url for url in watch.requests if "mentor-1" in url]
