"""Failed people are corrected and sent again."""

from pathlib import Path

from playwright.sync_api import BrowserContext, Locator, expect
from sqlalchemy import Engine, text

from orchestrator.batches.model import Role
from schemas.paths import API_PATH
from tests.browser.batches import open_batch, press_until
from tests.browser.conftest import Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.pipeline import COORDINATOR, Pipeline, item, mentors


def test_failed_people_are_corrected_and_retried_by_keyboard(
    pipeline: Pipeline, server: ApiServer, engine: Engine, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE registration.mentor SET name = 'Dag Nesse', active_until = '2024-12-31' WHERE mentor_id = 'mentor-4'")
        )
        connection.execute(text("UPDATE registration.mentor SET name = 'Eva Lund' WHERE mentor_id = 'mentor-5'"))
    pipeline.submit(mentors(1))
    pipeline.drain()
    batch_id = pipeline.submit([*mentors(2), item("mentor-4"), item("nobody")], label="Monday group")
    pipeline.drain()
    page = context.new_page()
    open_batch(page, server, batch_id)
    press_until(page, page.get_by_role("link", name="Correct and retry (3)"))
    page.keyboard.press("Enter")
    rows = page.get_by_role("group")
    expect(rows).to_have_count(3)
    expect(page.get_by_role("button", name="Retry", exact=True)).to_be_disabled()
    check(page, screenshots / "correct.png")

    # Each message is at its field, and a duplicate says who registered the other one.
    date = page.get_by_role("group", name="Dag Nesse").get_by_label("Date")
    assert "Was not an active mentor on this date" in described(date)
    expect(page.get_by_role("group", name="Mentor", exact=True)).to_contain_text("Is already registered by Coordinator")
    press_until(page, page.get_by_label("Register anyway"))
    page.keyboard.press("Space")
    press_until(page, date)
    page.keyboard.press("Control+a")
    page.keyboard.type("16/12/2024")
    person = page.get_by_role("group", name="nobody").get_by_label("Mentor")
    press_until(page, person)
    page.keyboard.type("Eva")
    expect(page.locator(".correct footer")).to_contain_text("Mentor, Dag Nesse, nobody")
    page.keyboard.press("Control+Enter")

    # What can't be read is said at its field, which has the focus.
    expect(date).to_be_focused()
    assert "Slashes can mean day/month or month/day" in described(date)
    page.keyboard.press("Control+a")
    page.keyboard.type("16.12.2024")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".sentence")).to_contain_text("Running: 1 of 4 registered")
    expect(page.locator("#outcome")).to_have_text("3 were sent again.")
    assert page.url.endswith(str(batch_id))
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("All 4 registered")

    # Each person's history says who corrected what.
    expect(page.locator(".people .result[data-state=success]")).to_have_count(4)
    page.get_by_role("button", name="Dag Nesse").click()
    dialog = page.get_by_role("dialog", name="Dag Nesse")
    expect(dialog).to_contain_text("Corrected by Coordinator")
    expect(dialog).to_contain_text("Date: 25.03.2026 → 16.12.2024")
    check(page, screenshots / "batch-person.png")
    assert watch.faults == []


def test_one_of_many_mentors_is_named_rather_than_listed(
    pipeline: Pipeline, server: ApiServer, engine: Engine, context: BrowserContext, watch: Watch
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id) SELECT organization_id, 'extra-' || n,"
                " 'Extra ' || n, chapter_id FROM registration.mentor CROSS JOIN generate_series(1, 150) n WHERE mentor_id = 'mentor-1'"
            )
        )
    batch_id = pipeline.submit([item("nobody")])
    pipeline.drain()
    page = context.new_page()
    log_in(page, server)
    page.goto(f"{server.url}/console/batches/{batch_id}/correct")
    mentor = page.get_by_role("group", name="nobody").get_by_label("Mentor")
    mentor.fill("Extra")
    expect(page.locator("datalist option")).to_have_count(20)
    page.keyboard.press("Control+Enter")
    expect(mentor).to_be_focused()
    assert "Nobody in the directory has this name" in described(mentor)
    mentor.fill("extra 77")
    page.keyboard.press("Tab")
    expect(mentor).to_have_value("Extra 77")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#outcome")).to_have_text("1 was sent again.")
    pipeline.drain()
    expect(page.locator(".people tbody tr")).to_contain_text("Extra 77")
    assert watch.faults == []


def described(field: Locator) -> str:
    """The hint and the message that belong to a field."""
    return str(
        field.evaluate(
            "(field) => field.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent).join(' ')"
        )
    )


def test_somebody_who_was_faster_is_shown(pipeline: Pipeline, server: ApiServer, context: BrowserContext) -> None:
    batch_id = pipeline.submit([item("mentor-1", minutes=2000), item("mentor-2", minutes=2000)])
    pipeline.drain()
    page = context.new_page()
    log_in(page, server)
    page.goto(f"{server.url}/console/batches/{batch_id}/correct")
    expect(page.get_by_role("group")).to_have_count(2)
    for row in page.get_by_role("group").all():
        row.get_by_label("Duration").fill("1,5 h")
    with server.client(Role.COORDINATOR, sub=COORDINATOR) as other:
        first = other.get(f"{API_PATH}/{batch_id}").json()["items"][0]["item_id"]
        correction = {"item_id": first, "duration_minutes": 45}
        assert other.post(f"{API_PATH}/{batch_id}/retry", json={"corrections": [correction]}).status_code == 202
    pipeline.drain()
    page.get_by_role("button", name="Retry these 2").click()
    expect(page.get_by_role("alert")).to_contain_text("Somebody else has already taken care of")
    expect(page.locator("#summary")).to_be_focused()
    expect(page.locator("section.row")).to_contain_text("45 min")
    expect(page.get_by_role("group").get_by_label("Duration")).to_have_value("1,5 h")
    page.get_by_role("button", name="Retry this 1").click()
    expect(page.locator("#outcome")).to_have_text("1 was sent again.")
    pipeline.drain()
    expect(page.locator(".sentence")).to_have_text("All 2 registered")
