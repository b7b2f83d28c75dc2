"""Every setting of the product, typed, with its unit and its reason; the only place that reads the environment.

Each is the environment variable `BULKREG_` + its name in upper case. Every process of a deployment gets the same values. Those of PostgreSQL
and Kafka are in `server_settings.py`.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from orchestrator.process.outgoing import check_address
from orchestrator.process.ports import LAST_PORT
from orchestrator.process.server_settings import ServerSettings
from schemas.events import MAX_BATCH_BYTES
from schemas.strict_json import MAX_JSON_DEPTH

EARLIEST_YEAR = 1990
"""The default earliest year of an activity. Earlier dates are mistakes: a two-digit year, or a number read as a date."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(ServerSettings):
    """The settings of one process. Raises pydantic's ValidationError on an invalid value."""

    # --- Outbox relay and sweeper -------------------------------------------------------------------------------------
    relay_poll_ms: int = Field(
        default=1_000,
        ge=1,
        description="The relay polls this often, which finds rows whose NOTIFY was lost. Each poll of an idle relay costs CPU.",
    )
    relay_batch_rows: int = Field(default=500, ge=1, description="The most outbox rows published between two commits.")
    relay_lease_ms: int = Field(
        default=10_000,
        ge=1_000,
        description="A relay that has not contacted the database for this long (its process or machine is stopped) loses its slots to another.",
    )
    sweep_interval_ms: int = Field(
        # A lost item is quiet for 20 s. The next sweep sees it, the one after knows that the splitter has passed it, and the third knows that
        # the registration has passed it and sends it again: 20 + 3 x 12 = 56 s at most, if a sweep takes less than 10 s.
        default=12_000,
        ge=10,
        description="Time between the beginnings of two sweeps. The pause after a sweep is at least a tenth of it. With it, a stuck item is "
        "sent again within 60 s (invariant 5).",
    )
    sweep_stuck_after_ms: int = Field(
        default=20_000, ge=0, description="Ignore items whose attempt has begun, or was decided, within this time."
    )
    trouble_after_ms: int = Field(
        default=300_000,
        gt=0,
        description="`verify` reports a breach if an event waits in the outbox, or a queue does not move, for this long; the relay, or "
        "a consumer that does not read the queue itself, is then not ready. Longer than outages that end by themselves.",
    )
    batch_stuck_after_minutes: int = Field(
        default=60,
        gt=0,
        description="`verify` reports a breach if no item of a running batch was decided for this long, for whatever reason. Longer than the "
        "longest queue.",
    )
    max_restarts: int = Field(
        default=5,
        ge=1,
        description="`verify` reports a breach if a role starts more often within 10 minutes on one host; the role is then not ready for a "
        "minute.",
    )
    sweep_max_resends: int = Field(
        default=5, ge=1, description="After this many resends a lost item ends as internal_error (invariant 5)."
    )
    purge_after_hours: int = Field(default=90 * 24, ge=1, description="A deleted batch is purged this long after its deletion.")
    parts_timeout_hours: int = Field(
        default=24,
        ge=1,
        description="An upstream batch whose parts have not all arrived within this time is rejected as incomplete.",
    )

    notes_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="The sweeper erases notes this many days after the last attempt of their item, or its registration, as "
        "docs/operations.md says. Unset: notes are kept until somebody erases them.",
    )

    forgetting_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="The key of the hashes by which an import and a replay recognize people who were forgotten: random, kept outside of the "
        "database, and never changed. The sweeper and the commands need it. Unset: nobody is forgotten.",
    )
    revocation_window_days: int = Field(
        default=30,
        ge=0,
        le=36_500,
        description="A coordinator can revoke an activity until this many days after its registration; administrators and services always can.",
    )

    # --- Receipts (docs/receipts.md) ----------------------------------------------------------------------------------
    receipts_origin: str = Field(
        default="bulkreg",
        pattern=r"^[^\s+#/]+(/[^\s+#/]+)*$",
        max_length=200,
        description="The name of this deployment in receipts and their keys, unique in the world: bulkreg.example.org. A log keeps the "
        "name with which it began.",
    )
    receipts_signing_key: SecretStr | None = Field(
        default=None,
        description="The key that signs the checkpoints of receipts, made by `bulkreg keys create`. Only the notary needs it. Unset: nothing "
        "is signed, and there are no receipts.",
    )
    notary_poll_ms: int = Field(
        default=2_000,
        ge=10,
        description="How often the notary looks for new records. A receipt is available about this long after its batch.",
    )

    # --- External registration service (docs/external-registration.md) ------------------------------------------------
    registration_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="Base URL of an external registration service; the API needs it, too. Unset: activities are registered in PostgreSQL.",
    )
    registration_token: SecretStr | None = Field(default=None, description="Bearer token for the external service.")
    registration_allow_plaintext: bool = Field(
        default=False,
        description="Allow http to a service that is not on loopback, although requests carry notes. Otherwise the product refuses to start.",
    )
    registration_revokes: bool = Field(
        default=False,
        description="The external service offers POST registrations/revoke; the API needs it, too. Otherwise a revocation is refused with 501.",
    )
    registration_concurrency: int = Field(
        default=16,
        ge=1,
        description="Concurrent requests from one process. The service must handle this number times the processes.",
    )
    registration_request_timeout_ms: int = Field(
        default=8_000,
        ge=10,
        description="Timeout of one try, from connecting to the end of the response. Shorter than a stopping process waits (10 s).",
    )
    registration_deadline_ms: int = Field(
        default=30_000,
        ge=10,
        description="Time limit for all tries of one item together; then the item fails with registration_unavailable.",
    )
    registration_breaker_failures: int = Field(
        default=5,
        ge=1,
        description="After this many items in a row without a definite response, the service counts as unavailable, and consumption pauses.",
    )
    registration_breaker_max_pause_ms: int = Field(
        default=30_000, ge=10, description="Longest pause between two probes of an unavailable service."
    )

    # --- Webhooks (docs/webhooks.md) ----------------------------------------------------------------------------------
    webhook_keys: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt the webhooks' secrets, each 32 bytes in URL-safe base64, separated by commas: the first encrypts, all "
        "decrypt. The API and the notifier need them. Unset: there are no webhooks.",
    )
    webhook_allowed_networks: str = Field(
        default="",
        description="Networks that receivers may be in although they are not on the internet, such as 10.1.0.0/16, separated by commas. Only "
        "there URLs may be http. Set it for the API and the notifier.",
    )
    webhook_concurrency: int = Field(
        default=4,
        ge=1,
        description="The most concurrent requests to one webhook, from one process. A slow receiver occupies no more.",
    )
    webhook_connections: int = Field(
        default=400,
        ge=2,
        description="The most concurrent requests to all webhooks, from one process. Each needs a socket, so it has to be less than the "
        "process's limit of open files. Half of them are only for a first request to a receiver that works, so "
        "that receivers that hang take no others.",
    )
    webhook_delivery_days: int = Field(
        default=30,
        ge=4,
        description="How long ended deliveries are listed and can be redelivered; at least TOPIC_RETENTION_HOURS, so that an event that is "
        "read again is not sent again.",
    )

    # --- HTTP ---------------------------------------------------------------------------------------------------------
    api_host: str = Field(
        default="127.0.0.1",
        description="The address at which a process serves the API, or its health. 0.0.0.0: all addresses of the machine.",
    )
    api_port: int = Field(default=8080, ge=0, le=LAST_PORT, description="The API's port. 0: any free one.")
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=LAST_PORT,
        description="Port on API_HOST where a process without the API serves /healthz, /readyz and /metrics. Unset: not served.",
    )
    max_items: int = Field(
        default=10_000, ge=1, le=1_000_000, description="The most items in one submission. Item ids hold 20 bits of position."
    )
    earliest_activity_year: int = Field(
        default=EARLIEST_YEAR,
        ge=1,
        le=9999,
        description="An activity of an earlier year fails with invalid_item: it is a typing mistake, or a number read as a date in 1900. "
        "An external registration service has its own rules.",
    )
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="A larger request body is rejected with 413.")
    max_batch_bytes: int = Field(
        default=MAX_BATCH_BYTES,
        ge=1024,
        description="The most bytes of one batch as sent: the body of a submission, or the data of all parts of an upstream batch. "
        "A larger one is rejected as too_large. Its notes are in memory several times while it is stored.",
    )
    api_max_waiting_requests: int = Field(
        default=1_000,
        ge=1,
        description="The most requests in one API process that wait for or use the database; more get 503. At 500/s the last waits 2 s.",
    )
    max_backlog_items: int = Field(
        default=1_000_000,
        ge=1,
        description="The most accepted items that may wait, of all organizations; with more, submissions get 503 with Retry-After. "
        "A few minutes of work, or 1.2 GB of tables and outbox while Kafka is down.",
    )
    api_requests_per_minute: dict[Literal["coordinator", "admin", "service", "auditor"], Annotated[int, Field(ge=1)]] = Field(
        default={},
        description='Requests per minute of a caller, by role, in each API process; more get 429. JSON: {"coordinator": 600}. Absent: no limit.',
    )
    api_watch_poll_ms: int = Field(
        default=5_000,
        ge=10,
        description="How often a process polls for changes whose NOTIFY was lost, with one statement for all its followers.",
    )
    max_json_depth: int = Field(
        default=MAX_JSON_DEPTH, ge=4, description="A more deeply nested JSON document is rejected with 400."
    )
    idempotency_key_days: int = Field(default=7, ge=7, description="How long an Idempotency-Key is remembered.")

    # --- Identity -----------------------------------------------------------------------------------------------------
    jwt_hs256_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Development only: the shared key that signs tokens (RFC 7518: 256 bits).",
    )
    jwt_jwks_url: str | None = Field(
        default=None, description="Where the identity provider publishes the keys that its tokens are signed with (a JWK Set)."
    )
    jwt_issuer: str = Field(default="bulkreg", description="The issuer (iss) that a token must have.")
    jwt_audience: str = Field(default="bulkreg", description="The audience (aud) that a token must have.")
    jwt_leeway_s: int = Field(
        default=10,
        ge=0,
        le=300,
        description="Tokens are accepted this many seconds before nbf and after exp, because the clocks of issuer and API differ.",
    )

    # --- Console ------------------------------------------------------------------------------------------------------
    public_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s?#@A-Z]+$",
        description="Where browsers find the API, without a path, in small letters: https://bulkreg.example.org. The console needs it: behind "
        "a proxy the API can't tell its own address, by which it knows the requests of its own pages.",
    )
    oidc_issuer: str | None = Field(
        default=None,
        description="The OpenID Connect provider with which people log in to the console (its `issuer`). Unset: there is no console.",
    )
    oidc_client_id: str | None = Field(default=None, min_length=1, description="The console's client id at that provider.")
    oidc_client_secret: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="The client's secret. Unset, and without a key: a public client, which PKCE alone protects.",
    )
    oidc_client_key: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="The client's private key in PEM (RSA, P-256 or Ed25519), instead of a secret: with it the console signs who it is "
        "(private_key_jwt), and the provider has only the public key.",
    )
    oidc_client_key_id: str | None = Field(
        default=None, min_length=1, description="The name (kid) by which the provider finds the public key, if it has several."
    )
    oidc_scope: str = Field(
        default="openid",
        pattern=r"^openid( [\x21\x23-\x5b\x5d-\x7e]+)*$",
        description="The scopes to ask for: what the provider needs to put the three claims below into the ID token.",
    )
    oidc_subject_claim: str = Field(
        default="sub",
        min_length=1,
        description="The ID token's claim with the caller's id: for a coordinator, the id in the directory.",
    )
    oidc_organization_claim: str = Field(
        default="org", min_length=1, description="The ID token's claim with the organization's id."
    )
    oidc_role_claim: str = Field(
        default="role",
        min_length=1,
        description="The ID token's claim with the role: coordinator, admin or auditor, or a list in which exactly one of them is.",
    )

    plan_signing_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key that signs the plans of previews; must be the same in every API process. "
        "Default: derived from JWT_HS256_KEY or the API's database password.",
    )

    # --- Observation --------------------------------------------------------------------------------------------------
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lines below this level are not logged."
    )
    log_directory: Path | None = Field(
        default=None, description="Directory for librdkafka's log lines; the product's own go to standard error."
    )
    failpoints: str = Field(default="", description="Tests only: failpoints to activate, `name=crash@3,…`. Empty: none.")

    @field_validator("webhook_keys")
    @classmethod
    def _are_keys(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all(_is_key(key) for key in _padded(value)):
            raise ValueError(
                "must be keys of 32 bytes in URL-safe base64, separated by commas; make one with: openssl rand -base64 32 | tr +/ -_"
            )
        return value

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _are_networks(cls, value: str) -> str:
        try:
            _networks(value)
        except ValueError as error:
            raise ValueError(f"must be networks like 10.1.0.0/16, separated by commas: {error}") from None
        return value

    @model_validator(mode="after")
    def _replay_window_is_shorter_than_the_purge_time(self) -> Self:
        if self.topic_retention_hours >= self.purge_after_hours:
            message = (
                f"topic_retention_hours ({self.topic_retention_hours}) must be smaller than purge_after_hours "
                f"({self.purge_after_hours}): a replayed event must find the batch or its tombstone"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _largest_submission_fits_the_backlog(self) -> Self:
        if self.max_items > self.max_backlog_items:
            message = f"max_items ({self.max_items}) must not exceed max_backlog_items ({self.max_backlog_items})"
            raise ValueError(message)
        return self

    @field_validator("registration_url")
    @classmethod
    def _can_be_called(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_address(value)
            except ValueError as error:
                raise ValueError(f"is not a URL that can be called: {error}") from None
        return value

    @model_validator(mode="after")
    def _notes_travel_encrypted(self) -> Self:
        if self.registration_url is not None and not self.registration_allow_plaintext:
            url = urlsplit(self.registration_url)
            if url.scheme != "https" and url.hostname not in LOOPBACK:
                raise ValueError(
                    "registration_url must be https unless its host is loopback, or set registration_allow_plaintext=true"
                )
        return self

    @model_validator(mode="after")
    def _console_is_configured_whole(self) -> Self:
        if self.oidc_issuer is not None:
            missing = [name for name in ("oidc_client_id", "public_url") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"oidc_issuer is set, so the console also needs {' and '.join(missing)}")
        if self.oidc_client_secret is not None and self.oidc_client_key is not None:
            raise ValueError("oidc_client_secret and oidc_client_key are both set; the client proves itself by one of them")
        return self

    @model_validator(mode="after")
    def _receipts_key_has_the_name(self) -> Self:
        if self.receipts_signing_key is not None:
            begins = f"PRIVATE+KEY+{self.receipts_origin}+"
            if not self.receipts_signing_key.get_secret_value().startswith(begins):
                raise ValueError(
                    f"receipts_signing_key must begin with {begins}, as `bulkreg keys create` writes it for this receipts_origin"
                )
        return self

    @property
    def webhook_key_list(self) -> Sequence[bytes]:
        """The keys that encrypt webhooks' secrets, the newest first; none: there are no webhooks."""
        return () if self.webhook_keys is None else _padded(self.webhook_keys)

    @property
    def webhook_networks(self) -> Sequence[IPv4Network | IPv6Network]:
        """The networks that receivers may be in although they are not on the internet."""
        return _networks(self.webhook_allowed_networks)

    @property
    def plan_key(self) -> str | None:
        """The key that signs plans; None if there is no secret to derive it from."""
        if self.plan_signing_key is not None:
            return self.plan_signing_key.get_secret_value()
        return None if self.api_secret is None else hmac.new(self.api_secret, b"plan", hashlib.sha256).hexdigest()

    @property
    def api_secret(self) -> bytes | None:
        """A secret shared by exactly the API processes of a deployment; None if there is none."""
        if self.jwt_hs256_key is not None:
            return self.jwt_hs256_key.get_secret_value().encode()
        return self.api_url.password.encode() if self.api_url.password else None

    @property
    def max_json_values(self) -> int:
        """The most JSON values in a request body: enough for the largest submission or retry with three times its fields."""
        return 25 * self.max_items + 10_000


def _padded(keys: SecretStr) -> Sequence[bytes]:
    """The keys of the list. The padding at the end of each may be left out."""
    return tuple(key.strip().rstrip("=").encode() + b"=" for key in keys.get_secret_value().split(","))


def _is_key(padded: bytes) -> bool:
    try:
        return len(base64.b64decode(padded, altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False


def _networks(listed: str) -> Sequence[IPv4Network | IPv6Network]:
    return tuple(ip_network(each.strip()) for each in listed.split(",") if each.strip())
