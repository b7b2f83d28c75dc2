"""The checks of `bulkreg doctor`: every setting and every connection of a deployment, with how to fix what is wrong.

The checks change nothing. A check returns findings. One that can't run because something else is wrong returns none.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
from confluent_kafka import KafkaException
from pydantic import SecretStr
from sqlalchemy import URL, Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from api.access.authentication import NoAuthentication, authenticator
from compose.findings import Finding, State
from compose.forgetting_findings import forgetting_findings
from compose.outbox_findings import outbox_findings
from compose.pooling_findings import pooling_findings
from compose.receipt_findings import receipt_findings
from compose.restore_findings import restore_findings
from compose.webhook_findings import webhook_findings
from consumers.loop.coordinator import UNSERVED
from consumers.upkeep.groups import Groups
from orchestrator.process.database_urls import shown_url
from orchestrator.process.kafka_settings import UnsafeKafkaError, connection_config
from orchestrator.process.loopback import is_this_machine
from orchestrator.process.outgoing import heeds_environment, without_credentials
from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.server_settings import API_ROLE, WORKER_ROLE
from orchestrator.process.settings import LOOPBACK, Settings
from orchestrator.storage import timelines
from orchestrator.storage.database import create_database_engine
from orchestrator.storage.migrate import newest_version
from producers.topics import MISSING, inspect_topics, lacking_brokers, retentions
from schemas.envelope import Topic
from schemas.spelling import SQL_BLANKS, SQL_INVISIBLE

# A person waits for the result: longer than a healthy server needs, shorter than the clients' own timeouts.
TIMEOUT_S = 5.0

# The API's clock checks tokens and the database's clock checks dates; `exp` and "today" must not be far apart.
MAX_CLOCK_DIFFERENCE_S = 5.0

# What the examples of compose/docker have in place of each secret.
_PLACEHOLDER = "change-me"

# Variables of other programs of ours, which are no settings.
_OTHER_VARIABLES = frozenset({"HOME", "URL", "TOKEN", "CACHE_DIR", "TEST_STACK", "TEST_PGBOUNCER", "COMPLETE"})


def examine(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Runs all checks, and yields each finding as soon as it is found. `environment`: where the settings came from."""
    yield from _settings(settings, environment)
    yield from _identity(settings)
    yield from _databases(settings, environment)
    yield from _registration(settings)
    yield from _work(settings)
    yield from _kafka(settings)


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


# --- PostgreSQL ---------------------------------------------------------------------------------------------------------------

_OWNER, _WORKER, _API = "database (owner)", "database (worker)", "database (API)"

_UPGRADE = "run: bulkreg db upgrade"

# Something is missing (undefined table, column or function, invalid schema), or not granted.
_NOT_THERE = ("42P01", "42703", "42883", "3F000", "42501")

_NEWEST = text("SELECT version_num FROM public.schema_version")

_SERVER = text("""
    SELECT current_setting('server_version') AS version, current_setting('fsync') AS fsync,
           current_setting('full_page_writes') AS full_page_writes, current_setting('synchronous_commit') AS synchronous_commit,
           abs(extract(epoch FROM clock_timestamp()) - :now) AS clock_difference_s
""")

# Failed items count, because their retry asks under the same key and must reach the same service.
_IN_DOUBT = text("SELECT count(*) FROM orchestrator.dispatch WHERE state = 'asked'")

_ROLE = text("SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")

_OWNED = text("SELECT count(*) FROM pg_tables WHERE schemaname IN ('orchestrator', 'registration') AND tableowner = current_user")

# Tables with an organization. Each must show the API's role only the organizations that its transaction names.
_UNPROTECTED = text("""
    SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id'
    WHERE c.relnamespace IN ('orchestrator'::regnamespace, 'registration'::regnamespace) AND c.relkind IN ('r', 'p')
      AND NOT (c.relrowsecurity AND c.relforcerowsecurity) ORDER BY 1
""")

_NOT_GRANTED = text("""
    SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname IN ('orchestrator', 'registration')
      AND tablename NOT IN ('consumer_group', 'consumer_progress', 'forgotten_word', 'queue_end', 'receipt_cursor',
                            'receipt_reading', 'replaced_word', 'role_start', 'sweep_mark', 'verification')
      AND NOT has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT') ORDER BY 1
""")


_HAS_DIRECTORY = text("SELECT to_regclass('registration.mentor') IS NOT NULL")

