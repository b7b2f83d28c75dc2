"""Webhooks in a browser: an administrator creates, tests and deletes them and reads the receivers' responses; an auditor only looks."""

from pathlib import Path

from playwright.sync_api import BrowserContext, expect
from sqlalchemy import Engine, text

from orchestrator.process.settings import Settings
from tests.browser.conftest import Watch, log_in, log_out
from tests.browser.test_console import check
from tests.support.console import running_console, with_console
from tests.support.pipeline import standard_directory
from tests.support.receiver import running_receiver
from tests.support.waiting import eventually
from tests.support.webhooks import on_loopback, running_deliverer


def is_switched_off(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.scalar(text("SELECT count(*) FROM orchestrator.webhook WHERE disabled_at IS NOT NULL")))


def test_an_administrator_creates_tests_and_deletes_a_webhook(
    settings: Settings, engine: Engine, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    standard_directory(engine)
    with (
        running_receiver() as receiver,
        running_deliverer(settings, engine),
        running_console(with_console(on_loopback(settings))) as (console, _),
    ):
        page = context.new_page()
        log_in(page, console, "Boss")
        page.get_by_role("link", name="Webhooks").click()
        url, create = page.get_by_label("receiver"), page.get_by_role("button", name="Create")
        url.fill("https://10.0.0.1/in")
        create.click()
        expect(page.get_by_text("Events can't be sent to this address.")).to_be_visible()
        expect(url).to_be_focused()

        url.fill(receiver.url("/200"))
        page.get_by_label("Something was undone").check()
        create.click()
        expect(page.get_by_role("heading", name="Keep this secret now")).to_be_focused()
        expect(page.locator(".secret")).to_contain_text("whsec_")
        page.get_by_role("button", name="I have stored it").click()
        expect(page.get_by_text("whsec_")).to_have_count(0)

        page.get_by_role("button", name="Send a test").click()
        expect(page.get_by_text("Arrived")).to_be_visible()
        page.get_by_text("The response: 200").click()
        expect(page.get_by_text("told 200")).to_be_visible()
        page.get_by_role("button", name="Send again").press("Enter")
        expect(page.get_by_text("2 attempts.")).to_be_visible()
        assert len({request.headers["webhook-id"] for request in receiver.of("/200")}) == 1

        # A receiver that is gone.
        url.fill(receiver.url("/410"))
        create.click()
        page.get_by_role("button", name="I have stored it").click()
        gone = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="/410"))
        other_page = context.new_page()
        other_page.goto(f"{console.url}/console/webhooks")
        shown_there = other_page.get_by_role("listitem").filter(has=other_page.get_by_role("heading", name="/410"))
        shown_there.get_by_role("button", name="Messages").click()
        # The message has ended before its list is read.
        page.route("**/deliveries?*", lambda route: (eventually(lambda: is_switched_off(engine)), route.continue_()), times=1)
        gone.get_by_role("button", name="Send a test").click()
        expect(gone.get_by_text("The receiver responded with the error 410.").last).to_be_visible()
        expect(gone.get_by_text("the receiver said that it is gone for good")).to_be_visible()
        shown_there.get_by_role("button", name="Look for new ones").click()
        expect(shown_there.get_by_text("the receiver said that it is gone for good")).to_be_visible()
        other_page.close()
        check(page, screenshots / "webhooks.png")
        gone.get_by_role("button", name="Switch on").click()
        expect(gone.get_by_text("On", exact=True)).to_be_visible()
        gone.get_by_role("button", name="Delete").click()
        gone.get_by_role("button", name="Delete").click()
        expect(gone).to_have_count(0)
        changes = page.get_by_role("region", name="What was changed").get_by_role("listitem")
        expect(changes.get_by_role("heading")).to_have_text(["Deleted", "Switched on", "Switched off", "Created", "Created"])
        expect(changes.nth(2)).to_contain_text("the system")
        check(page, screenshots / "webhook-changes.png")
        assert watch.faults == []

        log_out(page)
        log_in(page, console, "Auditor")
        page.goto(f"{console.url}/console/webhooks")
        expect(page.get_by_role("heading", name="What was changed")).to_be_visible()
        page.get_by_role("button", name="Messages").click()
        expect(page.get_by_text("Arrived")).to_be_visible()
        expect(page.get_by_role("textbox")).to_have_count(0)
        expect(page.get_by_role("button", name="Delete")).to_have_count(0)
