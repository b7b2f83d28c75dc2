"""Checks the connections to PostgreSQL: of the owner, the worker and the API. Each has to reach the schema, with its rights and no others."""

import time
from collections.abc import Callable, Iterator, Mapping

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import DBAPIError

from compose.doctor_connection import engine_for
from compose.findings import Finding, State
from compose.pooling_findings import pooling_findings
from orchestrator.process.database_urls import shown_url
from orchestrator.process.loopback import is_this_machine
from orchestrator.process.server_settings import API_ROLE, WORKER_ROLE
from orchestrator.process.settings import Settings
from orchestrator.storage import timelines
from orchestrator.storage.migrate import newest_version
from schemas.spelling import SQL_BLANKS, SQL_INVISIBLE

# The API's clock checks tokens and the database's clock checks dates; `exp` and "today" must not be far apart.
MAX_CLOCK_DIFFERENCE_S = 5.0

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


def database_findings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Checks each of the three connections to PostgreSQL, and a pooler in front of it. `environment`: where the settings came from."""
    for subject, url, check, variable, role in (
        (_OWNER, settings.owner_url, _as_owner, "BULKREG_DATABASE_URL", None),
        (_WORKER, settings.worker_url, _as_worker, "BULKREG_WORKER_DATABASE_URL", WORKER_ROLE),
        (_API, settings.api_url, _as_api, "BULKREG_API_DATABASE_URL", API_ROLE),
    ):
        if not settings.database_allow_plaintext:
            yield from _transport(subject, url, environment)
        yield from _connected(subject, url, settings, check, variable, role)
    yield from pooling_findings(settings)


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
        with engine_for(settings, url) as engine, engine.connect() as connection:
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
