"""What a person has left, a dialog, a question or a form, is not done later: not after an overload, nor when the network is back."""

import re
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Route, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.browser.conftest import Held, log_in, problem, respond
from tests.browser.registering import Registering
from tests.browser.test_console import check
from tests.browser.test_twice import fill_in, middle, sent
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.pipeline import standard_directory
from tests.support.webhooks import on_loopback


class Failing:
    """The requests with this method and end fail while `is_failing`, and are counted."""

    def __init__(self, page: Page, method: str, end: str) -> None:
        self.method = method
        self.count = 0
        self.is_lost = False
        """Whether no response comes, instead of an overload."""
        page.route(re.compile(end), self._take)

    def _take(self, route: Route) -> None:
        if route.request.method != self.method:
            route.fallback()
            return
        self.count += 1
        if self.is_lost:
            route.abort()
        else:
            route.fulfill(status=503, json=problem("overloaded", 503), headers={"Retry-After": "60"})


def wait_long(page: Page) -> None:
    """Lets the time pass in which an overload is waited out, and the network come back."""
    page.clock.run_for(90_000)
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate("new Promise((resolve) => setTimeout(resolve))")


def test_an_undo_is_not_done_after_its_dialog_was_closed(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    page.clock.install()
    log_in(page, console)
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("button", name="All dates").click()
    page.locator(".narrow-rows tbody a").first.click()
    undo = Failing(page, "POST", "/revoke$")
    dialog = page.get_by_role("dialog")

    def ask() -> None:
        page.get_by_role("button", name="Undo this activity").click()
        dialog.get_by_label("Why?").fill("Wrong date")
        dialog.get_by_role("button", name="Undo this activity").click()
        expect(dialog.get_by_role("alert")).to_be_visible()

    ask()
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    wait_long(page)
    assert undo.count == 1

    undo.is_lost = True
    ask()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    wait_long(page)
    assert undo.count == 2

    # Another reason is another wish.
    undo.is_lost = False
    ask()
    dialog.get_by_label("Why?").fill("Wrong person")
    expect(dialog.get_by_role("alert")).to_have_count(0)
    wait_long(page)
    assert undo.count == 3

    # As long as it is open and unchanged, the same is asked again.
    undo.is_lost = True
    dialog.get_by_role("button", name="Leave it").click()
    expect(dialog).to_be_hidden()
    ask()
    wait_long(page)
    expect(dialog.get_by_role("alert")).to_be_visible()
    assert undo.count == 5


def hold(page: Page, method: str, end: str) -> list[Route]:
    """Holds the first request with this method and end."""
    held = list[Route]()

    def take(route: Route) -> None:
        if route.request.method == method and held == []:
            held.append(route)
        else:
            route.fallback()

    page.route(re.compile(end), take)
    return held


def fail(held: list[Route]) -> None:
    """Lets the request fail that is held."""
    held[0].fulfill(status=502, json=problem("internal_error", 502))


def test_a_dialog_stays_while_its_request_runs(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    log_in(page, console)
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("button", name="All dates").click()
    page.locator(".narrow-rows tbody a").first.click()
    dialog = page.get_by_role("dialog")
    undo = dialog.get_by_role("button", name="Undo this activity")
    page.get_by_role("button", name="Undo this activity").click()
    dialog.get_by_label("Why?").fill("Wrong date")
    held = hold(page, "POST", "/revoke$")
    with page.expect_request(re.compile("/revoke$")):
        undo.click()

    # Browsers close a dialog at the second Escape.
    for _ in range(2):
        page.keyboard.press("Escape")
    expect(undo).to_be_focused()
    fail(held)
    expect(dialog.get_by_role("alert")).to_contain_text("The service failed.")
    expect(dialog.get_by_label("Why?")).to_have_value("Wrong date")

    # Nothing runs any more, so Escape closes it.
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Undo this activity")).to_be_focused()

    # One that succeeds closes it.
    page.get_by_role("button", name="Undo this activity").click()
    dialog.get_by_label("Why?").fill("Wrong date")
    undo.click()
    expect(page.get_by_text("The activity is undone.")).to_be_visible()
    expect(dialog).to_be_hidden()


def test_an_undo_during_which_the_session_ends_is_done_after_the_next_login(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    log_in(page, console)
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("button", name="All dates").click()
    page.locator(".narrow-rows tbody a").first.click()
    dialog = page.get_by_role("dialog")
    undone = sent(page, "/revoke")
    page.get_by_role("button", name="Undo this activity").click()
    dialog.get_by_label("Why?").fill("Wrong date")

    def lose_the_session() -> None:
        respond(page, "/revoke", 401, problem("session_ended", 401))
        dialog.get_by_role("button", name="Undo this activity").click()
        expect(page.get_by_text("You are logged out")).to_be_visible()
        expect(dialog).to_be_hidden()

    # The dialog is back with its page, and with what was typed.
    lose_the_session()
    respond(page, "/revoke", 502, problem("internal_error", 502))
    page.get_by_role("button", name="I have logged in, continue").click()
    expect(dialog.get_by_label("Why?")).to_have_value("Wrong date")
    expect(dialog.get_by_role("alert")).to_contain_text("The service failed.")
    assert len(undone) == 2

    lose_the_session()
    page.get_by_role("button", name="I have logged in, continue").click()
    expect(page.get_by_text("The activity is undone.")).to_be_visible()
    expect(dialog).to_be_hidden()
    assert len(undone) == 4


def test_a_correction_that_is_changed_meanwhile_is_not_sent_as_it_was(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    page.clock.install()
    log_in(page, console)
    page.get_by_role("link", name="Correct: Monday group").click()
    retry = Failing(page, "POST", "/retry$")
    minutes = page.get_by_role("group", name="nobody").get_by_label("Duration")
    minutes.fill("30")
    page.get_by_role("button", name="Retry this 1").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Tries again")
    minutes.fill("45")
    expect(alert).to_have_count(0)
    wait_long(page)
    assert retry.count == 1


def test_nothing_is_deleted_forgotten_or_stored_after_its_question_was_left(
    settings: Settings, engine: Engine, context: BrowserContext
) -> None:
    standard_directory(engine)
    with running_console(with_console(on_loopback(settings))) as (console, _):
        page = context.new_page()
        page.clock.install()
        log_in(page, console, "Boss")

        page.goto(f"{console.url}/console/webhooks")
        page.get_by_label("receiver").fill("http://127.0.0.1:9/in")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("button", name="I have stored it").click()
        deletion = Failing(page, "DELETE", "/webhooks/")
        page.get_by_role("button", name=re.compile("Delete")).click()
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("alert")).to_contain_text("Tries again")
        page.get_by_role("button", name="Keep").click()
        expect(page.get_by_role("alert")).to_have_count(0)
        wait_long(page)
        assert deletion.count == 1

        page.goto(f"{console.url}/console/forget")
        forgetting = Failing(page, "POST", "/forgettings$")
        page.get_by_label("mentor").fill("mentor-1")
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Forget for good").click()
        expect(page.get_by_role("alert")).to_contain_text("Tries again")
        page.get_by_role("button", name="Do not forget").click()
        wait_long(page)
        expect(page.get_by_label("mentor")).to_be_visible()
        assert forgetting.count == 1


def test_no_template_is_stored_or_deleted_after_its_form_was_left(
    registering: Registering, context: BrowserContext, screenshots: Path
) -> None:
    page = context.new_page()
    page.clock.install()
    log_in(page, registering.server)
    page.goto(f"{registering.url}/console/templates")
    alert = page.get_by_role("alert")

    def fill_in_template() -> None:
        page.get_by_role("button", name="New regular group").click()
        page.get_by_label("Name of the group").fill("Thursdays")
        page.get_by_text("Course").click()
        page.get_by_role("button", name="All of Bergen (25)").click()
        page.get_by_role("button", name="Save the group").click()

    fill_in_template()
    expect(page.get_by_text("Thursdays is saved.")).to_be_visible()
    storing = Failing(page, "POST", "/templates$")
    fill_in_template()
    expect(alert).to_contain_text("Tries again")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="New regular group")).to_be_visible()
    wait_long(page)
    assert storing.count == 1

    deletion = Failing(page, "DELETE", "/templates/")
    page.get_by_role("button", name="Delete: Thursdays").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(alert).to_contain_text("Tries again")
    check(page, screenshots / "template-question.png")
    page.get_by_role("button", name="Keep").click()
    expect(alert).to_have_count(0)
    expect(page.get_by_role("button", name="Delete: Thursdays")).to_be_focused()
    wait_long(page)
    assert deletion.count == 1


def test_a_deletion_that_fails_says_so_whatever_was_pressed_meanwhile(registering: Registering, context: BrowserContext) -> None:
    page = context.new_page()
    log_in(page, registering.server)
    page.goto(f"{registering.url}/console/templates")
    for name in ("Mondays", "Thursdays"):
        page.get_by_role("button", name="New regular group").click()
        page.get_by_label("Name of the group").fill(name)
        page.get_by_text("Course").click()
        page.get_by_role("button", name="All of Bergen (25)").click()
        page.get_by_role("button", name="Save the group").click()
        expect(page.get_by_text(f"{name} is saved.")).to_be_visible()
    mondays = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="Mondays"))
    delete = mondays.get_by_role("button", name="Delete")
    change, delete_other = (
        page.get_by_role("button", name="Change: Thursdays"),
        page.get_by_role("button", name="Delete: Thursdays"),
    )

    # The form is about to open, so nothing is deleted.
    reading = Held(page, re.compile("/templates/[^/]+$"))
    change.click()
    delete.click()
    delete.click()
    reading.let_go()
    expect(page.get_by_role("heading", name="Change a regular group")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    mondays.get_by_role("button", name="Keep").click()

    held = hold(page, "DELETE", "/templates/")
    delete.click()
    with page.expect_request(re.compile("/templates/")) as asked:
        delete.click()
    assert asked.value.method == "DELETE"
    for button in (change, delete_other, page.get_by_role("button", name="New regular group")):
        page.mouse.click(*middle(button))
    expect(delete_other).to_be_visible()
    fail(held)
    expect(mondays.get_by_role("alert")).to_contain_text("The service failed.")

    mondays.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Mondays is deleted.")).to_be_visible()
    expect(change).to_be_visible()


def test_nothing_is_registered_after_the_review_was_left(registering: Registering, context: BrowserContext) -> None:
    page = context.new_page()
    page.clock.install()
    log_in(page, registering.server)
    review, register = fill_in(page, registering)
    submission = Failing(page, "POST", f"{API_PATH}$")
    held = list[Route]()
    page.route(re.compile(f"{API_PATH}$"), lambda route: held.append(route), times=1)
    review.click()
    with page.expect_request(re.compile(f"{API_PATH}$")):
        register.click()
    # It is under way, and fails after the person has gone back.
    page.get_by_role("button", name="Back").click()
    expect(page.get_by_text("25 chosen")).to_be_visible()
    held[0].fallback()
    expect(page.get_by_role("alert")).to_be_visible()
    wait_long(page)
    assert submission.count == 1
