"""A new registration in every state, light and dark, wide and narrow: accessible, and never wider than the screen."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from schemas.paths import API_PATH, API_ROOT
from tests.browser.conftest import log_in, problem, respond
from tests.browser.registering import PASTE, Registering
from tests.browser.test_console import check
from tests.support.pipeline import DAY, item

pytestmark = pytest.mark.full


def opened(page: Page, registering: Registering) -> None:
    page.goto(f"{registering.url}/console/new")
    page.get_by_role("heading", level=1).wait_for()


def filled(page: Page, registering: Registering) -> None:
    """Chooses everybody, for a date on which one of them is registered already."""
    opened(page, registering)
    page.get_by_text("Peer talk").click()
    page.get_by_label("Date").fill(f"{DAY:%d.%m.%Y}")
    page.get_by_label("Date").press("Tab")
    page.get_by_role("button", name="All of Bergen (25)").click()
    expect(page.get_by_text("25 chosen")).to_be_visible()


def mistaken(page: Page, registering: Registering) -> None:
    opened(page, registering)
    page.get_by_role("button", name="Review").click()
    page.get_by_role("group", name="Correct this first").wait_for()


def listed(page: Page, registering: Registering) -> None:
    """A list with a name that nobody has."""
    opened(page, registering)
    page.evaluate(PASTE, "Name\tMinutes\nAstrid Moe\t90\nNobody Atall\tlong\n")
    page.get_by_role("table").wait_for()


def reviewed(page: Page, registering: Registering) -> None:
    filled(page, registering)
    page.get_by_role("button", name="Review 25").click()
    expect(page.get_by_text("24 will be registered")).to_be_visible()


def refused(page: Page, registering: Registering) -> None:
    filled(page, registering)
    respond(page, f"{API_PATH}/preview", 413, problem("body_too_large", 413))
    page.get_by_role("button", name="Review 25").click()
    page.get_by_role("alert").wait_for()


def overloaded(page: Page, registering: Registering) -> None:
    filled(page, registering)
    respond(page, f"{API_PATH}/preview", 503, problem("overloaded", 503), {"Retry-After": "600"})
    page.get_by_role("button", name="Review 25").click()
    page.get_by_text(re.compile("Tries again in")).wait_for()


def offline(page: Page, registering: Registering) -> None:
    filled(page, registering)
    page.context.set_offline(True)
    page.get_by_role("button", name="Review 25").click()
    page.get_by_role("alert").wait_for()
    page.context.set_offline(False)


def ended(page: Page, registering: Registering) -> None:
    filled(page, registering)
    respond(page, f"{API_PATH}/preview", 401, problem("session_ended", 401))
    page.get_by_role("button", name="Review 25").click()
    page.get_by_text("You are logged out").wait_for()


def without_preview(page: Page, registering: Registering) -> None:
    filled(page, registering)
    respond(page, f"{API_PATH}/preview", 501, problem("preview_unavailable", 501))
    page.get_by_role("button", name="Review 25").click()
    expect(page.get_by_text("25 will be sent")).to_be_visible()


def without_mentors(page: Page, registering: Registering) -> None:
    respond(page, f"{API_ROOT}/directory/mentors", 200, {"data": [], "next_cursor": None})
    opened(page, registering)
    page.get_by_text("There are no mentors that you can register for yet").wait_for()


STATES: Mapping[str, Callable[[Page, Registering], None]] = {
    each.__name__: each
    for each in (
        opened,
        filled,
        mistaken,
        listed,
        reviewed,
        refused,
        overloaded,
        offline,
        ended,
        without_preview,
        without_mentors,
    )
}


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_new_registration_in_every_state(
    registering: Registering, context: BrowserContext, screenshots: Path, colours: Literal["light", "dark"], width: int
) -> None:
    registering.pipeline.submit([item("m-01", kind="talk")])
    registering.pipeline.drain()
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=colours, reduced_motion="reduce")
    log_in(page, registering.server)
    for name, reach in STATES.items():
        reach(page, registering)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        check(page, screenshots / f"new-{name}-{colours}-{width}.png")
        page.unroute_all()
