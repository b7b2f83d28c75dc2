"""Fixtures of the tests in a browser: the system's Chromium, driven by Playwright, and the console on a database with some batches."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route, expect, sync_playwright
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from tests.browser.registering import Effort, Registering, registering_console
from tests.support.api_server import ApiServer
from tests.support.console import PEOPLE, browser, running_console, with_console
from tests.support.pipeline import Pipeline, item, mentors, standard_directory
from tests.support.waiting import eventually

REQUIRED = "BULKREG_TEST_BROWSER"
"""`required`: the absence of a Chromium is an error."""

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The same browser without a window first: it takes less than half of the processor's time for the same tests."""

SCREENSHOTS = "BULKREG_TEST_SCREENSHOTS"
"""The folder for screenshots. Unset: there are none."""

PATIENCE_MS = 30_000

# The browser reports violations of the policy on the page's console, where `Watch` collects them.
_SAY_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`));
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Without a Chromium on this machine the tests are skipped, or fail where it is required. The scope is one module, because
    Playwright runs an event loop in the tests' thread, and `asyncio.run` of other tests would fail there."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        message = "no Chromium is installed, so the console is not tested in a browser (Debian: apt-get install chromium-headless-shell)"
        if os.environ.get(REQUIRED) == "required":
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        yield from _launched(playwright, path)


def _launched(playwright: Playwright, path: str) -> Iterator[Browser]:
    # Chromium's sandbox does not work as root, nor in most containers.
    browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
    yield browser
    browser.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """The folder for screenshots."""
    folder = Path(os.environ.get(SCREENSHOTS, tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def console(settings: Settings, engine: Engine) -> Iterator[ApiServer]:
    """The console, with one batch that succeeded and one that has a failed item."""
    standard_directory(engine)
    pipeline = Pipeline(settings, engine)
    pipeline.submit(mentors(3), label="Tuesday visits")
    pipeline.submit([*mentors(2, first=4), item("nobody")], label="Monday group")
    pipeline.drain()
    with running_console(with_console(settings)) as (server, _):
        yield server
    pipeline.close()


@pytest.fixture
def server(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    """The console of that pipeline."""
    with running_console(with_console(settings)) as (server, _):
        yield server


@pytest.fixture
def registering(settings: Settings, engine: Engine) -> Iterator[Registering]:
    """A console on which nothing is registered yet."""
    with registering_console(settings, engine) as registering:
        yield registering


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """A new browser context, in English."""
    # Without motion: axe would measure the contrast of a dialog that still fades in.
    context = chromium.new_context(locale="en-GB", viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(_SAY_VIOLATIONS)
    yield context
    context.close()


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


def photograph(page: Page, file: Path) -> None:
    """Keeps the whole page for somebody who looks at it. No test does."""
    if SCREENSHOTS in os.environ:
        page.screenshot(path=file, full_page=True)


class Watch:
    """The requests of a context, and what went wrong on its pages."""

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("console", lambda message: self.errors.append(message.text) if message.type in ("error", "warning") else None)

    @property
    def faults(self) -> list[str]:
        """The errors, without those that the browser logs for each refusal of the API."""
        return [error for error in self.errors if "the server responded with a status of" not in error]


@pytest.fixture
def watch(context: BrowserContext) -> Watch:
    """Begins to watch."""
    return Watch(context)


def log_in(page: Page, console: ApiServer, name: str = "Coordinator") -> None:
    """Logs in as a person of the provider. The browser gets the session's cookie and none of the login's pages, which take longer than most
    tests."""
    [subject] = [person.subject for person in PEOPLE if person.name == name]
    with browser(console) as other:
        other.log_in(subject)
        [(cookie, secret)] = other.cookies.items()
    # The browser accepts a cookie with this prefix only with a response.
    headers = {"Set-Cookie": f"{cookie}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict", "Location": "/console/"}
    address = f"{console.url}/console/logged-in"
    page.route(address, lambda route: route.fulfill(status=302, headers=headers))
    page.goto(address)
    page.unroute(address)
    _wait_for_the_page(page)


def log_in_by_hand(page: Page, console: ApiServer, name: str = "Coordinator") -> None:
    """Logs in on the provider's page, as people do."""
    page.goto(f"{console.url}/console/")
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("link", name=name).first.click()
    _wait_for_the_page(page)


def _wait_for_the_page(page: Page) -> None:
    page.get_by_role("button", name="Log out").wait_for()
    # The frame is drawn before the page.
    page.get_by_role("heading", level=1).wait_for()


def log_out(page: Page) -> None:
    """Logs out, and waits for the page that follows: a navigation that is begun before it arrives would be cancelled by it."""
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("link", name="Log in").wait_for()


class Held:
    """Holds a page's requests to an address until `let_go`."""

    def __init__(self, page: Page, address: re.Pattern[str]) -> None:
        self.page = page
        self.routes: list[Route] = []
        self.holds = True
        page.route(address, lambda route: self._take(route))

    def _take(self, route: Route) -> None:
        if self.holds:
            self.routes.append(route)
        else:
            route.continue_()

    def _first(self) -> list[Route]:
        # Playwright hands over what has happened only while it is asked for something.
        self.page.wait_for_timeout(10)
        return self.routes

    def let_go(self) -> None:
        """Waits for the first request. It goes on, and those after it are not held any more."""
        eventually(self._first)
        self.holds = False
        for route in self.routes:
            route.continue_()


def respond(page: Page, path: str, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
    """The next request for a path gets this response."""

    def fulfill(route: Route) -> None:
        route.fulfill(status=status, json=body, headers=headers or {})

    page.route(re.compile(re.escape(path) + r"(\?.*)?$"), fulfill, times=1)


def problem(code: str, status: int, **others: Any) -> dict[str, Any]:
    """A problem as the API says it."""
    return {"type": f"urn:bulk-registration:problem:{code}", "title": code, "status": status, "code": code, **others}
