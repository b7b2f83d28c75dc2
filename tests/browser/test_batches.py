"""The page of a batch: what happened to each person, while it happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.browser.conftest import Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.pipeline import Pipeline, item, mentors, standard_directory


@pytest.fixture
def pipeline(settings: Settings, engine: Engine) -> Iterator[Pipeline]:
    """A pipeline that registers only when a test says so."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    yield pipeline
    pipeline.close()


@pytest.fixture
def server(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """The console of that pipeline."""
    with running_console(with_console(settings)) as (server, _):
        yield server


def open_batch(page: Page, server: ApiServer, batch_id: object, *, name: str = "Coordinator") -> None:
    """Logs in and opens the page of a batch."""
    log_in(page, server, name)
    page.goto(f"{server.url}/console/batches/{batch_id}")
    page.locator(".people").wait_for()


def test_a_batch_is_followed_to_its_end(
    pipeline: Pipeline, server: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    batch_id = pipeline.submit([*mentors(2), item("nobody")], label="Monday group")
    page = context.new_page()
    open_batch(page, server, batch_id)
    expect(page.locator(".sentence")).to_have_text("Running: 0 of 3 registered")
    expect(page.get_by_role("progressbar", name="Progress")).to_have_js_property("value", 0)
    expect(page.locator(".people tbody tr").nth(0)).to_contain_text("Waiting")
    page.screenshot(path=screenshots / "batch-running.png", full_page=True)

    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("2 of 3 registered, 1 needs you")
    expect(page.get_by_role("progressbar")).to_have_count(0)
    rows = page.locator(".people tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("Not in the organization's directory. Choose another person")
    expect(rows.nth(1)).to_contain_text("Registered")
    expect(page.get_by_role("status").filter(has_text="1 needs you")).to_have_count(1)
    check(page, screenshots / "batch-partial.png")
    assert watch.faults == []
