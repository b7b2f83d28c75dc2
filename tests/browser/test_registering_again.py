"""The first page: groups and templates to register again, and what needs somebody."""

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from playwright.sync_api import Page, expect

from orchestrator.batches.model import Idempotency, TemplateValues, TemplateView
from orchestrator.batches.templates import create_template
from orchestrator.storage.templates import PostgresTemplates
from schemas.ids import new_batch_id
from schemas.paths import API_PATH
from tests.browser.conftest import photograph
from tests.browser.registering import BERGEN, Effort, Registering
from tests.support.pipeline import COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, item


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
