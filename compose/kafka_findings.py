"""Checks Kafka: its topics and their copies, the consumer groups, and whether the topics and the database fit together."""

from collections.abc import Iterator
from datetime import timedelta

from confluent_kafka import KafkaException
from sqlalchemy.exc import DBAPIError

from compose.doctor_connection import engine_for
from compose.findings import TIMEOUT_S, Finding, State
from compose.restore_findings import restore_findings
from consumers.loop.coordinator import UNSERVED
from consumers.upkeep.groups import Groups
from orchestrator.process.kafka_settings import UnsafeKafkaError, connection_config
from orchestrator.process.settings import LOOPBACK, Settings
from producers.topics import MISSING, inspect_topics, lacking_brokers, retentions
from schemas.envelope import Topic


def kafka_findings(settings: Settings) -> Iterator[Finding]:
    """Checks what the product needs of Kafka. If it can't be reached, that is the last finding."""
    try:
        connection_config(settings)
    except UnsafeKafkaError as error:
        yield Finding("Kafka", State.UNSAFE, "the product would not connect", str(error))
        return
    try:
        yield from _checks(settings)
    except KafkaException as error:
        detail = f"{settings.kafka_bootstrap_servers}: {error.args[0].str()}"
        yield Finding(
            "Kafka", State.UNREACHABLE, detail, "start Kafka, or correct BULKREG_KAFKA_BOOTSTRAP_SERVERS and BULKREG_KAFKA_…"
        )


def _checks(settings: Settings) -> Iterator[Finding]:
    """Raises KafkaException."""
    reports = inspect_topics(settings, timeout_s=TIMEOUT_S)
    wrong = [report for report in reports if report.differences]
    for report in wrong:
        is_missing = tuple(report.differences) == MISSING
        fix = "run: bulkreg topics create" if is_missing else "change the topic (kafka-configs, kafka-topics), or the setting"
        yield Finding(
            f"topic {report.name}", State.UNREACHABLE if is_missing else State.ADVICE, "; ".join(report.differences), fix
        )
    if not wrong:
        yield Finding("Kafka", State.OK, f"reachable, {len(reports)} topics as planned")
    if settings.topic_replication_factor < 3 and not _is_on_this_machine(settings):
        detail = f"topics have {settings.topic_replication_factor} copies: losing a broker can lose events"
        yield Finding("Kafka", State.ADVICE, detail, "run three brokers and set BULKREG_TOPIC_REPLICATION_FACTOR=3")
    yield from _copies(settings)
    yield from _erasures(settings)
    yield from _groups(settings)
    if not any(tuple(report.differences) == MISSING for report in reports):
        yield from _restored(settings)


def _copies(settings: Settings) -> Iterator[Finding]:
    """The brokers without which the topics have fewer copies than planned."""
    for broker, partitions in sorted(lacking_brokers(settings, timeout_s=TIMEOUT_S).items()):
        yield Finding(
            f"Kafka broker {broker}",
            State.UNSAFE,
            f"has no up-to-date copy of {partitions} of the topics' partitions: events wait as soon as another broker is lost",
            f"start broker {broker}, or wait until it has fetched what it missed",
        )


def _erasures(settings: Settings) -> Iterator[Finding]:
    """The topics that hold notes of upstream services for longer than the tables do."""
    if settings.notes_retention_days is None:
        return
    notes_after = timedelta(days=settings.notes_retention_days)
    for name, kept in retentions(settings, (Topic.BATCHES, Topic.DEAD_LETTER), timeout_s=TIMEOUT_S).items():
        if kept is None or kept > notes_after:
            how_long = "for ever" if kept is None else f"for {kept}"
            detail = (
                f"keeps records {how_long}, with notes of upstream services; BULKREG_NOTES_RETENTION_DAYS is {notes_after.days}"
            )
            yield Finding(
                f"topic {name}", State.ADVICE, detail, "set retention.ms of the topic (kafka-configs) to at most that time"
            )


def _groups(settings: Settings) -> Iterator[Finding]:
    """Finds consumer groups that no coordinator serves, or of which nobody reads a partition. Silent if the database can't be reached: other
    checks report that."""
    try:
        with engine_for(settings) as engine:
            groups = list(Groups(settings, timeout_s=TIMEOUT_S).all(engine))
    except DBAPIError:
        return
    for group in groups:
        if group.trouble is not None:
            fix = f"if the brokers are well, run: bulkreg groups renew {group.role}"
            yield Finding(f"consumer group {group.name}", State.UNREACHABLE, group.trouble, fix)
    if not any(group.trouble for group in groups):
        yield Finding("consumer groups", State.OK, f"Kafka serves {', '.join(group.name for group in groups)}")


def _restored(settings: Settings) -> Iterator[Finding]:
    """Silent if the database or a group's coordinator can't be reached: other checks report that."""
    try:
        with engine_for(settings) as engine, engine.connect() as connection:
            yield from restore_findings(settings, connection, Groups(settings, timeout_s=TIMEOUT_S))
    except DBAPIError:
        return
    except KafkaException as error:
        if error.args[0].code() in UNSERVED:
            return
        fix = "run it again when all topics have a leader: bulkreg doctor"
        yield Finding("database and topics", State.UNREACHABLE, f"they were not compared: {error.args[0].str()}", fix)


def _is_on_this_machine(settings: Settings) -> bool:
    hosts = {server.strip().rpartition(":")[0].strip("[]") for server in settings.kafka_bootstrap_servers.split(",")}
    return hosts <= LOOPBACK
