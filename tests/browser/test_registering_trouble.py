"""Registering when something comes in between: duplicates, lost connections, and whatever the server says."""

import json
import re
from datetime import date
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Route, expect

from schemas.paths import API_PATH, API_ROOT
from tests.browser.conftest import photograph, problem, respond
from tests.browser.registering import BERGEN, LOSE_THE_RESPONSE, NAMES, PASTE, Registering
from tests.browser.test_console import check
from tests.support.pipeline import item


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
