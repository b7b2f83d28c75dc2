"""The files of the console: their headers, their texts in both languages, and that they load nothing from elsewhere."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest

from api.console.pages import HEADERS, PAGES, SCRIPT, STATIC, STYLES, style_sheets
from api.http.problems import PROBLEMS
from api.vendored.manifest import read_manifest
from orchestrator.files import cells
from orchestrator.files.mistakes import FileMistake
from orchestrator.files.registrations import COLUMNS
from orchestrator.files.remarks import RemarkCode
from orchestrator.process.settings import Settings
from orchestrator.registration.rules import DUPLICATE_ACTIVITY, INTERNAL_ERROR, REGISTRATION_UNAVAILABLE, RULES
from schemas import mistakes
from schemas.statuses import KeptBecause
from tests.support.api_server import running_api
from tests.support.console import with_console

ROOT = STATIC.parents[2]
SCRIPTS = sorted(STATIC.rglob("*.js"))
CATALOGUES = {path.stem: json.loads(path.read_text()) for path in sorted((STATIC / "messages").glob("*.json"))}
TEXT = "\n".join(path.read_text() for path in SCRIPTS)
PLACE = re.compile(r"\{\w+\}")


def _codes_of_mistakes() -> Iterator[str]:
    """The codes of the mistakes that the API can return, in a request or in a file: those in its sources, and those of pydantic's errors."""
    yield from (code for code, _ in mistakes._CODES.values())
    yield from (cells.EMPTY, cells.TOO_LONG, FileMistake("", "").code, *(column.code for column in COLUMNS))
    for room in ("api", "schemas", "orchestrator/batches", "orchestrator/files"):
        for path in (ROOT / room).rglob("*.py"):
            yield from _codes_named_in(ast.parse(path.read_text()))


