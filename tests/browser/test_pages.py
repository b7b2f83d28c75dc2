"""What holds for every page of the console: accessible, narrow, nothing personal left behind, nothing from elsewhere, small."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import Engine

from api.console.pages import PAGES
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.browser.conftest import Watch, log_in, log_in_by_hand
from tests.browser.test_activities import fill
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.pipeline import COORDINATOR

BUDGET_BYTES = 150_000
"""What a browser without a past receives until the first page is complete, compressed."""

BUDGET_REQUESTS = 12
"""Files and responses of the API, with the two batches that are read for the groups when the page is already there."""

PERSONAL = re.compile(r"mentor-\d|coord-\d|Person|Åse|Bjørn|Boss|Coordinator")
"""Ids and names of the people in the directory and of those who log in."""


@pytest.fixture
def console(settings: Settings, engine: Engine) -> Iterator[ApiServer]:
    """The console with batches and activities."""
    with fill(settings, engine), running_console(with_console(settings)) as (server, _):
        yield server


def addresses(page: Page) -> list[str]:
    """The address of each page, with the ids that a path needs."""
    found = page.evaluate(
        """async ([batches, activities]) => {
            const first = async (path) => (await (await fetch(path, {headers: {"X-Bulkreg-Console": "1"}})).json()).data[0];
            return {batch_id: (await first(batches)).batch_id, activity_id: (await first(activities)).activity_id};
        }""",
        [API_PATH, "/api/v1/activities"],
    )
    return [path.format(**found) for path in PAGES if path != "/console/login-failed"]


def opened(page: Page, url: str) -> None:
    """Opens a page and waits until it shows what it has read."""
    page.goto(url)
    page.get_by_role("heading", level=1).wait_for()
    page.wait_for_load_state("networkidle")


def name_of(path: str) -> str:
    """The name of a page's screenshot."""
    return path.removeprefix("/console/").strip("/").split("/")[0] or "home"


def test_every_page_is_accessible_and_leaves_nothing_personal_behind(
    console: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    log_in_by_hand(page, console, "Boss")
    # Norwegian words are the longest.
    page.get_by_role("button", name="Norsk").click()
    for path in addresses(page):
        opened(page, console.url + path)
        check(page, screenshots / f"page-{name_of(path)}-{len(path)}.png")
        assert PERSONAL.search(page.title() + page.url) is None
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, history.state])")
        assert PERSONAL.search(kept) is None, kept
    # The provider's page, which is not ours, names the person who is chosen.
    # An administrator's requests to the API name, by the id, the coordinator whose mentors they choose from.
    scope = f"/directory/mentors?coordinator_id={COORDINATOR}&"
    ours = [url.replace(scope, "") for url in watch.requests if url.startswith(console.url)]
    assert [url for url in ours if PERSONAL.search(url)] == []
    hosts = {urlsplit(url).netloc for url in watch.requests if url.startswith("http")}
    assert hosts == {urlsplit(console.url).netloc, urlsplit(str(console.settings.oidc_issuer)).netloc}
    assert watch.faults == []


def test_the_first_load_is_small(console: ApiServer, context: BrowserContext, watch: Watch) -> None:
    page = context.new_page()
    log_in(page, console)
    page.wait_for_load_state("networkidle")
    session = context.new_cdp_session(page)
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    watch.requests.clear()
    opened(page, f"{console.url}/console/")
    assert sum(received) <= BUDGET_BYTES
    assert len(received) >= 5, "it must have counted something"
    assert len(watch.requests) <= BUDGET_REQUESTS, watch.requests


def test_help_and_the_accessibility_statement_need_no_login(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    opened(page, f"{console.url}/console/help")
    expect(page.get_by_role("heading", name="For administrators")).to_be_visible()
    expect(page.get_by_role("link", name="Undo")).to_have_attribute("href", "#undo")
    page.get_by_role("link", name="Accessibility").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Accessibility statement")
    log_in(page, console, "Auditor")
    page.get_by_role("link", name="Help").click()
    expect(page.get_by_role("heading", name="Find and read activities")).to_be_visible()
    expect(page.get_by_role("heading", name="For administrators")).to_have_count(0)


WAYS: dict[str, dict[str, Any]] = {
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
    # 200 % on a screen of 1280: half the width in CSS pixels, each of twice the size.
    "zoomed": {"viewport": {"width": 640, "height": 400}, "device_scale_factor": 2},
    "forced colours": {"forced_colors": "active"},
}


@pytest.mark.full
@pytest.mark.parametrize("role", ["Boss", "Coordinator", "Auditor"])
@pytest.mark.parametrize("way", WAYS)
def test_every_page_in_every_way(console: ApiServer, chromium: Browser, screenshots: Path, way: str, role: str) -> None:
    context = chromium.new_context(locale="nb-NO", reduced_motion="reduce", **WAYS[way])
    page = context.new_page()
    opened(page, f"{console.url}/console/")
    page.get_by_role("link", name="Logg inn").click()
    page.get_by_role("link", name=role).first.click()
    page.get_by_role("button", name="Logg ut").wait_for()
    for path in addresses(page):
        opened(page, console.url + path)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        check(page, screenshots / f"{way}-{role}-{name_of(path)}-{len(path)}.png")
    context.close()
