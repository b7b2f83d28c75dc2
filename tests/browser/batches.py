"""What tests of batches share: the way to a batch's page, and from one element to another by keyboard."""

from playwright.sync_api import Locator, Page

from tests.browser.conftest import log_in
from tests.support.api_server import ApiServer

LIST = "async (path) => (await fetch(path, { headers: { 'X-Bulkreg-Console': '1' } })).json()"


def open_batch(page: Page, server: ApiServer, batch_id: object, *, name: str = "Coordinator") -> None:
    """Logs in and opens the page of a batch."""
    log_in(page, server, name)
    page.goto(f"{server.url}/console/batches/{batch_id}")
    page.locator(".people").wait_for()


def press_until(page: Page, locator: Locator, key: str = "Tab") -> None:
    """Moves the focus by keyboard until an element has it. The focus is never lost on the way."""
    locator.wait_for()
    for _ in range(40):
        if locator.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press(key)
    raise AssertionError(f"40 times {key} do not lead to {locator}")
