"""The configuration that all our Kafka clients share: addresses, encryption and credentials, and where librdkafka logs.

Names and defaults of the properties: librdkafka's CONFIGURATION.md. This module imports no client library, so that the domain doesn't either.
"""

import logging

from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.repeated_lines import RepeatedLines
from orchestrator.process.settings import LOOPBACK, Settings

ClientConfig = dict[str, str | int | float | bool]

LOGGER = "bulkreg.kafka"


class UnsafeKafkaError(RefusedStartError):
    """The connection would not be encrypted. Use SSL or SASL_SSL, or set BULKREG_KAFKA_ALLOW_PLAINTEXT=true."""


def connection_config(settings: Settings) -> ClientConfig:
    """The properties of a connection, in a new dict to which the caller adds its own. Raises UnsafeKafkaError."""
    _refuse_readable_connection(settings)
    optional = {
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password.get_secret_value() if settings.kafka_sasl_password else None,
        "ssl.ca.location": settings.kafka_ssl_ca_location,
        "ssl.certificate.location": settings.kafka_ssl_certificate_location,
        "ssl.key.location": settings.kafka_ssl_key_location,
    }
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "security.protocol": settings.kafka_security_protocol,
        **{name: str(value) for name, value in optional.items() if value is not None},
        # The kernel notices a connection whose other end has vanished silently.
        "socket.keepalive.enable": True,
        # A broker that does not respond to a request for this long counts as dead. Half of librdkafka's default, so that a commit that
        # waits for the broker ends before max.poll.interval does.
        "socket.timeout.ms": 30_000,
        # A broker that does not accept a connection for this long is tried again. By default, a client would notice up to 30 s late that
        # packets come through again.
        "socket.connection.setup.timeout.ms": 5_000,
        # A client reconnects to a restarted broker within a second, not within ten (the default).
        "reconnect.backoff.max.ms": 1_000,
    }


def _refuse_readable_connection(settings: Settings) -> None:
    if settings.kafka_security_protocol.endswith("SSL") or settings.kafka_allow_plaintext:
        return
    outside = [server for server in settings.kafka_bootstrap_servers.split(",") if _host(server) not in LOOPBACK]
    if outside:
        message = (
            f"{settings.kafka_security_protocol} to {', '.join(outside)} is not encrypted, so others on the network can read and change it: "
            "set BULKREG_KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL, or BULKREG_KAFKA_ALLOW_PLAINTEXT=true where the network is trusted"
        )
        raise UnsafeKafkaError(message)


def _host(server: str) -> str:
    """The host of `[PROTOCOL://]host:port`; an IPv6 address comes in brackets."""
    return server.strip().rpartition("//")[2].rpartition(":")[0].strip("[]")


def kafka_logger(settings: Settings, client: str) -> logging.Logger:
    """The logger of one client. It writes to a file in the log directory if one is set, else where the product itself logs. A line that
    repeats is written once a minute."""
    logger = logging.getLogger(f"{LOGGER}.{client}")
    if not logger.filters:
        logger.addFilter(RepeatedLines())
    if settings.log_directory is not None and not logger.handlers:
        settings.log_directory.mkdir(parents=True, exist_ok=True)
        # `delay`: the file is created with its first line.
        handler = logging.FileHandler(settings.log_directory / "librdkafka.log", delay=True)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    return logger
