"""A person who clicks twice, holds a key down, or presses a button again after a lost response: nothing is done that they did not mean."""

import re

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from schemas.paths import API_PATH, API_ROOT
from tests.browser.conftest import Watch, log_in
from tests.browser.registering import LOSE_THE_RESPONSE, Registering
from tests.support.console import running_console, with_console
from tests.support.pipeline import item, standard_directory
from tests.support.webhooks import on_loopback


def middle(button: Locator) -> tuple[float, float]:
    """Where a person points to click it."""
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def click_twice(page: Page, button: Locator, shown: Locator) -> None:
    """Double-clicks so slowly that the second click comes when the first has already changed the page."""
    x, y = middle(button)
    page.mouse.click(x, y)
    shown.wait_for()
    page.mouse.down(click_count=2)
    page.mouse.up(click_count=2)


def sent(page: Page, end: str) -> list[str]:
    """The addresses with this end to which the page sends something from now on."""
    addresses = list[str]()
    page.on(
        "request",
        lambda request: addresses.append(request.url) if request.method == "POST" and request.url.endswith(end) else None,
    )
    return addresses


def fill_in(page: Page, registering: Registering) -> tuple[Locator, Locator]:
    """Chooses 25 people. Returns the button that asks for the review, and the one that then stands there."""
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    page.get_by_role("button", name="All of Bergen (25)").click()
    return page.get_by_role("button", name="Review 25"), page.get_by_role("button", name="Register 25")


def on_phone(chromium: Browser, context: BrowserContext) -> BrowserContext:
    """A phone, logged in like this context. Its browser does not count taps."""
    phone = chromium.new_context(
        locale="en-GB", viewport={"width": 360, "height": 740}, has_touch=True, storage_state=context.storage_state()
    )
    phone.add_init_script("Object.defineProperty(UIEvent.prototype, 'detail', {get: () => 1})")
    return phone


def test_a_review_is_not_skipped_by_a_second_click_or_a_held_key(
    registering: Registering, chromium: Browser, context: BrowserContext, watch: Watch
) -> None:
    page = context.new_page()
    log_in(page, registering.server)
    submissions = sent(page, API_PATH)

    def is_only_reviewed() -> None:
        page.get_by_role("button", name="Back").click()
        expect(page.get_by_role("button", name="Review 25")).to_be_visible()
        assert submissions == []

    review, register = fill_in(page, registering)
    click_twice(page, review, register)
    is_only_reviewed()

    page.keyboard.down("Control")
    page.keyboard.down("Enter")
    register.wait_for()
    page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    page.keyboard.up("Control")
    is_only_reviewed()

    # Where Enter begins a line, it may be held.
    page.get_by_text("Paste into a field").click()
    field = page.get_by_label("The list: a line for each person")
    field.click()
    page.keyboard.down("Enter")
    page.keyboard.down("Enter")
    page.keyboard.up("Enter")
    expect(field).to_have_value("\n\n")

    # Browsers of phones do not count taps.
    phone = on_phone(chromium, context)
    page = phone.new_page()
    submissions = sent(page, API_PATH)
    page.clock.install()
    review, register = fill_in(page, registering)
    x, y = middle(review)
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    page.touchscreen.tap(x, y)
    expect(review).to_be_disabled()
    page.clock.run_for(100)
    register.wait_for()
    page.touchscreen.tap(x, y)
    page.clock.resume()
    is_only_reviewed()
    phone.close()
    assert registering.batches() == 0

    # Somebody who has seen the review registers.
    page = context.pages[0]
    page.keyboard.press("Control+Enter")
    register = page.get_by_role("button", name="Register 25")
    register.wait_for()
    page.keyboard.press("Control+Enter")
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert registering.batches() == 1
    assert watch.faults == []


def test_a_tap_right_after_a_finger_has_scrolled_counts(
    registering: Registering, chromium: Browser, context: BrowserContext
) -> None:
    log_in(context.new_page(), registering.server)
    phone = on_phone(chromium, context)
    page = phone.new_page()
    page.clock.install()
    review, register = fill_in(page, registering)
    x, y = middle(review)
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    page.evaluate("window.clicks = 0; addEventListener('click', () => { window.clicks += 1; })")
    fingers = phone.new_cdp_session(page)
    # Sideways: nothing moves on, so the tap is not taken for one that stops it.
    fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x + 60, "y": y}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert page.evaluate("window.clicks") == 0
    page.clock.run_for(100)
    page.touchscreen.tap(x, y)
    page.clock.run_for(100)
    register.wait_for()
    phone.close()


