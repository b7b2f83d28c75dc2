"""Every list with no row, with one and with a page of them, in both languages, light and dark, on a desktop and on a phone."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal
from uuid import UUID

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine, text

from api.console.pages import STATIC
from orchestrator.batches.model import Idempotency, TemplateValues, TemplateView
from orchestrator.batches.templates import create_template
from orchestrator.process.settings import Settings
from orchestrator.storage.templates import PostgresTemplates
from orchestrator.webhooks.model import MAX_WEBHOOKS
from schemas.ids import new_batch_id
from tests.browser.conftest import Watch, photograph
from tests.support.api_server import ApiServer
from tests.support.closing import close
from tests.support.console import running_console, with_console
from tests.support.pipeline import COORDINATOR, COORDINATOR_ACTOR, ORGANIZATION, Pipeline, item
from tests.support.webhooks import make_deliveries, make_webhook, on_loopback

Language = Literal["nb", "en"]
Colours = Literal["light", "dark"]

PAGE = 25
"""The rows of the longest list. The history and the deliveries then have another page."""

WORDS: Mapping[str, Mapping[str, str]] = {
    language: json.loads((STATIC / f"messages/{language}.json").read_text()) for language in ("nb", "en")
}

LOCALES = {"nb": "nb-NO", "en": "en-GB"}

WIDTHS = {"desktop": 1280, "phone": 360}

PLURAL_OF_ONE = re.compile(
    r"\b1 (registrations|activities|people|hours|rows|attempts|records|are|were|stay|need|wait"
    r"|registreringer|aktiviteter|personer|timer|rader)\b"
)
"""A single thing that is spoken of as if there were several."""

NAMES = (
    "Åse Marie Øvrebø",
    "Bjørn-Erik Langfeldt-Haraldsen",
    "Ærlig Sæther",
    "Ida By",
    "Maximiliane Wollstonecraft Christophersen",
)
"""Among them a long one, which has to fit on a phone."""

_DIRECTORY = (
    "INSERT INTO registration.organization VALUES (:org, 'Likepersonforeningen for kreftrammede i Nord', 'Europe/Oslo')",
    "INSERT INTO registration.coordinator VALUES (:org, :coordinator, 'Kari Nordmann-Hagen', 'coordinator')",
    "INSERT INTO registration.coordinator_scope VALUES (:org, :coordinator, 'oslo')",
    "INSERT INTO registration.chapter VALUES (:org, 'oslo', 'Oslo og Akershus')",
    "INSERT INTO registration.activity_type VALUES (:org, 'visit', 'Sykehusbesøk')",
)


@dataclass(frozen=True)
class Filled:
    """A console whose lists have so many rows."""

    server: ApiServer
    rows: int
    failed: UUID | None
    """A batch whose items have all failed, if there are rows at all."""


@contextlib.contextmanager
def filled(settings: Settings, engine: Engine, rows: int) -> Iterator[Filled]:
    """Runs a console with so many mentors, registered batches, activities, failed items, templates, changes of the period and webhooks."""
    with engine.begin() as connection:
        for statement in _DIRECTORY:
            connection.execute(text(statement), {"org": ORGANIZATION, "coordinator": COORDINATOR})
        for number in range(rows):
            connection.execute(
                text(
                    "INSERT INTO registration.mentor (organization_id, mentor_id, name, chapter_id) VALUES (:org, :id, :name, 'oslo')"
                ),
                {"org": ORGANIZATION, "id": f"mentor-{number}", "name": f"{NAMES[number % len(NAMES)]} {chr(65 + number)}."},
            )
    with contextlib.closing(Pipeline(settings, engine)) as pipeline:
        for number in range(rows):
            pipeline.submit([item(f"mentor-{number}")], label=f"Mandagsgruppen på Radiumhospitalet, uke {number + 1}")
        failed = pipeline.submit([item(f"unknown-{number}") for number in range(rows)], label="Lørdag") if rows else None
        pipeline.drain()
        for number in range(rows):
            close(pipeline, date(2025, 1, 31) + timedelta(days=number), reason="Rapporten til Helsedirektoratet er sendt")
            group = TemplateValues(
                f"Mandagsgruppen {number + 1}", tuple(f"mentor-{each}" for each in range(number + 1)), "visit", 90, 1
            )
            view = TemplateView(new_batch_id(), ORGANIZATION, COORDINATOR, group, 1, datetime(1970, 1, 1, tzinfo=UTC))
            pipeline.call_with(PostgresTemplates, create_template, COORDINATOR_ACTOR, view, Idempotency(f"group-{number}", b""))
        webhooks = [
            make_webhook(engine, settings, f"https://hooks.example.org/{number}") for number in range(min(rows, MAX_WEBHOOKS))
        ]
        if webhooks:
            make_deliveries(engine, webhooks[0], rows)
        with running_console(with_console(on_loopback(settings))) as (server, _):
            yield Filled(server, rows, failed)


Words = Mapping[str, str]


def stay(_page: Page, _words: Words) -> None:
    """The list is there when the page is."""


def choose_all_dates(page: Page, words: Words) -> None:
    page.get_by_role("button", name=words["activities.period.all"], exact=True).click()


def open_messages(page: Page, words: Words) -> None:
    page.get_by_role("button", name=words["webhook.deliveries"]).first.click()


def choose_coordinator(page: Page, words: Words) -> None:
    page.get_by_label(words["new.on_behalf_of"]).select_option(COORDINATOR)


@dataclass(frozen=True)
class Listing:
    """A list of the console: the page that has it, its rows, and what the page says without any and with a single one."""

    name: str
    path: str
    rows: str
    empty: str | None
    """The text for no row. None: there is no such list then."""
    one: str | None = None
    more: int = 0
    """Rows beside the usual ones, if there are any: the failed batch."""
    most: int = PAGE
    """The rows of a page of it."""
    arrive: Callable[[Page, Words], None] = stay


LISTINGS = (
    Listing("home", "/console/", ".batches tbody tr", "home.begin", more=1, most=10),
    Listing("history", "/console/batches", ".batches tbody tr", "history.empty", more=1),
    Listing("found", "/console/batches?status=completed", ".batches tbody tr", "history.none_found", "history.count.one"),
    Listing("batch", "/console/batches/{failed}", ".people tbody tr", None, "batch.status.failed.one"),
    Listing("correct", "/console/batches/{failed}/correct", ".correct fieldset", None),
    Listing("activities", "/console/activities", ".found > table tbody tr", "activities.nothing_yet", arrive=choose_all_dates),
    Listing("templates", "/console/templates", ".cards > li", "template.none"),
    Listing("period", "/console/period", ".trail > li", "period.open"),
    Listing("webhooks", "/console/webhooks", ".webhooks > li", "webhook.empty", most=MAX_WEBHOOKS),
    Listing("messages", "/console/webhooks", ".deliveries li", None, most=20, arrive=open_messages),
    Listing("mentors", "/console/new", ".mentors > li", "new.no_mentors_for", arrive=choose_coordinator),
)


def log_in(page: Page, server: ApiServer) -> None:
    """Logs in as an administrator, in any language."""
    page.goto(f"{server.url}/console/login")
    page.get_by_role("link", name="Boss").click()
    page.locator("nav.pages").wait_for()


def look(page: Page, listing: Listing, filled: Filled, words: Words) -> None:
    """Opens a list, and sees that it has its rows and says what they are."""
    page.goto(filled.server.url + listing.path.format(failed=filled.failed))
    page.get_by_role("heading", level=1).wait_for()
    listing.arrive(page, words)
    rows = page.locator(listing.rows)
    main = page.get_by_role("main")
    if filled.rows == 0:
        assert listing.empty is not None
        expect(main).to_contain_text(words[listing.empty])
        expect(rows).to_have_count(0)
        return
    expect(rows.first).to_be_visible()
    expect(rows).to_have_count(min(filled.rows + listing.more, listing.most))
    if filled.rows == 1:
        if listing.one is not None:
            expect(main).to_contain_text(words[listing.one].format(failed=1))
        assert PLURAL_OF_ONE.findall(main.inner_text()) == []


def check(page: Page, screenshot: Path) -> None:
    """axe finds nothing, and the page is not wider than the screen."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page.url
    photograph(page, screenshot)


