"""Every setting of the product, typed, with its unit and its reason; the only place that reads the environment.

Each is the environment variable `BULKREG_` + its name in capitals, and every process of a deployment is given the same ones.
"""

import hashlib
import hmac
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from schemas.events import MAX_BATCH_BYTES
from schemas.strict_json import MAX_JSON_DEPTH

EARLIEST_YEAR = 1990
"""Before it no activity was done, unless a deployment says otherwise: such dates are slips, a year of two digits or a number taken for a day."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

WORKER_ROLE = "bulkreg_worker"
API_ROLE = "bulkreg_api"


class RefusedStartError(ValueError):
    """With these settings nothing is started. The message says which one mends it."""


class Settings(BaseSettings):
    """The settings of one process. Raises pydantic's ValidationError on a value that can't be."""

    # A mistake is told without the value: that of a secret would be in the clear.
    model_config = SettingsConfigDict(env_prefix="BULKREG_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://localhost/bulkreg"),
        description="URL with the owner's rights: migrations, and (where no other is given) what the other two derive from.",
    )
    worker_database_url: SecretStr | None = Field(
        default=None,
        description="URL of the relay and the consumers. Default: the role bulkreg_worker on DATABASE_URL.",
    )
    api_database_url: SecretStr | None = Field(
        default=None, description="URL of the API, which owns nothing. Default: the role bulkreg_api on DATABASE_URL."
    )
    statement_timeout_ms: int = Field(
        default=30_000,
        gt=0,
        description="A statement that runs longer is stuck: the longest, a cancel of 10,000, takes 1 s.",
    )
    lock_timeout_ms: int = Field(
        default=10_000,
        gt=0,
        description="Shorter than the statement's: a queue behind a lock is retried, not waited out.",
    )
    idle_in_transaction_timeout_ms: int = Field(
        # The longest that a healthy process thinks inside a transaction is 2 s, for a batch of 10,000 on two busy cores.
        default=15_000,
        gt=0,
        description="A process that is stopped inside a transaction gives its locks back after this.",
    )
    api_database_connections: int = Field(
        # At 16 clients on two cores: 4 made 5,400 items/s, 8 6,100, 12 6,600, 16 6,400. Those that wait for one that stores are its next set.
        default=12,
        ge=1,
        description="Connections, and threads, of one API process for all but large bodies: as many submissions as one commit may gather.",
    )

    # --- Kafka --------------------------------------------------------------------------------------------------------
    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, several with commas.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_allow_plaintext: bool = Field(
        default=False, description="PLAINTEXT to a broker that is not on loopback is refused unless this asks for it."
    )
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_ca_location: Path | None = None
    kafka_ssl_certificate_location: Path | None = None
    kafka_ssl_key_location: Path | None = None
    topic_prefix: str = Field(default="bulk-registration", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    topic_partitions: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Of each topic: the most consumers of one role that can share the work. Each costs: with 6 an item takes 6 % more CPU.",
    )
    topic_replication_factor: int = Field(
        default=1, ge=1, description="3 in production: a record then has two copies before it is acknowledged."
    )
    topic_retention_hours: int = Field(
        default=14 * 24,
        ge=1,
        description="The replay window. Shorter than the purge time: a replayed event must find its batch or the tombstone.",
    )
    max_poll_interval_ms: int = Field(
        default=120_000,
        ge=6_000,
        description="A consumer that has not polled for this long has lost its partitions and ends.",
    )
    max_batch_records: int = Field(default=500, ge=1, description="Most records in one micro-batch, one transaction.")
    set_aside_after_ms: int = Field(
        default=180_000,
        gt=0,
        description="A record that fails in the same way for so long, while others get through, is set aside as internal_error. "
        "Longer than a failover takes.",
    )
    bulk_threshold_items: int = Field(
        default=100,
        ge=1,
        description="A batch with more items travels in the bulk lane, so that small batches don't wait behind it.",
    )
    bulk_lane_share: float = Field(
        default=0.25, gt=0, lt=1, description="Share of a micro-batch that the bulk lane gets while the other has work."
    )

    # --- Outbox relay and sweeper -------------------------------------------------------------------------------------
    relay_poll_ms: int = Field(
        default=1_000,
        ge=1,
        description="How late a row is found whose NOTIFY was lost. Each poll of an idle relay costs CPU.",
    )
    relay_batch_rows: int = Field(default=500, ge=1, description="Outbox rows published between two commits.")
    relay_lease_ms: int = Field(
        default=10_000,
        ge=1_000,
        description="A relay that has not spoken to the database for this long (it is stopped, or its machine is) loses its slots to another.",
    )
    sweep_interval_ms: int = Field(
        # A lost item has been quiet for 20 s, is seen by the next sweep, known to be behind the splitter by the one after, and behind the
        # registration by the third, which sends it again: 20 + 3 x 12 = 56 s at most.
        default=12_000,
        ge=10,
        description="Time between two sweeps: a stuck item is driven on within 60 s (invariant 5).",
    )
    sweep_stuck_after_ms: int = Field(default=20_000, ge=0, description="Ignore batches that changed within this time.")
    trouble_after_ms: int = Field(
        default=300_000,
        gt=0,
        description="An event that waits in the outbox, or a queue that does not move, for this long is a breach to `verify`, and its relay is "
        "not ready. Longer than an outage that is over by itself.",
    )
    batch_stuck_after_minutes: int = Field(
        default=60,
        gt=0,
        description="A running batch of which nothing was decided for this long is a breach to `verify`, whatever it waits for. Longer than the "
        "queue ever is.",
    )
    max_restarts: int = Field(
        default=5,
        ge=1,
        description="A role that begins more often than this within 10 minutes on one host is a breach to `verify`, and not ready for a minute.",
    )
    sweep_max_resends: int = Field(default=5, ge=1, description="After so many the item ends as internal_error (invariant 5).")
    purge_after_hours: int = Field(default=90 * 24, ge=1, description="A deleted batch is purged this long after its deletion.")
    parts_timeout_hours: int = Field(
        default=24, ge=1, description="An upstream batch whose parts have not all come by then is rejected as incomplete."
    )

    # --- External registration service (docs/external-registration.md) ------------------------------------------------
    registration_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+(/\S*)?$",
        description="Base URL of an external registration service, for the API, too. Unset: activities are registered in our own database.",
    )
    registration_token: SecretStr | None = Field(default=None, description="Bearer token for the external service.")
    registration_allow_plaintext: bool = Field(
        default=False,
        description="Requests carry notes: http to a service that is not on loopback is refused unless this asks for it.",
    )
    registration_concurrency: int = Field(
        default=16,
        ge=1,
        description="Requests on their way at once from one process: what the service must bear, times the processes.",
    )
    registration_request_timeout_ms: int = Field(
        default=8_000,
        ge=10,
        description="One try, from connecting to the end of the answer. Less than a stopping process waits (10 s).",
    )
    registration_deadline_ms: int = Field(
        default=30_000, ge=10, description="All tries of one item together; then it is answered registration_unavailable."
    )
    registration_breaker_failures: int = Field(
        default=5,
        ge=1,
        description="So many items in a row without one definite answer: the service is away, and consumption pauses.",
    )
    registration_breaker_max_pause_ms: int = Field(
        default=30_000, ge=10, description="Longest time between two looks whether the service is back."
    )

    # --- HTTP ---------------------------------------------------------------------------------------------------------
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8080, ge=0, le=65535)
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Where a process that does not run the API answers /healthz, /readyz and /metrics, on API_HOST. Unset: nowhere.",
    )
    max_items: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Items in one submission. Ids hold 20 bits of position."
    )
    earliest_activity_year: int = Field(
        default=EARLIEST_YEAR,
        ge=1,
        le=9999,
        description="An activity of an earlier year is refused as invalid_item: a slip of the keyboard, or a number taken for a day of 1900. "
        "An external registration service has rules of its own.",
    )
    max_body_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, description="A larger request body is 413.")
    max_batch_bytes: int = Field(
        default=MAX_BATCH_BYTES,
        ge=1024,
        description="Of one batch as it was sent: the body of a submission, or the data of all parts of an upstream batch together. "
        "A larger one is refused as too_large. Its notes are held in memory a few times over while it is stored.",
    )
    api_max_waiting_requests: int = Field(
        default=1_000,
        ge=1,
        description="Requests in one API process that wait for the database or use it; more are 503. At 500/s the last waits 2 s.",
    )
    max_backlog_items: int = Field(
        default=1_000_000,
        ge=1,
        description="Accepted items that may wait, of all organizations: with more, submissions are 503 and told when to come again. "
        "Some minutes of work, or 1.2 GB of tables and outbox while Kafka is away.",
    )
    api_requests_per_minute: dict[Literal["coordinator", "admin", "service", "auditor"], Annotated[int, Field(ge=1)]] = Field(
        default={},
        description='Of one caller, by role, in each API process; more are 429. JSON: {"coordinator": 600}. Absent: no limit.',
    )
    api_watch_poll_ms: int = Field(
        default=5_000,
        ge=10,
        description="How late a follower learns of a change whose NOTIFY was lost: one statement for all followers of a process.",
    )
    max_json_depth: int = Field(default=MAX_JSON_DEPTH, ge=4, description="A deeper JSON document is 400.")
    idempotency_key_days: int = Field(default=7, ge=7, description="How long an Idempotency-Key is honoured.")

    # --- Identity -----------------------------------------------------------------------------------------------------
    jwt_hs256_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Development only: the shared key that signs tokens (RFC 7518: 256 bits).",
    )
    jwt_jwks_url: str | None = None
    jwt_issuer: str = "bulkreg"
    jwt_audience: str = "bulkreg"
    jwt_leeway_s: int = Field(
        default=10,
        ge=0,
        le=300,
        description="How many seconds a token is accepted before its nbf and after its exp: the clocks of an issuer and of this machine differ.",
    )

    plan_signing_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Signs the plans of previews; the same in every API process. "
        "Default: derived from JWT_HS256_KEY or the API's database password.",
    )

    # --- Observation --------------------------------------------------------------------------------------------------
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_directory: Path | None = Field(
        default=None, description="Where librdkafka's lines go; the product's own go to standard error."
    )
    failpoints: str = Field(
        default="", description="Tests only: names of crash windows to act on, `name=crash@3,…`. Empty: none exists."
    )

    @field_validator("database_url", "worker_database_url", "api_database_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                make_url(value.get_secret_value())
            except (ArgumentError, ValueError):
                raise ValueError("no URL like postgresql://user:password@host:5432/database") from None
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
            message = f"max_items ({self.max_items}) must not be larger than max_backlog_items ({self.max_backlog_items})"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _notes_travel_encrypted(self) -> Self:
        if self.registration_url is not None and not self.registration_allow_plaintext:
            url = urlsplit(self.registration_url)
            if url.scheme != "https" and url.hostname not in LOOPBACK:
                raise ValueError("registration_url must be https outside loopback; registration_allow_plaintext lifts this")
        return self

    @cached_property
    def owner_url(self) -> URL:
        """Where migrations run."""
        return make_url(self.database_url.get_secret_value()).set(drivername="postgresql+psycopg2")

    @cached_property
    def worker_url(self) -> URL:
        """Where the relay and the consumers work; they see every organization."""
        return self._role_url(self.worker_database_url, WORKER_ROLE)

    @cached_property
    def api_url(self) -> URL:
        """Where the API works; it sees the organizations that its transaction names."""
        return self._role_url(self.api_database_url, API_ROLE)

    @property
    def plan_key(self) -> str | None:
        """What plans are signed with; None: there is no secret that it could come from."""
        if self.plan_signing_key is not None:
            return self.plan_signing_key.get_secret_value()
        return None if self.api_secret is None else hmac.new(self.api_secret, b"plan", hashlib.sha256).hexdigest()

    @property
    def api_secret(self) -> bytes | None:
        """A secret that every API process of a deployment has, and nobody else; None where there is none."""
        if self.jwt_hs256_key is not None:
            return self.jwt_hs256_key.get_secret_value().encode()
        return self.api_url.password.encode() if self.api_url.password else None

    @property
    def max_json_values(self) -> int:
        """In a request body: room for the largest submission or retry with three times the fields that there are."""
        return 25 * self.max_items + 10_000

    def _role_url(self, given: SecretStr | None, role: str) -> URL:
        if given is not None:
            return make_url(given.get_secret_value()).set(drivername="postgresql+psycopg2")
        return self.owner_url.set(username=role, password=self.derived_password(role))

    def derived_password(self, role: str) -> str | None:
        """The password of a role that `db upgrade` made: derived from the owner's, so one URL is enough to run everything."""
        if self.owner_url.password is None:
            return None
        return hmac.new(self.owner_url.password.encode(), role.encode(), hashlib.sha256).hexdigest()