# Since decision 26 every name that comes in gets one spelling. A name that was stored in another spelling before can't be found any more.
_MISSPELLED = text("""
    SELECT kind, organization_id, id, count(*) OVER () AS number
    FROM (SELECT 'organization' AS kind, organization_id, organization_id AS id FROM registration.organization
          UNION ALL SELECT 'mentor', organization_id, mentor_id FROM registration.mentor
          UNION ALL SELECT 'chapter', organization_id, chapter_id FROM registration.mentor
          UNION ALL SELECT 'coordinator', organization_id, coordinator_id FROM registration.coordinator
          UNION ALL SELECT 'chapter', organization_id, chapter_id FROM registration.coordinator_scope
          UNION ALL SELECT 'activity type', organization_id, activity_type FROM registration.activity_type) AS names
    WHERE id <> normalize(translate(id, :unseen, :blanks), NFC)
    ORDER BY 1, 2, 3 LIMIT 1
""")


@contextmanager
def _engine(settings: Settings, url: URL | None = None) -> Iterator[Engine]:
    """An engine for one connection to this URL, or to the worker's."""
    engine = create_database_engine(url or settings.worker_url, settings, connections=1, application_name="bulkreg-doctor")
    try:
        yield engine
    finally:
        engine.dispose()


def _databases(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    for subject, url, check, variable, role in (
        (_OWNER, settings.owner_url, _as_owner, "BULKREG_DATABASE_URL", None),
        (_WORKER, settings.worker_url, _as_worker, "BULKREG_WORKER_DATABASE_URL", WORKER_ROLE),
        (_API, settings.api_url, _as_api, "BULKREG_API_DATABASE_URL", API_ROLE),
    ):
        if not settings.database_allow_plaintext:
            yield from _transport(subject, url, environment)
        yield from _connected(subject, url, settings, check, variable, role)
    yield from pooling_findings(settings)


def _registration(settings: Settings) -> Iterator[Finding]:
    """Finds items that an external registration service was asked for and has not decided. Silent if the database can't be reached."""
    try:
        with _engine(settings) as engine, engine.connect() as connection:
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
        with _engine(settings) as engine, engine.connect() as connection:
            yield from outbox_findings(connection, settings)
            yield from webhook_findings(connection, settings)
            yield from forgetting_findings(connection, settings)
            yield from receipt_findings(connection)
    except DBAPIError:
        return


def _role_fix(role: str, variable: str) -> str:
    return (
        f"run: bulkreg db upgrade (it creates the role); if it lacks the right, run as a superuser: CREATE ROLE {role} LOGIN PASSWORD '…', "
        f"and set {variable}"
    )


def _transport(subject: str, url: URL, environment: Mapping[str, str]) -> Iterator[Finding]:
    mode = _last(url.query.get("sslmode")) or environment.get("PGSSLMODE") or "prefer"
    if mode in ("require", "verify-ca", "verify-full"):
        return
    remote = [host for host in _hosts(url) if not is_this_machine(host)]
    if remote:
        detail = f"the connection to {', '.join(remote)} may be unencrypted (sslmode is {mode})"
        sign = "&" if url.query else "?"
        yield Finding(subject, State.UNSAFE, detail, f"append {sign}sslmode=verify-full to its URL")


def _hosts(url: URL) -> Iterator[str]:
    """The servers that the URL names. Without one, and with a path, the connection is a socket of this machine."""
    given = url.query.get("host") or url.host or ""
    for several in (given,) if isinstance(given, str) else given:
        for place in several.split(","):
            host = (
                place
                if place.count(":") > 1 and not place.startswith("[")
                else place.rpartition("]")[0] or place.partition(":")[0]
            )
            if host and not host.startswith(("/", "@")):
                yield host.strip("[]")


def _last(given: str | tuple[str, ...] | None) -> str | None:
    return given[-1] if isinstance(given, tuple) else given


def _connected(
    subject: str, url: URL, settings: Settings, check: Callable[[Connection], Iterator[Finding]], variable: str, role: str | None
) -> Iterator[Finding]:
    """Runs a check in a connection. `variable` names the URL. `role` is the one that `bulkreg db upgrade` creates; the owner's is not."""
    try:
        with _engine(settings, url) as engine, engine.connect() as connection:
            yield from check(connection)
    except DBAPIError as error:
        reason = _reason(error)
        # A server that refuses a login says FATAL. Otherwise no server has responded.
        fix = f"start PostgreSQL, or correct {variable}" if role is None or "FATAL" not in reason else _role_fix(role, variable)
        if any(name in reason for name in timelines.FUNCTIONS):
            fix = f"run as a superuser, in this database: GRANT EXECUTE ON FUNCTION {', '.join(timelines.FUNCTIONS)} TO {url.username}"
        elif getattr(error.orig, "pgcode", None) in _NOT_THERE:
            fix = _UPGRADE
        elif "unsupported startup parameter" in reason:
            fix = "remove the parameter from the URL, or add it to the pooler's ignore_startup_parameters: nothing depends on it"
        yield Finding(subject, State.UNREACHABLE, f"{shown_url(url)}: {reason}", fix)


def _reason(error: DBAPIError) -> str:
    """What the database's client said. Where it tried several servers, it has a line for each."""
    lines = str(error.orig).strip().splitlines()
    return "; ".join(line for line in lines if line.startswith("connection to server")) or lines[0]


def _as_owner(connection: Connection) -> Iterator[Finding]:
    version = connection.scalar(_NEWEST)
    if version != newest_version():
        detail = f"the schema is at version {version}, but this program needs {newest_version()}"
        yield Finding(_OWNER, State.UNSAFE, detail, _UPGRADE)
    else:
        yield Finding(_OWNER, State.OK, f"reachable, schema version {version}")


def _as_worker(connection: Connection) -> Iterator[Finding]:
    row = connection.execute(_SERVER, {"now": time.time()}).one()
    well = True
    for name in ("fsync", "full_page_writes"):
        if getattr(row, name) != "on":
            well = False
            yield Finding(
                _WORKER, State.UNSAFE, f"{name} is off: a crash loses accepted submissions", f"set {name} = on in the server"
            )
    if row.synchronous_commit == "off":
        well = False
        detail = "synchronous_commit is off: a crash loses accepted submissions"
        yield Finding(_WORKER, State.UNSAFE, detail, "set synchronous_commit = on in the server")
    if row.clock_difference_s > MAX_CLOCK_DIFFERENCE_S:
        well = False
        detail = f"its clock differs from this machine's by {row.clock_difference_s:.0f} s"
        yield Finding(_WORKER, State.ADVICE, detail, "synchronise both clocks (NTP)")
    yield from _grants(connection, _WORKER)
    yield from _spelling(connection)
    if well:
        yield Finding(_WORKER, State.OK, f"PostgreSQL {row.version}, commits are durable")


def _spelling(connection: Connection) -> Iterator[Finding]:
    if not connection.scalar(_HAS_DIRECTORY):
        return
    found = connection.execute(_MISSPELLED, {"unseen": SQL_BLANKS + SQL_INVISIBLE, "blanks": " " * len(SQL_BLANKS)}).one_or_none()
    if found is None:
        return
    more = f" and {found.number - 1} more" if found.number > 1 else ""
    yield Finding(
        "directory",
        State.UNSAFE,
        f"the {found.kind} {found.id!a} of {found.organization_id!a}{more} is stored with decomposed letters, invisible"
        " characters or unusual blanks, so that no submission can match it",
        "import the directory again, which stores the normalized spelling; --prune then closes the old mentors and coordinators",
    )


def _as_api(connection: Connection) -> Iterator[Finding]:
    role = connection.execute(_ROLE).one()
    well = True
    if role.rolsuper or role.rolbypassrls or connection.scalar(_OWNED):
        well = False
        yield Finding(
            _API,
            State.UNSAFE,
            "the API's role sees every organization: it owns tables, or bypasses row level security",
            f"set BULKREG_API_DATABASE_URL to a role that owns nothing, such as {API_ROLE}",
        )
    unprotected = list(connection.scalars(_UNPROTECTED))
    for table in unprotected:
        fix = f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        yield Finding(_API, State.UNSAFE, f"row level security is not forced on {table}", fix)
    yield from _grants(connection, _API)
    if well and not unprotected:
        yield Finding(_API, State.OK, "reachable, and subject to row level security")


def _grants(connection: Connection, subject: str) -> Iterator[Finding]:
    for table in connection.scalars(_NOT_GRANTED):
        fix = f"run: bulkreg db upgrade, or grant it yourself: GRANT SELECT ON {table} TO …"
        yield Finding(subject, State.UNREACHABLE, f"its role has no SELECT privilege on {table}", fix)


# --- Kafka --------------------------------------------------------------------------------------------------------------------


def _kafka(settings: Settings) -> Iterator[Finding]:
    try:
        connection_config(settings)
    except UnsafeKafkaError as error:
        yield Finding("Kafka", State.UNSAFE, "the product would not connect", str(error))
        return
    try:
        reports = inspect_topics(settings, timeout_s=TIMEOUT_S)
    except KafkaException as error:
        detail = f"{settings.kafka_bootstrap_servers}: {error.args[0].str()}"
        yield Finding(
            "Kafka", State.UNREACHABLE, detail, "start Kafka, or correct BULKREG_KAFKA_BOOTSTRAP_SERVERS and BULKREG_KAFKA_…"
        )
        return
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
        with _engine(settings) as engine:
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
        with _engine(settings) as engine, engine.connect() as connection:
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
