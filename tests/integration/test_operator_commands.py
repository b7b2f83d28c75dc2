"""The commands with which an operator makes keys and tokens, and gives a role another group."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from consumers.upkeep.groups import Groups, Renewal
from orchestrator.process.settings import Settings
from orchestrator.receipts.keys import SigningKey, VerifierKey
from tests.support.command_line import bulkreg
from tests.support.time_zone import local_time

NAMED = {"BULKREG_RECEIPTS_ORIGIN": "records.example.org"}


def told(settings: Settings, *command: str, **others: str) -> Any:
    result = bulkreg(settings, *command, "--json", **NAMED, **others)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# --- Keys -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name"), [([], "records.example.org"), (["--name", "other.example.org"], "other.example.org")]
)
def test_a_key_is_made_for_the_name_of_a_deployment(settings: Settings, engine: Engine, options: list[str], name: str) -> None:
    made = told(settings, "keys", "create", *options)
    key = SigningKey.parse(made["private_key"])
    assert (key.name, str(key.verifier), key.verifier.fingerprint) == (name, made["key"], made["fingerprint"])
    assert Settings(receipts_origin=name, receipts_signing_key=SecretStr(made["private_key"])).receipts_origin == name
    assert told(settings, "keys", "list") == {"keys": []}, "it is only printed"


def test_a_name_that_no_key_can_have_is_bad_input(settings: Settings) -> None:
    result = bulkreg(settings, "keys", "create", "--name", "two words")
    assert (result.exit_code, "the name of a key has no blanks" in result.stderr) == (2, True)


def test_the_next_key_is_listed_before_it_signs(settings: Settings, engine: Engine) -> None:
    first, second = (told(settings, "keys", "rotate") for _ in range(2))
    assert SigningKey.parse(second["private_key"]).name == "records.example.org"
    listed = [{"key": each["key"], "fingerprint": each["fingerprint"]} for each in (second, first)]
    assert told(settings, "keys", "list") == {"keys": listed}
    assert first["private_key"] not in bulkreg(settings, "keys", "list").output


def test_a_key_that_is_missing_is_listed_once(settings: Settings, engine: Engine) -> None:
    key = SigningKey.generate("records.example.org").verifier
    added = [told(settings, "keys", "add", str(key))["is_new"] for _ in range(2)]
    assert (added, [each["key"] for each in told(settings, "keys", "list")["keys"]]) == ([True, False], [str(key)])
    broken = str(VerifierKey(key.name, bytes(32))).replace("+", "+0", 1)
    assert bulkreg(settings, "keys", "add", broken).exit_code == 2


# --- Tokens ---------------------------------------------------------------------------------------------------------------------------


def test_a_development_token_is_valid_for_a_day_of_work(settings: Settings) -> None:
    secret = "s" * 32
    command = ("token", "--sub", "leader", "--role", "admin", "--org", "nordlys")
    made = told(settings, *command, BULKREG_JWT_HS256_KEY=secret)
    claims = jwt.decode(made["token"], secret, algorithms=["HS256"], audience="bulkreg", issuer="bulkreg")
    assert (claims["sub"], claims["role"], claims["org"]) == ("leader", "admin", "nordlys")
    lifetime_s = claims["exp"] - claims["iat"]
    assert timedelta(hours=8) < timedelta(seconds=lifetime_s) < timedelta(hours=24)
    assert made["expires_in_s"] == lifetime_s


# --- Groups ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_st_johns() -> Iterator[None]:
    with local_time("America/St_Johns"):
        yield


@pytest.mark.usefixtures("in_st_johns", "engine")
def test_a_group_reads_again_from_a_time_in_utc(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, datetime | None]] = []

    def renew(_groups: Groups, _engine: Engine, role: str, *, since: datetime | None = None) -> Renewal:
        asked.append((role, since))
        return Renewal(role, "a name", renewed=True)

    monkeypatch.setattr(Groups, "renew", renew)
    for options in ([], ["--from", "2026-03-25T10:00"]):
        told(settings, "groups", "renew", "splitter", *options)
    assert asked == [("splitter", None), ("splitter", datetime(2026, 3, 25, 10, tzinfo=UTC))]


# --- Topics ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("topics")
def test_topics_that_differ_from_their_plan_are_named(settings: Settings) -> None:
    planned = str(settings.topic_partitions)
    for partitions, exit_code in ((planned, 0), (str(settings.topic_partitions + 1), 1)):
        result = bulkreg(settings, "topics", "create", "--json", BULKREG_TOPIC_PARTITIONS=partitions)
        reports = json.loads(result.stdout)["topics"]
        assert (result.exit_code, any(each["created"] for each in reports)) == (exit_code, False), result.output
        assert any(each["differences"] for each in reports) == bool(exit_code)
