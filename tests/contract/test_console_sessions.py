"""Sessions of the console: which requests their cookie is accepted in, how they end, and what is stored of them."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from api.console.sessions import SESSION_COOKIE
from orchestrator.process.settings import Settings
from schemas.paths import API_PATH
from tests.support.api_server import ApiServer
from tests.support.console import ME, Browser, browser, running_console, with_console
from tests.support.pipeline import COORDINATOR, ORGANIZATION, Pipeline, mentors


@pytest.fixture
def console(settings: Settings, pipeline: Pipeline) -> Iterator[ApiServer]:
    with running_console(with_console(settings)) as (server, _):
        yield server


@pytest.fixture
def person(console: ApiServer) -> Iterator[Browser]:
    """A coordinator who is logged in."""
    with browser(console) as person:
        person.log_in()
        yield person


def test_the_cookie_is_accepted_only_in_requests_of_the_console(console: ApiServer, person: Browser) -> None:
    conditions: dict[str, tuple[dict[str, str | None], tuple[int, str | None]]] = {
        "a request of the console": ({}, (200, None)),
        "no header of ours": ({"X_Bulkreg_Console": None}, (403, "not_from_console")),
        "another header of ours": ({"X_Bulkreg_Console": "0"}, (403, "not_from_console")),
        "another site": ({"Sec_Fetch_Site": "cross-site"}, (403, "not_from_console")),
        "another port of this host": ({"Sec_Fetch_Site": "same-site"}, (403, "not_from_console")),
        "an address that was typed": ({"Sec_Fetch_Site": "none"}, (403, "not_from_console")),
        "an old browser": ({"Sec_Fetch_Site": None}, (403, "not_from_console")),
    }
    for name, (headers, expected) in conditions.items():
        answer = person.fetch("GET", API_PATH, **headers)
        assert (answer.status_code, answer.json().get("code")) == expected, name
    for origin in (None, "null", "http://localhost:1", console.url.replace("127.0.0.1", "localhost")):
        for method, path in (("POST", f"{API_PATH}/preview"), ("DELETE", f"{API_PATH}/x"), ("POST", "/console/logout")):
            assert person.fetch(method, path, Origin=origin).json()["code"] == "not_from_console", (method, origin)
    assert person.fetch("POST", f"{API_PATH}/preview").status_code == 400  # accepted, but without a body


def test_a_link_of_the_console_downloads_a_file(person: Browser, pipeline: Pipeline) -> None:
    batch_id = pipeline.submit(mentors(2))
    for kind in ("csv", "ndjson"):
        path = f"{API_PATH}/{batch_id}/results.{kind}"
        by_link = person.fetch("GET", path, X_Bulkreg_Console=None)
        assert (by_link.status_code, by_link.text.count("mentor-")) == (200, 2)
        assert person.fetch("GET", path, X_Bulkreg_Console=None, Sec_Fetch_Site="cross-site").json()["code"] == "not_from_console"


def test_a_token_takes_precedence_over_the_cookie(console: ApiServer, person: Browser) -> None:
    token = console.token(sub="someone")
    answer = person.fetch("GET", ME, Authorization=f"Bearer {token}", Sec_Fetch_Site=None)
    assert answer.json()["subject"] == "someone"
    assert person.fetch("GET", ME, Authorization="Bearer x").json()["code"] == "bad_token"


def test_an_auditor_changes_nothing(console: ApiServer) -> None:
    with browser(console) as auditor:
        auditor.log_in("eye")
        assert auditor.fetch("POST", API_PATH).json()["code"] == "role_may_not"


def test_logging_out_ends_the_session(person: Browser) -> None:
    old = person.cookies[SESSION_COOKIE]
    out = person.fetch("POST", "/console/logout")
    assert out.status_code == 200
    assert out.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert out.json()["continue_at"].partition("?")[0].endswith("/logout")
    assert SESSION_COOKIE not in person.cookies
    assert person.fetch("GET", ME).json()["code"] == "no_token"
    person.cookies[SESSION_COOKIE] = old
    ended = person.fetch("GET", ME)
    assert (ended.status_code, ended.json()["code"], ended.headers["WWW-Authenticate"]) == (401, "session_ended", "Bearer")
    assert person.fetch("POST", "/console/logout").status_code == 200


@pytest.mark.parametrize("secret", ["", "x", "x" * 43, "x" * 44, "+" * 43])
def test_an_invalid_cookie_is_refused(person: Browser, secret: str) -> None:
    person.cookies[SESSION_COOKIE] = secret
    assert person.fetch("GET", ME).json()["code"] == "session_ended"


def test_a_session_ends_when_it_is_idle_and_at_the_end_of_the_day(person: Browser, owner: Engine) -> None:
    def age(**minutes: int) -> None:
        with owner.begin() as connection:
            for column, value in minutes.items():
                connection.execute(
                    text(f"UPDATE orchestrator.console_session SET {column} = now() - make_interval(mins => :value)"),
                    {"value": value},
                )

    def minutes_left() -> float:
        end = datetime.fromisoformat(person.fetch("GET", ME).json()["session_ends_at"])
        return (end - datetime.now(UTC)).total_seconds() / 60

    assert 29 < minutes_left() <= 30
    age(used_at=29)
    assert 29 < minutes_left() <= 30  # The session was used, so the idle time begins again.
    age(used_at=29)
    # A page that follows a batch does not extend the session.
    followed = person.fetch("GET", f"{API_PATH}/00000000-0000-7000-8000-000000000000/events")
    assert followed.json()["code"] == "batch_not_found"
    assert person.fetch("GET", ME, X_Bulkreg_Unattended="1").status_code == 200
    with owner.connect() as connection:
        idle = connection.execute(text("SELECT now() - used_at > interval '28 minutes' FROM orchestrator.console_session"))
        assert idle.scalar_one()
    age(used_at=31)
    assert person.fetch("GET", ME).json()["code"] == "session_ended"
    age(used_at=0, logged_in_at=7 * 60 + 50)
    assert 9 < minutes_left() <= 10
    age(logged_in_at=8 * 60 + 1)
    assert person.fetch("GET", ME).json()["code"] == "session_ended"


def test_the_requests_of_one_minute_store_one_use(person: Browser, owner: Engine) -> None:
    """A page that loads sends several requests, and each use that is stored is a write."""

    def uses() -> set[datetime]:
        with owner.connect() as connection:
            return set(connection.execute(text("SELECT used_at FROM orchestrator.console_session")).scalars())

    def aged(seconds: int) -> set[datetime]:
        with owner.begin() as connection:
            age = "UPDATE orchestrator.console_session SET used_at = now() - make_interval(secs => :seconds) RETURNING used_at"
            return set(connection.execute(text(age), {"seconds": seconds}).scalars())

    recent = aged(10)
    for _ in range(2):
        assert person.fetch("GET", ME).status_code == 200
    assert uses() == recent
    old = aged(70)
    assert person.fetch("GET", ME).status_code == 200
    assert min(uses()) > max(old)


def test_only_the_hash_of_the_secret_is_stored(person: Browser, owner: Engine) -> None:
    with owner.connect() as connection:
        [row] = connection.execute(text("SELECT * FROM orchestrator.console_session")).mappings()
    assert bytes(row["session_hash"]) == hashlib.sha256(person.cookies[SESSION_COOKIE].encode()).digest()
    assert (row["organization_id"], row["subject"], row["role"]) == (ORGANIZATION, COORDINATOR, "coordinator")
    assert set(row) == {"session_hash", "organization_id", "subject", "role", "logged_in_at", "used_at"}
