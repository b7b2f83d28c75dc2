"""The checks of `bulkreg doctor`: every setting and every connection of a deployment, with how to fix what is wrong.

The checks change nothing. A check returns findings. One that can't run because something else is wrong returns none.
"""

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from api.access.authentication import NoAuthentication, authenticator
from compose.database_findings import database_findings
from compose.doctor_connection import engine_for
from compose.findings import TIMEOUT_S, Finding, State
from compose.forgetting_findings import forgetting_findings
from compose.kafka_findings import kafka_findings
from compose.outbox_findings import outbox_findings
from compose.receipt_findings import receipt_findings
from compose.webhook_findings import webhook_findings
from orchestrator.process.outgoing import heeds_environment, without_credentials
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.settings import LOOPBACK, Settings

# What the examples of compose/docker have in place of each secret.
_PLACEHOLDER = "change-me"

# Variables of other programs of ours, which are no settings.
_OTHER_VARIABLES = frozenset({"HOME", "URL", "TOKEN", "CACHE_DIR", "TEST_STACK", "TEST_PGBOUNCER", "COMPLETE"})


def examine(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Runs all checks, and yields each finding as soon as it is found. `environment`: where the settings came from."""
    yield from _settings(settings, environment)
    yield from _identity(settings)
    yield from database_findings(settings, environment)
    yield from _registration(settings)
    yield from _work(settings)
    yield from kafka_findings(settings)


# --- Settings and identity ----------------------------------------------------------------------------------------------------


def _settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    wrong = [*_unknown(environment), *_dangerous(settings)]
    yield from wrong
    if not wrong:
        given = len(settings.model_fields_set)
        yield Finding("settings", State.OK, f"{len(Settings.model_fields)} settings, {given} of them given, all valid")


def _unknown(environment: Mapping[str, str]) -> Iterator[Finding]:
    known = {f"BULKREG_{name.upper()}" for name in Settings.model_fields} | {f"BULKREG_{name}" for name in _OTHER_VARIABLES}
    for name in sorted(name for name in environment if name.startswith("BULKREG_") and name not in known):
        yield Finding(
            "settings", State.UNSAFE, f"{name} is not a setting and has no effect", f"correct its name, or unset {name}"
        )


def _dangerous(settings: Settings) -> Iterator[Finding]:
    if settings.failpoints:
        yield Finding(
            "settings", State.UNSAFE, "failpoints are set: processes crash where tests want it", "unset BULKREG_FAILPOINTS"
        )
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        if isinstance(value, SecretStr) and _PLACEHOLDER in value.get_secret_value():
            detail = f"BULKREG_{name.upper()} contains the example's secret, which everybody knows"
            yield Finding("settings", State.UNSAFE, detail, "replace the secret by a random one: openssl rand -hex 32")


def _identity(settings: Settings) -> Iterator[Finding]:
    try:
        made = authenticator(settings)
    except RefusedStartError as error:
        yield Finding("authentication", State.UNSAFE, "the API would not start", str(error))
        return
    if isinstance(made, NoAuthentication):
        yield Finding(
            "authentication",
            State.ADVICE,
            "there is none: any process on this machine can do everything",
            "set BULKREG_JWT_JWKS_URL (or, for development, BULKREG_JWT_HS256_KEY)",
        )
    elif settings.jwt_jwks_url is None:
        beyond = settings.api_host not in LOOPBACK
        yield Finding(
            "authentication",
            State.ADVICE if beyond else State.OK,
            "a development key signs the tokens",
            "set BULKREG_JWT_JWKS_URL, and unset BULKREG_JWT_HS256_KEY" if beyond else None,
        )
    else:
        yield _identity_provider(settings.jwt_jwks_url)
    if settings.plan_key is None:
        yield Finding(
            "plans",
            State.UNSAFE,
            "the API would not start: its database role has no password to derive the plans' signing key from",
            "set BULKREG_PLAN_SIGNING_KEY to 32 random characters or more, the same for every API process",
        )


def _identity_provider(url: str) -> Finding:
    subject, shown = "identity provider", without_credentials(url)
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=heeds_environment(url))
        answer.raise_for_status()
        number = len(answer.json()["keys"])
    except httpx.HTTPError as error:
        reason = f"it returns status {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else error
        return Finding(
            subject, State.UNREACHABLE, f"{shown}: {reason}", "check BULKREG_JWT_JWKS_URL, and the network between the API and it"
        )
    except (ValueError, KeyError, TypeError):
        return Finding(subject, State.UNREACHABLE, f"{shown} returns no key set (RFC 7517)", "check BULKREG_JWT_JWKS_URL")
    if not number:
        return Finding(subject, State.UNREACHABLE, f"{shown} has no keys", "have the provider publish its signing keys")
    return Finding(subject, State.OK, f"{urlsplit(url).hostname} returns {number} keys")


# --- Work ---------------------------------------------------------------------------------------------------------------------

# Failed items count, because their retry asks under the same key and must reach the same service.
_IN_DOUBT = text("SELECT count(*) FROM orchestrator.dispatch WHERE state = 'asked'")


def _registration(settings: Settings) -> Iterator[Finding]:
    """Finds items that an external registration service was asked for and has not decided. Silent if the database can't be reached."""
    try:
        with engine_for(settings) as engine, engine.connect() as connection:
            in_doubt = connection.scalar(_IN_DOUBT)
    except DBAPIError:
        return
    if not in_doubt:
        return
    detail = f"{in_doubt:,} items are in doubt: an external service was asked to register them and has not responded"
    if settings.registration_url is None:
        fix = "set BULKREG_REGISTRATION_URL to that service again until they are settled; no other service may register them"
        yield Finding("registration", State.ADVICE, detail, fix)
    else:
        yield Finding("registration", State.OK, f"{detail}; do not change BULKREG_REGISTRATION_URL until they are settled")


def _work(settings: Settings) -> Iterator[Finding]:
    """What leaves the product, and who is forgotten. Silent if the database can't be reached: other checks report that."""
    try:
        with engine_for(settings) as engine, engine.connect() as connection:
            yield from outbox_findings(connection, settings)
            yield from webhook_findings(connection, settings)
            yield from forgetting_findings(connection, settings)
            yield from receipt_findings(connection)
    except DBAPIError:
        return
