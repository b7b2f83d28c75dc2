import pytest

from consumers.loop.config import consumer_config, gathering_config
from consumers.loop.handler import AGGREGATOR, NOTIFIER, REGISTRATION, SPLITTER
from orchestrator.process.kafka_settings import UnsafeKafkaError, connection_config
from orchestrator.process.settings import Settings
from producers.config import producer_config


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "localhost:9092", "[::1]:9092", "PLAINTEXT://127.0.0.1:9092,localhost:1"])
def test_plaintext_on_loopback_is_accepted(servers: str) -> None:
    assert connection_config(Settings(kafka_bootstrap_servers=servers))["bootstrap.servers"] == servers


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
@pytest.mark.parametrize("servers", ["kafka:9092", "127.0.0.1:9092,kafka:9092", "localhost.example.org:9092"])
def test_an_unencrypted_connection_to_another_machine_is_refused_unless_allowed(protocol: str, servers: str) -> None:
    given = {"kafka_bootstrap_servers": servers, "kafka_security_protocol": protocol}
    with pytest.raises(UnsafeKafkaError, match="BULKREG_KAFKA_ALLOW_PLAINTEXT"):
        connection_config(Settings.model_validate(given))
    connection_config(Settings.model_validate({**given, "kafka_allow_plaintext": True}))


def test_tls_and_sasl_are_passed_on_to_both_kinds_of_client() -> None:
    settings = Settings.model_validate(
        {
            "kafka_bootstrap_servers": "kafka:9093",
            "kafka_security_protocol": "SASL_SSL",
            "kafka_sasl_mechanism": "SCRAM-SHA-512",
            "kafka_sasl_username": "bulkreg",
            "kafka_sasl_password": "secret",
            "kafka_ssl_ca_location": "/etc/ca.pem",
        }
    )
    for config in (producer_config(settings), consumer_config(settings, "splitter")):
        assert config["security.protocol"] == "SASL_SSL"
        assert config["sasl.mechanism"] == "SCRAM-SHA-512"
        assert config["sasl.username"] == "bulkreg"
        assert config["sasl.password"] == "secret"
        assert config["ssl.ca.location"] == "/etc/ca.pem"
        assert "ssl.key.location" not in config


def test_only_the_notifiers_records_gather_at_the_broker_and_for_less_than_a_second() -> None:
    assert [role for role in (SPLITTER, REGISTRATION, AGGREGATOR, NOTIFIER) if gathering_config(role)] == [NOTIFIER]
    assert int(gathering_config(NOTIFIER)["fetch.wait.max.ms"]) < 1_000


def test_a_probe_for_damage_waits_for_no_other_records() -> None:
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:9092")
    assert "fetch.min.bytes" not in consumer_config(settings, NOTIFIER)
