"""Receipts in a browser: they are checked without a request, and nothing in them can be changed unnoticed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect
from sqlalchemy import Engine

from api.console.joining import join
from api.console.pages import STATIC
from orchestrator.process.settings import Settings
from orchestrator.receipts.canonical import canonical_json
from orchestrator.receipts.keys import SigningKey
from orchestrator.receipts.receipt import check_receipt
from tests.browser.conftest import Watch, log_in
from tests.browser.test_console import check
from tests.support.api_server import ApiServer
from tests.support.console import running_console, with_console
from tests.support.merkle_log import ORGANIZATION, example_leaf, example_receipt, receipt_bytes
from tests.support.pipeline import Pipeline, item, mentors, standard_directory
from tests.support.receipts import announce_key, append_and_sign
from tests.unit.test_receipts import FAULTS, RECEIPT, changed

KEY = SigningKey("records.example.org", bytes(range(32)))
OTHER = SigningKey("elsewhere.example.org", bytes(32))
KEYS = "**/api/v1/receipts/keys"

CHECKING = "/console/static/checking.js"
"""A script of the test alone: the modules that check a receipt, for `CHECK` and `ALTER`."""

# The check of the page, called with receipts' texts; returns what is wrong with each.
CHECK = """
async (texts) => {
    await import("/console/static/checking.js");
    const found = [];
    for (const text of texts) {
        found.push((await checkReceipt(new TextEncoder().encode(text).buffer)).faults);
    }
    return found;
}
"""

# Changes each byte of a receipt, one after the other, and returns the places where it was not noticed.
ALTER = """
async (text) => {
    await import("/console/static/checking.js");
    const bytes = new TextEncoder().encode(text);
    const unnoticed = [];
    for (let at = 0; at < bytes.length; at += 1) {
        bytes[at] ^= 1;
        if ((await checkReceipt(bytes.buffer)).faults.length === 0) {
            unnoticed.push(at);
        }
        bytes[at] ^= 1;
    }
    return [(await checkReceipt(bytes.buffer)).faults, unnoticed];
}
"""


def with_check(page: Page) -> None:
    """Gives the page a script that makes the check callable from outside."""
    modules = {
        f"/console/static/{file.relative_to(STATIC).as_posix()}": file.read_text() for file in STATIC.rglob("receipts/*.js")
    }
    modules[CHECKING] = 'import { check } from "/console/static/receipts/check.js";\nglobalThis.checkReceipt = check;\n'
    script = join(modules, CHECKING)
    page.route(f"**{CHECKING}", lambda route: route.fulfill(body=script, content_type="text/javascript"))


@pytest.fixture
def console(settings: Settings, engine: Engine) -> Iterator[ApiServer]:
    standard_directory(engine)
    with running_console(with_console(settings)) as (server, _):
        yield server


def receipt_page(page: Page, console: ApiServer, *keys: tuple[SigningKey, bool]) -> None:
    """Opens the page without a login, for a service that publishes these keys; without any, it can't be asked."""
    if keys:
        published = [{"key": str(key.verifier), "current": is_current} for key, is_current in keys]
        page.route(KEYS, lambda route: route.fulfill(json={"keys": published}))
    page.goto(f"{console.url}/console/receipts")
    page.get_by_role("heading", level=1).wait_for()


def choose(page: Page, content: bytes) -> None:
    page.get_by_label("Choose a file").set_input_files(
        FilePayload(name="receipt.json", mimeType="application/json", buffer=content)
    )


