"""Activities in a browser: filters and sums, an activity's history, undo, the file, and that no address contains personal data."""

import contextlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect
from sqlalchemy import Engine, text

from orchestrator.batches import operations
from orchestrator.batches.model import CorrectedItem, RetryRequest
from orchestrator.process.settings import Settings
from tests.browser.conftest import Held, Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.pipeline import COORDINATOR_ACTOR, DAY, ORGANIZATION, Pipeline, item, standard_directory

_DIRECTORY = (
    "INSERT INTO registration.chapter VALUES (:org, 'chapter-1', 'Bergen'), (:org, 'chapter-2', 'Tromsø')",
    "INSERT INTO registration.activity_type VALUES (:org, 'training', 'Training')",
    "INSERT INTO registration.coordinator_scope VALUES (:org, 'coord-1', 'chapter-2')",
    "INSERT INTO registration.coordinator VALUES (:org, 'coord-2', 'Tor Bakke', 'coordinator')",
    "UPDATE registration.mentor SET name = 'Person ' || substr(mentor_id, 8)",
    "UPDATE registration.mentor SET chapter_id = 'chapter-2' WHERE mentor_id > 'mentor-5'",
    "UPDATE registration.mentor SET name = 'Åse Øvrebø', active_until = '2026-03-20' WHERE mentor_id = 'mentor-1'",
    "UPDATE registration.mentor SET name = 'Bjørn Haugen' WHERE mentor_id IN ('mentor-2', 'mentor-3')",
)


