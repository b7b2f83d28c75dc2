"""What goes wrong in the middle of something: what a person sees, and that nothing of what they typed is lost."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from playwright.sync_api import BrowserContext, expect
from sqlalchemy import Engine

from orchestrator.process.settings import Settings
from schemas.paths import API_PATH, API_ROOT
from tests.browser.batches import open_batch
from tests.browser.conftest import log_in, problem, respond
from tests.browser.registering import Registering
from tests.browser.test_console import check
from tests.support.console import running_console, with_console
from tests.support.external import RevokingPipeline
from tests.support.faulty_service import faulty_service
from tests.support.pipeline import Pipeline, item, standard_directory


def test_a_refusal_an_overload_and_a_mistake_of_the_page_lose_nothing(
    registering: Registering, context: BrowserContext, screenshots: Path
) -> None:
    page = context.new_page()
    log_in(page, registering.server)
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Peer talk").click()
    page.get_by_role("button", name="All of Bergen (25)").click()
    page.get_by_label("Name of the registration").fill("Tuesday")
    review = page.get_by_role("button", name="Review 25")
    alert = page.get_by_role("alert")

    def is_kept() -> None:
        expect(page.get_by_text("25 chosen")).to_be_visible()
        expect(page.get_by_label("Name of the registration")).to_have_value("Tuesday")

    # Too large: there is no use in trying again.
    respond(page, f"{API_PATH}/preview", 413, problem("body_too_large", 413))
    review.click()
    expect(alert).to_contain_text("The list or file is too large. Split it into smaller ones.")
    expect(alert.get_by_role("button")).to_have_count(0)
    is_kept()

    # Something between the browser and the service fails, and knows nothing of our problems.
    page.route(
        re.compile("/preview"), lambda route: route.fulfill(status=502, body="<h1>Bad gateway", content_type="text/html"), times=1
    )
    review.click()
    expect(alert).to_contain_text("The service failed.")
    is_kept()
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    page.get_by_role("button", name="Back").click()

    # A response that predicts nothing is not taken for a promise that all will be registered.
    for predictions in (None, list[str]()):
        respond(page, f"{API_PATH}/preview", 200, {"plan": "a plan", "items": predictions})
        review.click()
        expect(alert).to_contain_text("The service failed.")
        is_kept()
    alert.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    page.get_by_role("button", name="Back").click()

    # A limit counts down, and then the same is asked again.
    respond(page, f"{API_PATH}/preview", 429, problem("too_many_requests", 429), {"Retry-After": "3"})
    review.click()
    expect(alert).to_contain_text("Too many requests in a short time.")
    expect(alert).to_contain_text(re.compile(r"Tries again in \d s"))
    expect(page.get_by_text("25 will be registered")).to_be_visible()
    page.get_by_role("button", name="Back").click()

    # A response that nobody expected.
    page.route(re.compile("/preview"), lambda route: route.fulfill(body="null", content_type="application/json"), times=1)
    review.click()
    expect(alert).to_contain_text("The page made a mistake. What you have typed is still here")
    is_kept()
    check(page, screenshots / "unexpected.png")
    alert.get_by_role("button", name="Close").click()
    expect(alert).to_have_count(0)
    review.click()
    expect(page.get_by_text("25 will be registered")).to_be_visible()

    # The same when the page opens.
    respond(page, f"{API_ROOT}/directory/mentors", 200, {"data": [None], "next_cursor": None})
    page.goto(f"{registering.url}/console/new")
    expect(page.get_by_role("alert")).to_contain_text("This page made a mistake and can't be shown.")
    page.get_by_role("button", name="Load the page again").click()
    page.get_by_label("Search by name").wait_for()


def test_a_phone_pastes_a_list_into_a_field(registering: Registering, context: BrowserContext, screenshots: Path) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 360, "height": 740})
    log_in(page, registering.server)
    page.goto(f"{registering.url}/console/new")
    page.get_by_text("Paste into a field").click()
    page.get_by_role("button", name="Use the list").click()
    expect(page.get_by_label("The list: a line for each person")).to_be_focused()
    page.get_by_label("The list: a line for each person").fill("Astrid Moe\nÅse Krogh\n")
    check(page, screenshots / "new-paste-field.png")
    page.get_by_role("button", name="Use the list").click()
    expect(page.get_by_text("2 chosen")).to_be_visible()


def test_the_second_page_of_corrections_keeps_the_first(settings: Settings, engine: Engine, context: BrowserContext) -> None:
    standard_directory(engine)
    with contextlib.closing(Pipeline(settings, engine)) as pipeline, running_console(with_console(settings)) as (server, _):
        batch_id = pipeline.submit([item(f"mentor-{number}", minutes=2_000) for number in range(1, 100)] + [item("nobody")] * 5)
        pipeline.drain()
        page = context.new_page()
        log_in(page, server)
        page.goto(f"{server.url}/console/batches/{batch_id}/correct")
        turning = page.get_by_role("navigation", name="People")
        expect(turning).to_contain_text(re.compile("1.100 of 104"))
        page.get_by_role("group").nth(0).get_by_label("Duration").fill("45")
        turning.get_by_role("button", name="Next").click()
        expect(turning).to_contain_text(re.compile("101.104 of 104"))
        expect(page.get_by_role("group")).to_have_count(4)
        mentor = page.get_by_role("group").nth(0).get_by_label("Mentor")
        mentor.focus()
        mentor.select_option("mentor-100")
        turning.get_by_role("button", name="Previous").click()
        expect(page.get_by_role("group").nth(0).get_by_label("Duration")).to_have_value("45")
        page.get_by_role("button", name="Retry these 2").click()
        expect(page.locator("#outcome")).to_have_text("2 were sent again.")


def test_an_external_service_undoes_later_than_it_is_asked(
    settings: Settings, engine: Engine, context: BrowserContext, screenshots: Path
) -> None:
    standard_directory(engine)
    with faulty_service() as service:
        asking = settings.model_copy(update={"registration_url": service.url, "registration_revokes": True})
        # In a thread of its own, because the adapter and Playwright each run an event loop.
        with ThreadPoolExecutor(1) as roles, running_console(with_console(asking)) as (server, _):
            pipeline = roles.submit(RevokingPipeline, asking, engine).result()
            batch_id = roles.submit(pipeline.registered, 2).result()
            page = context.new_page()
            open_batch(page, server, batch_id)
            page.get_by_role("button", name="Undo", exact=True).click()
            page.get_by_label("Why?").fill("Wrong date")
            check(page, screenshots / "undo-elsewhere.png")
            page.get_by_role("button", name=re.compile("Undo 2")).click()
            expect(page.locator("#outcome")).to_have_text("2 are registered in another system and wait for its response.")
            expect(page.locator(".people tbody tr").nth(0)).to_contain_text(
                "The other system was asked to undo it, but has not responded yet."
            )
            check(page, screenshots / "undo-elsewhere-asked.png")
            roles.submit(pipeline.drain).result()
            expect(page.locator(".sentence")).to_have_text("All 2 registered, 2 undone")
            roles.submit(pipeline.close).result()