def test_the_browser_finds_what_python_finds(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    with_check(page)
    receipt_page(page, console)
    sizes = [receipt_bytes(example_receipt(records=range(size), size=size, key=KEY)) for size in (1, 2, 3, 8, 33)]
    special = receipt_bytes(example_receipt(records=[0], size=1, key=KEY).model_copy(update={"items": ()}))
    foreign = example_leaf(1, organization_id="nord 'æ' (1)*!~")
    texts = [RECEIPT, *sizes, special, RECEIPT + b"\n", json.dumps(json.loads(RECEIPT)).encode(), b"[]", b"", b"null"]
    texts += [changed(change) for change, _ in FAULTS]
    texts += [receipt_bytes(example_receipt(records=[2], size=2, key=KEY, others=[foreign]))]
    found = page.evaluate(CHECK, [text.decode() for text in texts])
    for text, faults in zip(texts, found, strict=True):
        expected = {(each.fault.value, each.position) for each in check_receipt(text).faults}
        assert {(each["fault"], each["position"]) for each in faults} == expected, text
    assert found[0] == []


def test_the_browser_notices_every_altered_byte(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    with_check(page)
    receipt_page(page, console)
    receipt = receipt_bytes(example_receipt(records=[1], size=3, key=KEY))
    assert page.evaluate(ALTER, receipt.decode()) == [[], []]


def test_a_receipt_is_checked_without_a_request(
    console: ApiServer, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    page = context.new_page()
    receipt_page(page, console, (OTHER, True), (KEY, False))
    check(page, screenshots / "receipt-before.png")
    context.set_offline(True)
    sent = len(watch.requests)

    # Dropped anywhere on the page.
    data = page.evaluate_handle(
        "text => { const all = new DataTransfer(); all.items.add(new File([text], 'receipt.json')); return all; }",
        RECEIPT.decode(),
    )
    page.dispatch_event("main", "drop", {"dataTransfer": data})
    verdict = page.locator("#verdict-title")
    expect(verdict).to_have_text("The receipt holds")
    expect(page.locator("#verdict")).to_be_focused()
    main = page.get_by_role("main")
    expect(main).to_contain_text("2 records, dated 03.03.2026 to 06.03.2026.")
    expect(main).to_contain_text("a former key of this service")
    expect(main).to_contain_text(KEY.verifier.fingerprint)
    expect(main).to_contain_text(f"records.example.org/{ORGANIZATION}")
    rows = page.get_by_role("row")
    expect(rows).to_have_count(3)
    expect(rows.nth(1)).to_contain_text("mentor-2")
    expect(rows.nth(2)).to_contain_text("Not disclosed")
    check(page, screenshots / "receipt-holds.png")

    # Chosen by keyboard; changed and correctly rewritten.
    choose(page, changed(lambda document: document["items"][0]["leaf"].update(duration_minutes=600)))
    expect(verdict).to_have_text("The receipt does not hold")
    expect(main).to_contain_text("1 of 2 records is wrong.")
    expect(rows.nth(1)).to_contain_text("The record or its proof was changed.")
    expect(rows.nth(2)).to_contain_text("Holds")
    check(page, screenshots / "receipt-changed.png")

    choose(page, RECEIPT.replace(b"\\n7\\n", b"\\n6\\n"))
    expect(main).to_contain_text("The signature is wrong")
    expect(rows.nth(2)).to_contain_text("The proof was changed.")
    choose(page, RECEIPT + b" ")
    expect(main).to_contain_text("A program has rewritten the file")
    expect(rows.nth(1)).to_contain_text("Not proved")
    choose(page, b"mentor;minutes")
    expect(verdict).to_have_text("This is not a receipt")
    assert len(watch.requests) == sent
    context.set_offline(False)
    assert watch.faults == []


def test_the_key_is_compared_if_the_service_can_be_asked(console: ApiServer, context: BrowserContext, screenshots: Path) -> None:
    page = context.new_page()
    page.route(KEYS, lambda route: route.abort())
    receipt_page(page, console)
    choose(page, RECEIPT)
    expect(page.locator("#verdict-title")).to_have_text("Unchanged, but the key has not been compared")
    check(page, screenshots / "receipt-not-compared.png")
    page.unroute(KEYS)
    receipt_page(page, console, (OTHER, True))
    choose(page, RECEIPT)
    expect(page.locator("#verdict-title")).to_have_text("Unchanged, but signed with a key that this service does not know")
    receipt_page(page, console, (KEY, True))
    choose(page, RECEIPT)
    expect(page.locator("#verdict-title")).to_have_text("The receipt holds")


def test_an_auditor_finds_the_page_and_a_large_receipt_has_pages(console: ApiServer, context: BrowserContext) -> None:
    page = context.new_page()
    log_in(page, console, "Auditor")
    page.get_by_role("navigation").get_by_role("link", name="Receipts").click()
    choose(page, receipt_bytes(example_receipt(records=range(250), size=260, key=KEY)))
    rows = page.get_by_role("row")
    expect(rows).to_have_count(101)
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_text("of 250")).to_contain_text("101")
    expect(page.locator("#records")).to_be_focused()
    page.get_by_role("button", name="Next").click()
    expect(rows).to_have_count(51)
    expect(page.get_by_role("button", name="Next")).to_be_disabled()


def test_the_receipt_of_a_batch_is_downloaded_and_holds(
    console: ApiServer, settings: Settings, engine: Engine, context: BrowserContext, watch: Watch, screenshots: Path
) -> None:
    pipeline = Pipeline(settings, engine)
    pipeline.submit([*mentors(3), item("nobody")], label="Monday group")
    pipeline.drain()
    pipeline.close()
    announce_key(engine)
    page = context.new_page()
    log_in(page, console, "Auditor")
    page.get_by_role("link", name="Monday group").click()
    button = page.get_by_role("button", name="Receipt")
    with page.expect_download() as downloading:
        button.click()
        expect(page.locator(".meta", has_text="The receipt will be ready in a few seconds.")).to_be_visible()
        expect(page.get_by_role("status").filter(has_text="The receipt will be ready")).to_have_count(1)
        append_and_sign(engine)
    download = downloading.value
    expect(page.locator(".meta", has_text="The receipt will be ready")).to_have_count(0)
    assert download.suggested_filename.startswith("receipt-")
    check(page, screenshots / "batch-with-receipt.png")
    content = Path(download.path()).read_bytes()
    assert check_receipt(content).holds

    page.get_by_role("navigation").get_by_role("link", name="Receipts").click()
    choose(page, content)
    expect(page.locator("#verdict-title")).to_have_text("The receipt holds")
    main = page.get_by_role("main")
    expect(main).to_contain_text("3 records of 25.03.2026.")
    expect(main).to_contain_text("this service's key")
    assert watch.faults == []


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("language", ["nb", "en"])
def test_each_verdict_in_every_way(
    console: ApiServer, chromium: Browser, screenshots: Path, scheme: Any, width: int, language: str
) -> None:
    context = chromium.new_context(
        locale=language, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    page = context.new_page()
    receipt_page(page, console, (KEY, True))
    texts = {
        "holds": RECEIPT,
        "changed": canonical_json(json.loads(RECEIPT.replace(b'":32,', b'":33,'))),
        "unreadable": b"mentor;minutes",
        "elsewhere": receipt_bytes(example_receipt(records=[1], size=3, key=OTHER)),
    }
    for name, content in texts.items():
        page.locator("#receipt-file").set_input_files(
            FilePayload(name="receipt.json", mimeType="application/json", buffer=content)
        )
        expect(page.locator("#verdict")).to_be_focused()
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        check(page, screenshots / f"receipt-{name}-{language}-{scheme}-{width}.png")
    context.close()