@contextlib.contextmanager
def fill(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    """61 visits, and 2 trainings in the month before. Åse's visit failed because of its date, and was retried with another one."""
    standard_directory(engine)
    with engine.begin() as connection:
        for statement in _DIRECTORY:
            connection.execute(text(statement), {"org": ORGANIZATION})
    with contextlib.closing(Pipeline(settings, engine)) as pipeline:
        visits = pipeline.submit([item(f"mentor-{number}") for number in range(1, 62)], label="Visits")
        before = DAY - timedelta(days=30)
        pipeline.submit([item(f"mentor-{number}", kind="training", day=before, minutes=90) for number in (2, 61)])
        pipeline.drain()
        failed = pipeline.status(visits).items[0].item_id
        corrected = CorrectedItem(failed, {"activity_date": DAY - timedelta(days=7)})
        pipeline.call(operations.retry_failed_items, COORDINATOR_ACTOR, visits, RetryRequest(corrections=[corrected]))
        pipeline.drain()
        yield pipeline


@pytest.fixture
def console(settings: Settings, engine: Engine) -> Iterator[ApiServer]:
    """The console with these activities."""
    with fill(settings, engine), running_console(with_console(settings)) as (server, _):
        yield server


def open_list(page: Page, console: ApiServer, name: str) -> None:
    """Logs in and shows all activities."""
    log_in(page, console, name)
    page.get_by_role("link", name="Activities").click()
    page.get_by_role("button", name="All dates").click()
    expect(heading(page)).to_have_text("63 activities, 64 hours.")


def heading(page: Page) -> Locator:
    """The text above the list."""
    return page.get_by_role("heading", level=2)


def test_an_auditor_finds_sums_saves_and_reads_a_history(
    console: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    open_list(page, console, "Auditor")
    page.get_by_text("Sums by type and month").click()
    expect(page.get_by_role("row", name="02.2026 2 3")).to_be_visible()
    check(page, screenshots / "activities.png")
    page.get_by_label("Type").select_option("Training")
    expect(heading(page)).to_have_text("2 activities, 3 hours.")
    page.get_by_label("Chapter").select_option("Tromsø")
    expect(heading(page)).to_have_text("1 activity, 1.5 hours.")
    page.get_by_label("Type").select_option("All")
    page.get_by_label("Chapter").select_option("All")
    expect(heading(page)).to_have_text("63 activities, 64 hours.")

    page.get_by_label("From").fill("1/3/2026")
    page.get_by_label("From").press("Enter")
    expect(page.get_by_text("Slashes can mean day/month or month/day.")).to_be_visible()
    page.get_by_label("From").fill("1.3.26")
    page.get_by_label("From").press("Enter")
    expect(heading(page)).to_have_text("61 activities, 61 hours.")
    expect(page.get_by_label("From")).to_have_value("01.03.2026")

    # Two people with the same name are distinguished. A chosen person is in no address, not even in the download's.
    page.get_by_label("Mentor").fill("Bjørn Haugen")
    page.get_by_label("Mentor").press("Enter")
    expect(page.get_by_text("Nobody in the directory has this name.")).to_be_visible()
    page.get_by_label("Mentor").fill("Bjørn Haugen (mentor-2)")
    page.get_by_label("Mentor").press("Enter")
    expect(heading(page)).to_have_text("1 activity, 1 hour.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download (CSV)").click()
    assert download.value.suggested_filename == "activities.csv"
    assert download.value.url.startswith("blob:")
    rows = download.value.path().read_text("utf-8-sig").splitlines()
    assert len(rows) == 2
    assert "mentor-2" in rows[1]
    assert page.url == f"{console.url}/console/activities"

    page.get_by_label("Mentor").fill("ase ovrebo")
    expect(page.locator("#mentors option")).to_have_count(1)
    page.get_by_label("Mentor").press("Enter")
    expect(page.get_by_role("link", name="Åse Øvrebø")).to_be_visible()
    page.get_by_label("Mentor").fill("")
    page.get_by_label("Mentor").press("Enter")
    expect(heading(page)).to_have_text("61 activities, 61 hours.")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("link", name="Åse Øvrebø").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Activity: Åse Øvrebø")
    expect(page.get_by_role("listitem").get_by_role("heading")).to_have_text(["Submitted", "Failed", "Tried again", "Registered"])
    expect(page.get_by_role("listitem").nth(1)).to_contain_text("Was not an active mentor on this date.")
    expect(page.get_by_role("listitem").nth(2)).to_contain_text("18.03.2026")
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    check(page, screenshots / "activity.png")
    page.go_back()
    expect(page.get_by_text("Page 2")).to_be_visible()
    expect(page.get_by_role("link", name="Åse Øvrebø")).to_be_focused()
    assert watch.faults == []


def test_a_filter_that_is_chosen_while_a_page_is_read_counts(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    open_list(page, console, "Auditor")
    held = Held(page, re.compile(r"/activities\?"))
    page.get_by_role("button", name="Next").click()
    page.get_by_label("Type").select_option("Training")
    held.let_go()
    expect(heading(page)).to_have_text("2 activities, 3 hours.")
    expect(page.locator(".narrow-rows tbody tr")).to_have_count(2)


def test_a_coordinator_undoes_an_activity_by_keyboard(console: ApiServer, context: BrowserContext, screenshots: Path) -> None:
    page = context.new_page()
    open_list(page, console, "Coordinator")
    expect(page.get_by_role("columnheader", name="Coordinator")).to_have_count(0)
    page.get_by_role("link", name="Person 61").first.press("Enter")
    page.get_by_role("button", name="Undo this activity").press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").press("Tab")
    page.keyboard.press("Enter")
    expect(dialog.get_by_text("Say why, for example")).to_be_visible()
    expect(dialog.get_by_label("Why?")).to_be_focused()
    check(page, screenshots / "activity-undo.png")
    page.keyboard.type("Wrong date")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#undone")).to_be_focused()
    expect(page.get_by_role("listitem").last).to_contain_text("Wrong date")
    page.get_by_role("link", name="To all activities").press("Enter")
    expect(heading(page)).to_have_text("62 activities, 63 hours. Another 1 undone.")
    page.get_by_label("Status").select_option("Undone")
    expect(heading(page)).to_have_text("1 undone, 1 hour.")
    expect(page.get_by_role("row")).to_have_count(2)