def test_pages_are_turned_as_fast_as_somebody_clicks(
    registering: Registering, chromium: Browser, context: BrowserContext
) -> None:
    page = context.new_page()
    log_in(page, registering.server)

    def open_list(page: Page) -> None:
        page.goto(f"{registering.url}/console/new")
        page.get_by_text("Paste into a field").click()
        page.get_by_label("The list: a line for each person").fill(
            "\n".join(["mentor;type;duration", *(f"nobody-{number};talk;60" for number in range(301))])
        )
        page.get_by_role("button", name="Use the list").click()
        expect(page.get_by_text(re.compile("^1.100 of 301"))).to_be_visible()

    open_list(page)
    following = page.get_by_role("button", name="Next")
    for click, shown in ((1, "101.200 of 301"), (2, "201.300 of 301")):
        page.mouse.move(*middle(following))
        page.mouse.down(click_count=click)
        page.mouse.up(click_count=click)
        expect(page.get_by_text(re.compile(shown))).to_be_visible()

    phone = on_phone(chromium, context)
    page = phone.new_page()
    page.clock.install()
    open_list(page)
    following = page.get_by_role("button", name="Next")
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    for shown in ("101.200 of 301", "201.300 of 301"):
        page.touchscreen.tap(*middle(following))
        expect(page.get_by_text(re.compile(shown))).to_be_visible()
    phone.close()


def test_a_double_click_dismisses_one_batch(registering: Registering, context: BrowserContext) -> None:
    for _ in range(2):
        registering.pipeline.submit([item("nobody", kind="talk")], label="Monday group")
    registering.registered()
    page = context.new_page()
    log_in(page, registering.server)
    dismissals = sent(page, "/dismiss")
    needed = page.get_by_role("region", name="Needs you").get_by_role("listitem")
    expect(needed).to_have_count(2)
    click_twice(page, needed.first.get_by_role("button"), page.get_by_role("status").filter(has_text="no longer needs you"))
    page.evaluate("new Promise((resolve) => setTimeout(resolve))")
    expect(needed).to_have_count(1)
    assert len(dismissals) == 1


def test_a_button_that_is_pressed_again_after_a_lost_response_does_nothing_twice(
    settings: Settings, engine: Engine, context: BrowserContext
) -> None:
    standard_directory(engine)
    with running_console(with_console(on_loopback(settings))) as (console, _):
        page = context.new_page()
        log_in(page, console, "Boss")
        page.goto(f"{console.url}/console/webhooks")
        lost = page.get_by_role("alert").filter(has_text="can't be reached")

        # A letter too many meanwhile makes no second webhook.
        url, create = page.get_by_label("receiver"), page.get_by_role("button", name="Create")
        url.fill("http://127.0.0.1:9/in")
        page.evaluate(LOSE_THE_RESPONSE, f"{API_ROOT}/webhooks")
        create.click()
        lost.wait_for()
        page.evaluate("window.fetch = window.fetchBefore")
        url.fill("http://127.0.0.1:9/into")
        url.fill("http://127.0.0.1:9/in")
        create.click()
        page.get_by_role("button", name="I have stored it").click()
        expect(page.get_by_role("heading", name="http://127.0.0.1:9/in")).to_have_count(1)

        rotate = page.get_by_role("button", name=re.compile("New secret"))
        with page.expect_response(re.compile(f"{API_ROOT}/webhooks$")) as listed:
            page.reload()
        webhook_id = listed.value.json()["data"][0]["webhook_id"]
        page.evaluate(LOSE_THE_RESPONSE, f"{API_ROOT}/webhooks/{webhook_id}/rotate-secret")
        rotate.click()
        lost.wait_for()
        page.evaluate("window.fetch = window.fetchBefore")
        rotate.click()
        expect(page.locator(".secret")).to_contain_text("whsec_")
        changes = page.get_by_role("region", name="What was changed").get_by_role("listitem")
        expect(changes).to_have_count(2)
        # The next time it is another intention.
        rotate.click()
        expect(changes).to_have_count(3)


def test_a_group_that_is_saved_again_after_a_lost_response_is_stored_once(
    registering: Registering, context: BrowserContext
) -> None:
    page = context.new_page()
    log_in(page, registering.server)
    fill_in(page, registering)
    page.get_by_text("Save as a regular group").click()
    page.get_by_label("Name of the group").fill("Tuesdays")
    page.evaluate(LOSE_THE_RESPONSE, f"{API_ROOT}/templates")
    save = page.get_by_role("button", name="Save the group")
    save.click()
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    page.evaluate("window.fetch = window.fetchBefore")
    save.click()
    expect(page.get_by_text("Tuesdays is saved")).to_be_visible()
    page.goto(f"{registering.url}/console/templates")
    expect(page.get_by_role("heading", name="Tuesdays")).to_have_count(1)
