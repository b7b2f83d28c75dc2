"""The console in a browser: login, the first page, logout, and that pages of other sites can't use the session."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, Page, expect

from api.console.sessions import SESSION_COOKIE
from orchestrator.batches.model import Role
from schemas.paths import API_PATH, API_ROOT
from tests.browser.conftest import Watch, log_in_by_hand, photograph
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR

ME = f"{API_ROOT}/me"


def secret_of(context: BrowserContext) -> str | None:
    """The session's secret from the browser's cookie."""
    return next((cookie["value"] for cookie in context.cookies() if cookie["name"] == SESSION_COOKIE), None)


def test_logging_in_seeing_batches_and_logging_out(
    console: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    page.goto(f"{console.url}/console/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    photograph(page, screenshots / "logged-out.png")
    log_in_by_hand(page, console)
    assert page.url == f"{console.url}/console/"
    rows = page.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("Monday group")
    expect(rows.nth(1)).to_contain_text("2 of 3 registered, 1 needs you")
    expect(rows.nth(2)).to_contain_text("All 3 registered")
    expect(page.get_by_role("banner")).to_contain_text("Coordinator, Standard")
    photograph(page, screenshots / "home.png")
    page.get_by_role("button", name="Norsk").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hjem")
    assert page.evaluate("document.documentElement.lang") == "nb"
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Hjem")

    # No name, token or id is stored where scripts can read it, and none is in the address or the title.
    assert page.evaluate("[Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]") == [["language"], [], ""]
    assert "Coordinator" not in page.title() + page.url
    old = secret_of(context)
    assert old is not None

    page.get_by_role("button", name="Logg ut").click()
    expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert page.url == f"{console.url}/console/"
    assert secret_of(context) is None
    page.go_back()
    page.wait_for_load_state()
    expect(page.get_by_role("row")).to_have_count(0)
    assert "Monday group" not in page.content()
    context.add_cookies(
        [
            {
                "name": SESSION_COOKIE,
                "value": old,
                "url": console.url.replace("http:", "https:"),
                "httpOnly": True,
                "sameSite": "Strict",
            }
        ]
    )
    page.goto(f"{console.url}/console/")
    assert asked(page, ME)[1] == "session_ended"

    # The browser logs each response with an error status on the page's console. Nothing else is there: no policy report, no script error.
    assert [error for error in watch.errors if "the server responded with a status of 401" not in error] == []
    hosts = {urlsplit(url).netloc for url in watch.requests if not url.startswith("data:")}
    assert hosts == {urlsplit(console.url).netloc, urlsplit(str(console.settings.oidc_issuer)).netloc}


def test_the_sentence_says_what_was_undone_and_whether_somebody_is_needed(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    log_in_by_hand(page, console)
    rows = page.get_by_role("row")
    expect(rows.nth(1)).to_contain_text("2 of 3 registered, 1 needs you")
    # Only people who see several coordinators are told whose batch it is.
    expect(page.get_by_role("columnheader")).to_have_text(["Name", "Result", "Submitted"])
    with console.client(Role.COORDINATOR, sub=COORDINATOR) as coordinator:
        monday, tuesday = (batch["batch_id"] for batch in coordinator.get(API_PATH).json()["data"])
        assert coordinator.post(f"{API_PATH}/{monday}/dismiss").status_code == 200
        assert coordinator.post(f"{API_PATH}/{tuesday}/revoke", json={"reason": "wrong date"}).status_code == 200
    page.reload()
    expect(rows.nth(1)).to_contain_text("2 of 3 registered, 1 failed")
    expect(rows.nth(2)).to_contain_text("All 3 registered, 3 undone")


def asked(page: Page, path: str, **options: Any) -> tuple[int, str]:
    """The status and code of a request sent by a script of the page. (0, …) means that the browser gave the page no response."""
    status, code = page.evaluate(
        """async ([path, options]) => {
            try {
                const response = await fetch(path, options);
                return [response.status, (await response.json()).code ?? ""];
            } catch (error) {
                return [0, error.name];
            }
        }""",
        [path, {"headers": {"X-Bulkreg-Console": "1"}, **options}],
    )
    return int(status), str(code)


class _Attacker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>Win a prize</title>")

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def attacker() -> Iterator[int]:
    """The port of a server with a page of another site."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Attacker)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,))
    thread.start()
    with contextlib.closing(server.socket):
        yield server.server_port
        server.shutdown()
        thread.join()


# A page of another site sends no cookie. A page of another port of the same host does, and its request is refused.
@pytest.mark.parametrize(("host", "expected"), [("localhost", "no_token"), ("127.0.0.1", "not_from_console")])
def test_other_pages_can_neither_submit_nor_read(
    console: ApiServer, context: BrowserContext, attacker: int, host: str, expected: str
) -> None:
    page = context.new_page()
    log_in_by_hand(page, console)
    page.goto(f"http://{host}:{attacker}/")
    for path in (f"{console.url}{API_PATH}", f"{console.url}/console/logout"):
        with page.expect_response(path) as response:
            page.evaluate(
                """(path) => {
                    const form = document.createElement("form");
                    Object.assign(form, {method: "POST", action: path, enctype: "text/plain"});
                    document.body.append(form);
                    form.submit();
                }""",
                path,
            )
        answer = response.value
        assert answer.status in (401, 403)
        assert answer.json()["code"] in (expected, "not_from_console")
        page.goto(f"http://{host}:{attacker}/")
    tries: list[dict[str, Any]] = [{}, {"method": "POST"}, {"headers": {}}]
    for options in tries:
        assert asked(page, console.url + ME, credentials="include", **options) == (0, "TypeError")
    with page.expect_response(f"{console.url}{ME}") as response:
        page.evaluate("(url) => { location = url; }", console.url + ME)
    assert response.value.json()["code"] == expected
    page.goto(f"{console.url}/console/")
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def test_a_request_of_the_own_page_without_the_header_is_refused(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    log_in_by_hand(page, console)
    assert asked(page, ME) == (200, "")
    assert asked(page, ME, headers={}) == (403, "not_from_console")


def test_a_login_that_failed_says_why(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{console.url}/console/callback?state=x&code=x")
    expect(page.get_by_role("main")).to_contain_text("Logging in took too long")
    expect(page.get_by_role("link", name="Log in")).to_be_visible()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_narrow_screen(
    console: ApiServer, context: BrowserContext, screenshots: Path, colours: Any
) -> None:
    page = context.new_page()
    page.emulate_media(color_scheme=colours)
    page.goto(f"{console.url}/console/")
    page.get_by_role("link", name="Log in").wait_for()
    check(page, screenshots / f"logged-out-{colours}.png")
    page.get_by_role("link", name="Log in").click()
    page.get_by_role("heading", name="Who are you?").wait_for()
    check(page, screenshots / f"provider-{colours}.png")
    log_in_by_hand(page, console)
    check(page, screenshots / f"home-{colours}.png")


def check(page: Page, screenshot: Path) -> None:
    """axe finds nothing, and the page does not scroll sideways at 320 px."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    photograph(page, screenshot)
    size = page.viewport_size
    page.set_viewport_size({"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    photograph(page, screenshot.with_stem(screenshot.stem + "-320"))
    assert size is not None
    page.set_viewport_size(size)


def test_addresses_contain_no_personal_data(console: ApiServer, context: BrowserContext, watch: Watch) -> None:
    page = context.new_page()
    log_in_by_hand(page, console)
    assert [url for url in watch.requests if COORDINATOR in url and urlsplit(url).path != "/authorize"] == []