EACH = [
    (rows, language, colours, width)
    for rows in (0, 1, PAGE)
    for language in LOCALES
    for colours in ("light", "dark")
    for width in WIDTHS
]

USUAL = {(0, "nb", "light", "desktop"), (1, "en", "dark", "phone")}
"""What `make test` looks at: each number that is easily forgotten, each language, and each kind of screen."""


@pytest.mark.parametrize(
    ("rows", "language", "colours", "width"),
    [pytest.param(*each, marks=() if each in USUAL else pytest.mark.full) for each in EACH],
)
def test_every_list(
    settings: Settings,
    engine: Engine,
    chromium: Browser,
    screenshots: Path,
    rows: int,
    language: Language,
    colours: Colours,
    width: str,
) -> None:
    with filled(settings, engine, rows) as console:
        context = chromium.new_context(
            locale=LOCALES[language],
            color_scheme=colours,
            reduced_motion="reduce",
            viewport={"width": WIDTHS[width], "height": 800},
        )
        watch = Watch(context)
        page = context.new_page()
        log_in(page, console.server)
        for listing in LISTINGS:
            if rows > 0 or listing.empty is not None:
                look(page, listing, console, WORDS[language])
                check(page, screenshots / f"list-{listing.name}-{rows}-{language}-{colours}-{width}.png")
        assert watch.faults == []
        context.close()
