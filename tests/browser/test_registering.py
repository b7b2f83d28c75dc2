"""The main job in a browser: registering mentors for the first time, and from a spreadsheet; by mouse, and by keyboard alone."""

import re
from datetime import date
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, Route, expect
from sqlalchemy import text

from tests.browser.conftest import Watch, log_in, photograph
from tests.browser.registering import BERGEN, NAMES, PASTE, Effort, Registering
from tests.support.pipeline import ORGANIZATION, item


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
