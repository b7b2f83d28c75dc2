"""Which day it is: a page that is open over midnight, groups after their weekday, and labels with a date."""

import re
from datetime import UTC, date, datetime, timedelta

from playwright.sync_api import BrowserContext, Page, expect

from schemas.paths import API_ROOT
from tests.browser.batches import LIST
from tests.browser.conftest import log_in
from tests.browser.registering import BERGEN, Registering
from tests.support.pipeline import DAY, item


def it_is(page: Page, today: date) -> None:
    """From now on the API says that it is this day in the organization. The session has no end, before which the page would ask again."""
    me = page.evaluate(LIST, f"{API_ROOT}/me")
    me["organization"]["today"] = f"{today}"
    me["session_ends_at"] = None
    page.route(re.compile(f"{API_ROOT}/me$"), lambda route: route.fulfill(json=me))


def test_a_page_that_is_open_over_midnight_knows_the_new_day(registering: Registering, context: BrowserContext) -> None:
    page = context.new_page()
    page.clock.install()
    log_in(page, registering.server)
    today = date.fromisoformat(registering.today())
    it_is(page, today)
    page.goto(f"{registering.url}/console/new")
    now, before = page.get_by_role("button", name="Today"), page.get_by_role("button", name="Yesterday")
    expect(now).to_have_attribute("aria-pressed", "true")
    it_is(page, today + timedelta(days=1))
    page.clock.fast_forward("24:00:00")
    # What is in the form stays, and the chips mean the new day.
    expect(before).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Date")).to_have_value(f"{today:%d.%m.%Y}")
    now.click()
    expect(page.get_by_label("Date")).to_have_value(f"{today + timedelta(days=1):%d.%m.%Y}")


def test_a_clock_that_is_wrong_ends_no_session(registering: Registering, context: BrowserContext) -> None:
    page = context.new_page()
    page.clock.install(time=datetime.now(UTC) + timedelta(hours=2))
    log_in(page, registering.server)
    expect(page.get_by_text("You will be logged out soon")).to_have_count(0)


def test_a_weekly_group_is_not_said_to_meet_on_another_weekday(registering: Registering, context: BrowserContext) -> None:
    for day in (DAY - timedelta(weeks=1), DAY):
        registering.pipeline.submit(
            [item(mentor, kind="visit", day=day) for mentor in BERGEN[:3]], label=f"Visits, {day:%d.%m.%Y}"
        )
    registering.pipeline.drain()
    page = context.new_page()
    log_in(page, registering.server)
    group = page.locator("a.again")
    it_is(page, DAY + timedelta(weeks=1))
    page.goto(f"{registering.url}/console/")
    expect(group).to_contain_text("Every Wednesday, now 01.04.2026")
    # The day after the last time, which is registered.
    it_is(page, DAY + timedelta(days=1))
    page.reload()
    expect(group).to_contain_text("Thursday 26.03.2026")
    expect(group).not_to_contain_text("Every")

    # The label has the date of the form, also after another one was typed.
    group.click()
    page.get_by_role("button", name="Back").click()
    label = page.get_by_label("Name of the registration")
    expect(label).to_have_value("Visits, 26.03.2026")
    page.get_by_label("Date").fill("24.03.2026")
    expect(label).to_have_value("Visits, 24.03.2026")
    label.fill("Visits on 24.03.2026 and later")
    page.get_by_label("Date").fill("23.03.2026")
    expect(label).to_have_value("Visits on 24.03.2026 and later")

    # A day that can't be registered is not exchanged for another one.
    tomorrow = DAY + timedelta(days=2)
    page.goto(page.url.replace("date=2026-03-26", f"date={tomorrow}"))
    expect(page.get_by_role("group", name="Correct this first")).to_contain_text("Can't be after today.")
    expect(page.get_by_label("Date")).to_have_value(f"{tomorrow:%d.%m.%Y}")

    # A day without a year is the last one, also the one that only every fourth year has.
    it_is(page, date(2025, 1, 15))
    page.goto(f"{registering.url}/console/new")
    page.get_by_label("Date").fill("29.2.")
    expect(page.locator("#date-hint")).to_have_text("Thursday")