def _codes_named_in(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        match node:
            case ast.Call(func=ast.Name("Mistake" | "BadCellError"), args=[_, ast.Constant(str(code)), *_]):
                yield code
            case ast.keyword(arg="code", value=ast.Constant(str(code))):
                yield code


_ERRORS = [rule.error for rule in RULES]

CODES: Mapping[str, set[str]] = {
    "problem": {*PROBLEMS, "offline"},
    "error": {error.code for error in _ERRORS}
    | {f"{error.code}.{error.field}" for error in _ERRORS if error.code == "invalid_item"}
    | {DUPLICATE_ACTIVITY, REGISTRATION_UNAVAILABLE.code, INTERNAL_ERROR.code},
    "mistake": set(_codes_of_mistakes()),
    "warning": {"shorter_than_usual"},
    "kept": set(KeptBecause),
    "remark": {*RemarkCode} - {RemarkCode.UNKNOWN_COLUMNS},
}
"""The codes for which there is a sentence for people (`static/messages.js`)."""


@pytest.fixture(scope="module")
def pages() -> Iterator[httpx.Client]:
    """An API without a database, because pages need none."""
    settings = with_console(Settings())
    with running_api(settings, port=settings.api_port) as server, httpx.Client(base_url=server.url) as client:
        yield client


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_never_cached_and_has_its_policy(pages: httpx.Client, path: str) -> None:
    page = pages.get(PLACE.sub("1", path))
    assert (page.status_code, page.headers["Cache-Control"]) == (200, "no-store")
    assert {name: page.headers.get(name) for name in HEADERS} == HEADERS


def test_the_address_without_a_slash_redirects_to_the_page(pages: httpx.Client) -> None:
    answer = pages.get("/console")
    assert (answer.status_code, answer.headers["Location"]) == (308, "/console/")


@pytest.mark.parametrize("address", ["/console/static/start.js", SCRIPT, "/console/static/messages/nb.json", STYLES])
def test_a_file_is_revalidated_and_sent_again_after_a_change(pages: httpx.Client, address: str) -> None:
    file = pages.get(address)
    assert (file.status_code, file.headers["Cache-Control"]) == (200, "no-cache")
    assert file.headers["Content-Type"].split(";")[0] in ("text/javascript", "text/css", "application/json")
    unchanged = pages.get(address, headers={"If-None-Match": file.headers["ETag"]})
    assert unchanged.status_code == 304
    # A 304 has the headers that the 200 would have, because the browser replaces those that it has kept (RFC 9110, 15.4.5).
    kept = ("ETag", "Cache-Control", "Vary", "Content-Security-Policy")
    assert [unchanged.headers.get(name) for name in kept] == [file.headers[name] for name in kept]
    assert pages.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_vendored_file_is_kept_for_ever_in_either_coding(pages: httpx.Client) -> None:
    address = next(package.address(file) for package in read_manifest().packages for file in package.files)
    plain, packed = (pages.get(address, headers={"Accept-Encoding": coding}) for coding in ("identity", "gzip"))
    assert plain.content == packed.content
    assert [each.headers.get("Content-Encoding") for each in (plain, packed)] == [None, "gzip"]
    for each in (plain, packed):
        assert "immutable" in each.headers["Cache-Control"]
        # Otherwise a shared cache sends the packed file to a client that can't unpack it.
        assert each.headers["Vary"] == "Accept-Encoding"


def test_every_file_that_the_pages_load_exists(pages: httpx.Client) -> None:
    index = (STATIC / "index.html").read_text()
    script = pages.get(SCRIPT).text
    named = set(re.findall(r'(?:href|src)="(/[^"]+)"', index)) | set(re.findall(r'from "([^"]+)"', script))
    assert [address for address in named if pages.get(address).status_code != 200] == []
    vendored = {package.address(file) for package in read_manifest().packages for file in package.files}
    styles = pages.get(STYLES).text
    assert [path for path in style_sheets() if path.read_text() not in styles] == []
    assert {address for address in named if address.startswith("/vendored/")} <= vendored
    assert re.findall(r"https?:", TEXT + index) == []


def test_the_script_holds_every_module_and_its_imports_are_asked_for_at_once(pages: httpx.Client) -> None:
    """Without `modulepreload` a browser would learn of lit-html only from the script."""
    script = pages.get(SCRIPT).text
    joined = set(re.findall(r"^// /console/static/(\S+)$", script, re.MULTILINE))
    assert joined == {path.relative_to(STATIC).as_posix() for path in SCRIPTS} - {"start.js"}
    preloaded = re.findall(r'"modulepreload" href="([^"]+)"', (STATIC / "index.html").read_text())
    assert set(preloaded) == {SCRIPT, *re.findall(r'^import .* from "([^"]+)";', script, re.MULTILINE)}


def test_a_changed_module_is_joined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "app.js"
    module.write_text("before();\n")
    monkeypatch.setattr("api.console.pages.STATIC", tmp_path)
    for name in ("start.js", "index.html"):
        (tmp_path / name).touch()
    settings = with_console(Settings())
    with running_api(settings, port=settings.api_port) as server:
        assert "before();" in httpx.get(server.url + SCRIPT).text
        module.write_text("afterwards();\n")
        assert "afterwards();" in httpx.get(server.url + SCRIPT).text


def test_a_class_is_styled_by_one_sheet() -> None:
    """All sheets are one file for the browser, so a class of the same name in two pages would be styled by both."""
    sheets = {
        path.name: set(re.findall(r"^\.([a-z-]+)", path.read_text(), re.MULTILINE)) for path in (STATIC / "styles").glob("*.css")
    }
    owners: dict[str, list[str]] = {}
    for sheet, classes in sheets.items():
        for name in classes:
            owners.setdefault(name, []).append(sheet)
    assert {name: found for name, found in owners.items() if len(found) > 1 and not name.startswith("ds-")} == {}


def test_both_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    assert set(CATALOGUES) == {"nb", "en"}
    places = {name: {key: sorted(PLACE.findall(value)) for key, value in texts.items()} for name, texts in CATALOGUES.items()}
    assert places["nb"] == places["en"]
    assert all(value.strip() for texts in CATALOGUES.values() for value in texts.values())


def test_the_texts_in_use_are_exactly_those_that_exist() -> None:
    counted = set(re.findall(r'\bcounted\("([^"]+)"', TEXT))
    asked = set(re.findall(r'\btext\("([^"]+)"', TEXT)) | counted | {f"{key}.one" for key in counted}
    families = set(re.findall(r"\b(?:text|counted)\(`([^$`]+)\$\{", TEXT)) | {f"{family}." for family in CODES}
    keys = set(CATALOGUES["nb"])
    assert asked - keys == set()
    assert {key for key in keys - asked if not key.startswith(tuple(families))} == set()


@pytest.mark.parametrize("family", CODES)
@pytest.mark.parametrize("language", CATALOGUES)
def test_every_code_of_the_api_has_a_sentence(language: str, family: str) -> None:
    keys = {f"{family}.{code}" for code in CODES[family]} | {f"{family}.other"}
    assert sorted(keys - set(CATALOGUES[language])) == []
    assert [key for key in keys if not CATALOGUES[language][key].endswith(".")] == []


def test_every_reason_for_a_failed_login_has_a_sentence() -> None:
    python = "\n".join(path.read_text() for path in STATIC.parent.glob("*.py"))
    reasons = set(re.findall(r'LoginError\(\s*"(\w+)"', python)) | {"no_access", "bad_id_token", "provider_unavailable"}
    assert {f"logged_out.{reason}" for reason in reasons} <= set(CATALOGUES["nb"])


def test_no_script_turns_text_into_html_or_code() -> None:
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|unsafe", TEXT) == []
