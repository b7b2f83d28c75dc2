"""The main job in a browser: registering mentors for the first time, again, and from a spreadsheet; by mouse, and by keyboard alone."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect
from sqlalchemy import Engine, text

from orchestrator.batches.model import Idempotency, TemplateValues, TemplateView
from orchestrator.batches.templates import create_template
from orchestrator.process.settings import Settings
from orchestrator.storage.templates import PostgresTemplates
from schemas.ids import new_batch_id
from schemas.paths import API_PATH, API_ROOT
from tests.browser.conftest import Watch, log_in, photograph
from tests.browser.registering import BERGEN, NAMES, Effort, Registering, registering_console
from tests.browser.test_console import check
from tests.support.pipeline import COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, item


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
    photograph(page, screenshots / "new.png")
    page.get_by_role("button", name="Review 25").click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    photograph(page, screenshots / "review.png")
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
    yesterday = today - timedelta(days=1)
    days = [yesterday - timedelta(weeks=weeks) for weeks in (2, 1)]
    for day, members in zip(days, (BERGEN, BERGEN[:24]), strict=True):
        registering.pipeline.submit([item(mentor, day=day, kind="talk") for mentor in members], label=f"Tuesdays, {day:%d.%m.%Y}")
    registering.pipeline.submit([item(mentor, day=today, kind="course") for mentor in BERGEN[:3]])
    before = registering.registered()
    page.reload()
    groups = page.get_by_role("region", name="Register again").get_by_role("link")
    expect(groups).to_have_count(2)
    expect(groups.nth(1)).to_contain_text("Peer talk, 24 people")
    expect(groups.nth(1)).to_contain_text(f"now {yesterday:%d.%m.%Y}")
    photograph(page, screenshots / "home-again.png")
    effort.restart()
    groups.nth(1).click()
    page.get_by_label("Bjørn Haugen").click()
    page.get_by_role("button", name="Register 23").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert (effort.clicks, effort.keys) == (3, 0)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Tuesdays, {yesterday:%d.%m.%Y}")
    assert registering.registered() == before
    assert registering.mentors_on(yesterday, "talk") == set(BERGEN[:24]) - {"m-02"}

    # A batch with several types is filled in as a table, without its date.
    mixed = registering.pipeline.submit([item("m-01", day=days[0], kind="course"), item("m-02", day=days[1], kind="visit")])
    page.goto(f"{registering.url}/console/new?again={mixed}")
    expect(page.get_by_label("Activity, row 1")).to_have_value("Course")
    expect(page.get_by_label("Name, row 2")).to_have_value("Bjørn Haugen")
    expect(page.get_by_role("button", name="Review 2")).to_be_visible()


def test_many_groups_take_few_requests(registering: Registering, page: Page) -> None:
    today = date.fromisoformat(registering.today())
    for number in range(12):
        group = TemplateValues(f"Group {number}", BERGEN[number : number + 2], "talk", 60, number % 7 + 1)
        view = TemplateView(new_batch_id(), ORGANIZATION, COORDINATOR, group, 1, datetime(1970, 1, 1, tzinfo=UTC))
        registering.pipeline.call_with(
            PostgresTemplates, create_template, COORDINATOR_ACTOR, view, Idempotency(f"group-{number}", b"")
        )
        registering.pipeline.submit(
            [item(each, kind="talk") for each in group.mentor_ids], label=f"Group {number}, {today:%d.%m.%Y}"
        )
    for number in range(6):
        registering.pipeline.submit(
            [item("m-20", kind="course", day=today - timedelta(days=number))], label=f"Choir, {today:%d.%m.%Y}"
        )
    registering.pipeline.drain()
    read: list[str] = []
    page.on(
        "request", lambda request: read.append(request.url) if re.search(f"{API_PATH}/[0-9a-f-]{{36}}", request.url) else None
    )
    page.reload()
    cards = page.get_by_role("region", name="Register again").get_by_role("listitem")
    expect(cards).to_have_count(10)
    # Of many templates, those of the last weekdays. Their batches say by their names that they are nothing new.
    expect(cards.first).to_contain_text(f"now {today:%d.%m.%Y}")
    expect(cards.last).to_contain_text("Choir")
    expect(page.get_by_role("link", name="See all 12 regular groups")).to_be_visible()
    assert len(read) == 4


def test_one_person_has_a_duration_of_their_own(registering: Registering, page: Page) -> None:
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    page.get_by_role("button", name="All of Bergen (25)").click()
    page.get_by_text("Exceptions for individual people").click()
    page.get_by_label("Other duration or a note for").select_option("Bjørn Haugen")
    own = page.get_by_role("group", name="Bjørn Haugen").get_by_label("Duration")
    expect(own).to_be_focused()
    own.fill("30")
    page.get_by_role("button", name="Review 25").click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    page.get_by_role("button", name="Register 25").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    expect(page.get_by_role("row", name="Bjørn Haugen")).to_contain_text("30 min")
    expect(page.get_by_role("row", name="Astrid Moe")).to_contain_text("1 h")


def test_an_exception_among_many_is_named_rather_than_listed(registering: Registering, page: Page) -> None:
    with registering.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id)"
                " SELECT :org, 'x-' || n, 'Extra ' || n, 'bergen' FROM generate_series(1, 200) n"
            ),
            {"org": ORGANIZATION},
        )
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    page.get_by_role("button", name="All of Bergen (225)").click()
    page.get_by_text("Exceptions for individual people").click()
    who = page.get_by_label("Other duration or a note for")
    who.fill("Nobody Atall")
    page.keyboard.press("Enter")
    expect(page.get_by_text("None of those who are chosen has this name.")).to_be_visible()
    who.fill("bjorn haugen")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Bjørn Haugen").get_by_label("Duration")).to_be_focused()
    expect(who).to_have_value("")


def test_a_person_who_is_left_out_while_the_review_is_made_is_not_registered(registering: Registering, page: Page) -> None:
    before = registering.pipeline.submit([item(mentor, kind="visit") for mentor in BERGEN[:3]])
    reviews: list[Route] = []
    page.route(re.compile("/preview"), lambda route: reviews.append(route), times=1)
    with page.expect_request(re.compile("/preview")):
        page.goto(f"{registering.url}/console/new?again={before}")
    page.get_by_label("Bjørn Haugen").click()
    reviews[0].continue_()
    expect(page.get_by_role("button", name="Register 2")).to_be_visible()
    expect(page.get_by_label("Bjørn Haugen")).to_have_count(0)


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
    # Tab goes across the link to the content, then the first type, the date and its chips, the duration, the name, the note, the file, the
    # field for a list and the chapter.
    press("Tab", "Enter", "Tab", "Space", *["Tab"] * 9, "Space", "Control+Enter")
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    page.keyboard.press("Control+Enter")
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert effort.clicks == 0
    assert effort.keys <= 25
    assert registering.registered() == set(BERGEN)


PASTE = """(text) => {
    const data = new DataTransfer();
    data.setData("text/plain", text);
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
}"""


def test_pasted_from_a_spreadsheet_takes_three_clicks_and_mistakes_are_corrected_in_place(
    registering: Registering, page: Page, effort: Effort, screenshots: Path
) -> None:
    effort.restart()
    page.get_by_role("navigation").get_by_role("link", name="New registration").click()
    page.get_by_label("Search by name").wait_for()
    rows = "".join(f"{name}\tPeer talk\t25.03.2026\t1,5 h\n" for name in NAMES)
    page.evaluate(PASTE, f"Navn\tAktivitet\tDato\tMinutter\n{rows}")
    expect(page.get_by_text("25 rows. All can be read.")).to_be_visible()
    page.get_by_role("button", name="Review 25").click()
    page.get_by_role("button", name="Register 25").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    # Besides, somebody presses Ctrl+V.
    assert effort.clicks == 3
    assert registering.registered() == set(BERGEN)

    # A file with mistakes: they come first, each at its cell.
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("Search by name").wait_for()
    content = (
        "Name;Type;Date\n"
        "Astrid Moe;course;25.03.2026\n"
        "bjorn haugen;course;25/03/2026\n"
        "Nobody Known;course;25.03.2026\n"
        "Dag Holm;course;25.03.2026\n"
    )
    page.locator("#file").set_input_files({"name": "list.csv", "mimeType": "text/csv", "buffer": content.encode()})
    expect(page.get_by_text("4 rows, of which 2 must be corrected")).to_be_visible()
    photograph(page, screenshots / "rows.png")
    numbers = page.locator("table.rows tbody th")
    expect(numbers).to_have_text(["3", "4", "2", "5"])
    expect(page.get_by_label("Date, row 3")).to_have_accessible_description(re.compile("Slashes"))
    page.get_by_label("Date, row 3").fill("25.03.2026")
    page.get_by_role("button", name="Remove row 4").click()
    page.get_by_label("Duration").fill("45")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("2 will be registered")).to_be_visible()
    expect(page.get_by_text("1 cannot be registered")).to_be_visible()
    page.get_by_role("button", name="Register 2").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    registering.registered()
    assert registering.mentors_on(date(2026, 3, 25), "course") == {"m-01", "m-02"}

    # A list that only says who chooses those people.
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("Search by name").wait_for()
    page.evaluate(PASTE, "ase krogh\nØystein By\n")
    expect(page.get_by_text("2 from the list are chosen.")).to_be_visible()
    expect(page.get_by_label("Åse Krogh")).to_be_checked()


def test_a_duplicate_says_who_registered_it_and_is_left_out_unless_insisted_on(
    registering: Registering, page: Page, screenshots: Path
) -> None:
    today = date.fromisoformat(registering.today())
    registering.pipeline.submit([item(mentor, day=today, kind="talk") for mentor in BERGEN[:2]])
    registering.registered()
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    for name in NAMES[:4]:
        page.get_by_label(name).check()
    page.get_by_role("button", name="Review 4").click()
    expect(page.get_by_text("2 are already registered")).to_be_visible()
    expect(page.get_by_text(re.compile("Registered by Coordinator")).first).to_be_visible()
    page.get_by_label("Astrid Moe").check()
    photograph(page, screenshots / "review-duplicates.png")

    # Meanwhile somebody else registers one of them: the difference is shown, and nothing is submitted.
    registering.pipeline.submit([item(BERGEN[2], day=today, kind="talk")])
    registering.registered()
    page.get_by_role("button", name="Register 3").click()
    changed = page.get_by_role("alert").filter(has_text="Something has changed")
    expect(changed).to_contain_text("Cecilie Vik")
    expect(changed).to_be_focused()
    assert registering.batches() == 2
    page.get_by_role("button", name="Register 2").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    registering.registered()
    assert registering.activities() == 5

    # The same while the plan still holds for what is sent: then the API refuses the submission (412).
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    page.get_by_label("Frode Lie").check()
    page.get_by_label("Grete Dahl").check()
    page.get_by_role("button", name="Review 2").click()
    expect(page.get_by_text("2 will be registered")).to_be_visible()
    registering.pipeline.submit([item(BERGEN[4], day=today, kind="talk")])
    registering.registered()
    with page.expect_response(lambda response: response.status == 412):
        page.get_by_role("button", name="Register 2").click()
    expect(changed).to_contain_text("Frode Lie")
    page.get_by_role("button", name="Register 1").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    registering.registered()
    assert registering.activities() == 7


# The server gets the submission, but the page never gets its response.
LOSE_THE_RESPONSE = """(path) => {
    window.fetchBefore = window.fetch;
    window.fetch = async (address, options) => {
        const response = await window.fetchBefore(address, options);
        if (options?.method === "POST" && address === path) {
            throw new TypeError("lost");
        }
        return response;
    };
}"""


def test_a_lost_connection_and_a_reload_in_the_middle_give_one_batch(registering: Registering, page: Page) -> None:
    def filled_in() -> None:
        page.get_by_text("Peer talk").click()
        page.get_by_role("button", name="All of Bergen (25)").click()
        page.get_by_role("button", name="Review 25").click()

    page.goto(f"{registering.url}/console/new")
    filled_in()
    page.evaluate(LOSE_THE_RESPONSE, API_PATH)
    page.get_by_role("button", name="Register 25").click()
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    assert registering.batches() == 1
    page.evaluate("window.fetch = window.fetchBefore")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert registering.batches() == 1
    assert registering.registered() == set(BERGEN)

    # Only the key is kept, and only until the response has come.
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Course").click()
    page.get_by_label("Astrid Moe").check()
    page.get_by_role("button", name="Review 1").click()
    page.evaluate(LOSE_THE_RESPONSE, API_PATH)
    page.get_by_role("button", name="Register 1").click()
    expect(page.get_by_role("alert")).to_contain_text("can't be reached")
    kept = page.evaluate("Object.values(sessionStorage)")
    assert [set(json.loads(value)) for value in kept] == [{"key", "after"}]
    page.reload()
    expect(page.get_by_text("has arrived")).to_be_visible()
    assert page.evaluate("Object.keys(sessionStorage)") == []
    assert registering.batches() == 2


def test_a_template_is_made_changed_used_and_deleted(registering: Registering, page: Page, screenshots: Path) -> None:
    page.goto(f"{registering.url}/console/templates")
    expect(page.get_by_text("The groups that you register often")).to_be_visible()
    page.get_by_role("button", name="New regular group").click()
    page.get_by_role("button", name="Save the group").click()
    expect(page.get_by_role("group", name="Correct this first").get_by_role("link")).to_have_count(4)
    page.get_by_label("Name of the group").fill("Thursdays")
    page.get_by_text("Course").click()
    page.get_by_role("button", name="All of Bergen (25)").click()
    page.get_by_label("Weekday").select_option("Thursday")
    page.get_by_role("button", name="Save the group").click()
    expect(page.get_by_text("Thursdays is saved.")).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    photograph(page, screenshots / "templates.png")

    page.get_by_role("button", name="Change: Thursdays").click()
    page.get_by_label("Astrid Moe").uncheck()
    page.get_by_role("button", name="Save the group").click()
    expect(page.get_by_text("Course, 24 people, 1 h 30 min")).to_be_visible()

    page.get_by_role("link", name="Register: Thursdays").click()
    expect(page.get_by_text("24 will be registered")).to_be_visible()
    expect(page.locator("#sentence")).to_contain_text("Course, Thursday")
    page.get_by_role("button", name="Register 24").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")

    # The first page shows the group once, although there are a template and a batch of it.
    page.goto(f"{registering.url}/console/")
    expect(page.get_by_role("region", name="Register again").get_by_role("link")).to_have_text(
        [re.compile("Thursdays.*24 people", re.DOTALL)]
    )

    page.goto(f"{registering.url}/console/templates")
    page.get_by_role("button", name="Delete: Thursdays").click()
    page.get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Delete: Thursdays").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Thursdays is deleted.")).to_be_visible()
    expect(page.get_by_text("The groups that you register often")).to_be_visible()
    assert registering.registered() == set(BERGEN[1:])


def test_what_needs_somebody_can_be_done_with(registering: Registering, page: Page) -> None:
    registering.pipeline.submit([item("nobody", kind="talk")], label="Monday group")
    registering.registered()
    page.reload()
    needed = page.get_by_role("region", name="Needs you")
    expect(needed).to_contain_text("Monday group")
    page.get_by_role("button", name="Done with it: Monday group").click()
    expect(needed).to_have_count(0)
    expect(page.get_by_role("heading", level=1)).to_be_focused()
    expect(page.get_by_role("status").filter(has_text="Monday group no longer needs you.")).to_have_count(1)


def respond(page: Page, path: str, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    """The next request for a path gets this response."""

    def fulfill(route: Route) -> None:
        route.fulfill(status=status, json=body, headers=headers or {})

    page.route(re.compile(re.escape(path) + r"(\?.*)?$"), fulfill, times=1)


def problem(code: str, status: int, **others: Any) -> dict[str, Any]:
    return {"type": f"urn:bulk-registration:problem:{code}", "title": code, "status": status, "code": code, **others}


def test_whatever_the_server_says_the_form_is_kept_and_names_the_way_out(
    registering: Registering, page: Page, context: BrowserContext, screenshots: Path
) -> None:
    def lose(route: Route) -> None:
        route.abort()

    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    # A request that the browser breaks off, as it does when the network changes, is repeated. A page without its script is loaded once more.
    page.route(re.compile("/directory/activity-types"), lose, times=1)
    page.route(re.compile("/static/app.js"), lose, times=1)
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("Search by name").wait_for()
    # A page that takes long says so.
    chapters = re.compile("/directory/chapters")
    page.route(chapters, hold, times=1)
    with page.expect_request(chapters):
        page.goto(f"{registering.url}/console/new")
    expect(page.get_by_text("Loading …")).to_be_visible()
    held[0].continue_()
    page.get_by_label("Search by name").wait_for()
    expect(page.get_by_label(re.compile("Dag Holm"))).to_be_disabled()
    expect(page.get_by_text("not active after 31.12.2020")).to_be_visible()

    # All mistakes at once, each with a link to its field.
    page.get_by_label("Date").fill("25/03/2026")
    expect(page.get_by_label("Date")).to_have_accessible_description(re.compile("Slashes"))
    page.get_by_role("button", name="Review").click()
    summary = page.get_by_role("group", name="Correct this first")
    expect(summary).to_be_focused()
    expect(summary.get_by_role("link")).to_have_text([re.compile(each) for each in ("Activity", "Date", "Duration", "Who")])
    check(page, screenshots / "new-mistakes.png")
    summary.get_by_role("link", name=re.compile("Date")).click()
    expect(page.get_by_label("Date")).to_be_focused()
    page.get_by_role("button", name="Yesterday").click()
    page.get_by_text("Peer talk").click()
    page.get_by_label("Search by name").fill("aerlig")
    page.get_by_label("Search by name").press("Enter")
    expect(page.get_by_text("1 chosen")).to_be_visible()
    review = page.get_by_role("button", name="Review 1")

    # A value that only the server refuses.
    refused = {"pointer": "/items/0/duration_minutes", "code": "out_of_range", "detail": "must be at most 50"}
    respond(page, f"{API_PATH}/preview", 422, problem("invalid_request", 422, errors=[refused]))
    review.click()
    expect(summary.get_by_role("link")).to_have_text([re.compile("Duration: Is outside of what is allowed")])

    # An overload passes by itself.
    respond(page, f"{API_PATH}/preview", 503, problem("overloaded", 503), {"Retry-After": "1"})
    review.click()
    expect(page.get_by_text("1 will be registered")).to_be_visible()
    page.get_by_role("button", name="Back").click()

    # A session that ends hides the form, and the same person's next login brings it back.
    respond(page, f"{API_PATH}/preview", 401, problem("session_ended", 401))
    review.click()
    expect(page.get_by_text("You are logged out")).to_be_visible()
    expect(page.get_by_label("Search by name")).to_be_hidden()
    page.get_by_role("button", name="I have logged in, continue").click()
    expect(page.get_by_text("1 will be registered")).to_be_visible()
    page.get_by_role("button", name="Back").click()

    # Without a preview nothing is predicted, and the submission has no plan.
    respond(page, f"{API_PATH}/preview", 501, problem("preview_unavailable", 501))
    review.click()
    expect(page.get_by_text("1 will be sent")).to_be_visible()
    with page.expect_request(lambda request: request.method == "POST" and request.url.endswith(API_PATH)) as submission:
        page.get_by_role("button", name="Register 1").click()
    assert "plan" not in json.loads(submission.value.post_data or "")
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert registering.registered() == {"m-23"}

    # A list that is too long names both numbers.
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("Search by name").wait_for()
    long = {"row": None, "column": None, "field": None, "code": "too_many_items", "detail": "too long", "value": "10240"}
    respond(page, f"{API_PATH}/read-file", 200, {"items": [], "mistakes": [long], "ignored_columns": [], "remarks": []})
    page.evaluate(PASTE, "Name\nAstrid Moe\n")
    expect(page.get_by_role("alert")).to_contain_text("10,240 rows")
    expect(page.get_by_role("alert")).to_contain_text("10,000")

    # What is doubtful in a list is said above it, until the list is put away.
    page.evaluate(PASTE, "Name\tNote\nAstrid Moe\t####\n")
    expect(page.get_by_role("alert")).to_contain_text("The notes are only #")
    expect(page.get_by_role("alert")).to_contain_text("Rows: 2.")
    page.get_by_role("button", name="Choose people instead").click()
    expect(page.get_by_role("alert")).to_have_count(0)

    # Nobody to register for.
    respond(page, f"{API_ROOT}/directory/mentors", 200, {"data": [], "next_cursor": None})
    page.reload()
    expect(page.get_by_text("There are no mentors that you can register for yet")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Review"))).to_have_count(0)


def test_an_administrator_registers_on_behalf_of_a_coordinator(registering: Registering, context: BrowserContext) -> None:
    page = context.new_page()
    log_in(page, registering.server, "Boss")
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("On behalf of").select_option("Tor Bakke")
    page.get_by_role("button", name="All of Tromsø (1)").click()
    page.get_by_text("Peer talk").click()
    page.get_by_role("button", name="Review 1").click()
    page.get_by_role("button", name="Register 1").click()
    page.wait_for_url(f"{registering.url}/console/batches/*")
    assert registering.registered() == {"n-01"}
    assert registering.registered_by() == {"tor"}
