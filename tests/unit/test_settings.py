"""Which values of settings are refused before anything starts, and what is read from the accepted ones."""

import base64
from ipaddress import ip_network
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from orchestrator.process.settings import Settings
from orchestrator.receipts.keys import SigningKey

KEYS = [base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (251, 2)]


def refused(**given: Any) -> str:
    with pytest.raises(ValidationError) as found:
        Settings(**given)
    return str(found.value)


def test_a_key_for_receipts_has_the_name_of_the_deployment() -> None:
    secret = SigningKey.generate("records.example.org").secret_text()
    key = SecretStr(secret)
    assert Settings(receipts_origin="records.example.org", receipts_signing_key=key).receipts_signing_key == key
    for origin in ("records.example", "records.example.org/north", "bulkreg"):
        said = refused(receipts_origin=origin, receipts_signing_key=key)
        assert f"must begin with PRIVATE+KEY+{origin}+" in said
        assert secret not in said


def test_the_largest_submission_fits_the_backlog() -> None:
    assert Settings(max_items=7, max_backlog_items=7).max_backlog_items == 7
    assert "max_items (8) must not exceed max_backlog_items (7)" in refused(max_items=8, max_backlog_items=7)


@pytest.mark.parametrize("written", [f"{KEYS[0]},{KEYS[1]}", f" {KEYS[0]} , {KEYS[1]} ", ",".join(KEYS).replace("=", "")])
def test_the_keys_of_webhooks_are_a_list(written: str) -> None:
    assert Settings(webhook_keys=SecretStr(written)).webhook_key_list == tuple(key.encode() for key in KEYS)


@pytest.mark.parametrize(
    "written",
    [
        "",
        f"{KEYS[0]},",
        f"{KEYS[0]},short-secret",
        base64.urlsafe_b64encode(bytes(31)).decode(),
        base64.urlsafe_b64encode(bytes(33)).decode(),
    ],
)
def test_what_is_no_key_of_a_webhook_is_refused(written: str) -> None:
    said = refused(webhook_keys=SecretStr(written))
    assert "must be keys of 32 bytes in URL-safe base64" in said
    assert not written or written not in said


def test_the_networks_of_receivers_are_a_list() -> None:
    allowed = Settings(webhook_allowed_networks=" 10.1.0.0/16, fd00::/8 ,").webhook_networks
    assert allowed == (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    assert Settings().webhook_networks == ()
    for written in ("10.1.0.1/16", "10.1.0.0/33", "receiver.example.org", "10.1.0.0/16;10.2.0.0/16"):
        assert "must be networks like 10.1.0.0/16" in refused(webhook_allowed_networks=written)


def test_plans_have_a_key_of_their_own() -> None:
    shared, other = SecretStr("a" * 32), SecretStr("b" * 32)
    chosen = Settings(plan_signing_key=other, jwt_hs256_key=shared)
    assert chosen.plan_key == other.get_secret_value()
    derived = Settings(jwt_hs256_key=shared)
    assert derived.plan_key == Settings(jwt_hs256_key=shared).plan_key
    assert derived.plan_key not in (None, shared.get_secret_value(), Settings(jwt_hs256_key=other).plan_key)
    by_password = [
        Settings(api_database_url=SecretStr(f"postgresql://api{password}@127.0.0.1/x")).plan_key
        for password in (":one", ":two", "")
    ]
    assert len(set(by_password)) == 3
    assert (by_password[2], derived.plan_key in by_password) == (None, False)
