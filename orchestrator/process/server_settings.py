"""The settings of a process for its servers: how it reaches PostgreSQL and Kafka, how long it waits for them, and which topics there are."""

import hashlib
import hmac
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from orchestrator.process.database_urls import check_addresses, database_url
from orchestrator.process.ports import LAST_PORT

WORKER_ROLE = "bulkreg_worker"
API_ROLE = "bulkreg_api"


class ServerSettings(BaseSettings):
    """The part of `Settings` that is about PostgreSQL and Kafka. Raises pydantic's ValidationError on an invalid value."""

    # Error messages omit the value, which may be a secret.
    model_config = SettingsConfigDict(env_prefix="BULKREG_", frozen=True, extra="ignore", hide_input_in_errors=True)

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------
    database_url: SecretStr = Field(
        default=SecretStr("postgresql://localhost/bulkreg"),
        description="URL with the owner's rights, for migrations. The other two URLs derive from it unless they are set.",
    )
    worker_database_url: SecretStr | None = Field(
        default=None,
        description="URL of the relay and the consumers. Default: the role bulkreg_worker on DATABASE_URL.",
    )
    api_database_url: SecretStr | None = Field(
        default=None, description="URL of the API's role, which owns no tables. Default: the role bulkreg_api on DATABASE_URL."
    )
    database_allow_plaintext: bool = Field(
        default=False,
        description="The network to PostgreSQL is trusted, so doctor does not report a connection that may be unencrypted.",
    )
    statement_timeout_ms: int = Field(
        default=30_000,
        gt=0,
        description="A statement that runs longer is cancelled as stuck. The longest, a cancel of 10,000 items, takes 1 s.",
    )
    lock_timeout_ms: int = Field(
        default=10_000,
        gt=0,
        description="A statement that waits longer for a lock is cancelled and retried. Shorter than the statement timeout.",
    )
    idle_in_transaction_timeout_ms: int = Field(
        # A healthy process computes for up to 2 s inside a transaction, for a batch of 10,000 on two busy cores.
        default=15_000,
        gt=0,
        description="The locks of a process that is stopped inside a transaction are released after this.",
    )
    api_database_connections: int = Field(
        # With 16 clients on two cores: 4 connections made 5,400 items/s, 8 6,100, 12 6,600, 16 6,400. Waiting submissions form the next commit.
        default=12,
        ge=1,
        description="Connections and threads of one API process for changes; reads and large bodies have some more. Also the most submissions "
        "that share a commit.",
    )

    api_drain_ms: int = Field(
        default=2_000,
        ge=0,
        description="When the API stops, clients with an open connection have this long to send one more request, whose response closes the "
        "connection. The process ends at most 16 s later, so what stops it has to wait longer than both together.",
    )
    request_deadline_ms: int = Field(
        default=10_000,
        ge=1_000,
        description="After this time a request that waits for the database gets 503; its result is unknown then. For long polls, streams and "
        "downloads: without progress.",
    )

    # --- Kafka --------------------------------------------------------------------------------------------------------
    kafka_bootstrap_servers: str = Field(default="127.0.0.1:9092", description="host:port, separated by commas.")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="SSL encrypts the connections to Kafka; SASL logs in by user name and password."
    )
    kafka_allow_plaintext: bool = Field(
        default=False, description="Allow PLAINTEXT to a broker that is not on loopback. Otherwise the product refuses to start."
    )
    kafka_sasl_mechanism: str | None = Field(
        default=None, description="How SASL transmits the password, such as SCRAM-SHA-512. Needed with SASL."
    )
    kafka_sasl_username: str | None = Field(default=None, description="The user name for SASL.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="The password for SASL.")
    kafka_ssl_ca_location: Path | None = Field(
        default=None, description="File with the certificates (PEM) that the brokers' are signed by. Unset: those of the system."
    )
    kafka_ssl_certificate_location: Path | None = Field(
        default=None, description="File with the client's own certificate (PEM), if the brokers demand one."
    )
    kafka_ssl_key_location: Path | None = Field(
        default=None, description="File with the private key (PEM, without a password) of the client's certificate."
    )
    topic_prefix: str = Field(
        default="bulk-registration",
        pattern=r"^[A-Za-z0-9._-]{1,100}$",
        description="The names of the topics and of the consumer groups begin with it. Another one is another deployment on the same brokers.",
    )
    topic_partitions: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="Partitions of each topic: the most consumers of one role that can share the work. With 6, an item costs 6 % more CPU.",
    )
    topic_replication_factor: int = Field(
        default=1, ge=1, description="Use 3 in production: a record then has two copies before it is acknowledged."
    )
    topic_retention_hours: int = Field(
        default=14 * 24,
        ge=1,
        description="The replay window. Must be shorter than the purge time, so that a replayed event finds its batch or its tombstone.",
    )
    max_poll_interval_ms: int = Field(
        default=120_000,
        ge=6_000,
        description="A consumer that has not polled for this long loses its partitions, and its process ends.",
    )
    max_batch_records: int = Field(
        default=500, ge=1, description="The most records in one micro-batch, which is one transaction."
    )
    set_aside_after_ms: int = Field(
        default=180_000,
        gt=0,
        description="A record that fails in the same way for this long, while others succeed, is set aside as internal_error. "
        "Longer than a failover takes.",
    )
    bulk_threshold_items: int = Field(
        default=100,
        ge=1,
        description="A batch with more items uses the bulk lane, so that small batches don't wait behind it.",
    )
    bulk_lane_share: float = Field(
        default=0.25, gt=0, lt=1, description="The bulk lane's share of a micro-batch while the other lane has work."
    )

    @field_validator("database_url", "worker_database_url", "api_database_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                check_addresses(database_url(value.get_secret_value()))
            except (ArgumentError, ValueError):
                raise ValueError(
                    f"must be a URL like postgresql://user:password@host:5432/database, with ports from 1 to {LAST_PORT}; in a password, each"
                    " character that is no letter and no digit must be percent-encoded"
                ) from None
        return value

    @cached_property
    def owner_url(self) -> URL:
        """The URL for migrations."""
        return database_url(self.database_url.get_secret_value())

    @cached_property
    def worker_url(self) -> URL:
        """The URL of the relay and the consumers, which see every organization."""
        return self._role_url(self.worker_database_url, WORKER_ROLE)

    @cached_property
    def api_url(self) -> URL:
        """The URL of the API, which sees only the organizations that its transaction names."""
        return self._role_url(self.api_database_url, API_ROLE)

    def _role_url(self, given: SecretStr | None, role: str) -> URL:
        if given is not None:
            return database_url(given.get_secret_value())
        return self.owner_url.set(username=role, password=self._derived_password(role))

    def role_passwords(self) -> Mapping[str, str | None]:
        """The passwords that `db upgrade` gives to the two roles: those with which the processes connect. None: it leaves the password
        as it is."""
        urls = {WORKER_ROLE: self.worker_url, API_ROLE: self.api_url}
        return {
            role: url.password if url.username == role else self._derived_password(role)  # a URL may name an operator's own role
            for role, url in urls.items()
        }

    def _derived_password(self, role: str) -> str | None:
        """A password that is derived from the owner's, so that one URL is enough to run everything."""
        if self.owner_url.password is None:
            return None
        return hmac.new(self.owner_url.password.encode(), role.encode(), hashlib.sha256).hexdigest()
