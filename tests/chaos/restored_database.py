"""A database that is restored from an older copy beside newer topics, and what docs/operations.md tells the operator to do then.

Only the topics know what was submitted after the copy was made. `bulkreg doctor` prints commands that give three roles new groups; then it is
accepted and registered again, once each. So the judge expects the same of these batches as of all. Only their events are published twice,
with other times.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Set

import psutil
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from tests.chaos.cluster import ROLES, Cluster
from tests.chaos.judge import Finding, Rule
from tests.support.waiting import eventually

COPY = "older"
RENEW = r"bulkreg (groups renew \w+ --from \S+\d)"
ENDED_WITHIN_S = 120.0


class OlderCopy:
    """A copy of the database as it is now, while everybody works. Open connections are lost."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._name = cluster.settings.owner_url.database
        with self._server() as cursor:
            cursor.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
            cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (self._name,))
            cursor.execute(f"CREATE DATABASE {COPY} TEMPLATE {self._name}")
            cursor.execute(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true")

    def restore(self, found: list[Finding]) -> Set[str]:
        """Puts the copy in the place of the database, and renews the groups. Returns the ids of the batches that are announced twice
        because of that.

        Adds a finding to `found` if `bulkreg replay` or `bulkreg doctor` does not know a forgotten batch. Everything accepted must be on the
        topics by now.
        """
        with self._roles_stopped():
            now = self._batches(str(self._name))
            forgotten = now.keys() - self._batches(COPY).keys()
            unfinished = {batch_id for batch_id, is_completed in self._batches(COPY).items() if not is_completed}
            with self._server() as cursor:
                cursor.execute(f"DROP DATABASE {self._name} WITH (FORCE)")
                cursor.execute(f"ALTER DATABASE {COPY} RENAME TO {self._name}")
            answer = json.loads(self._cluster.product.bulkreg("replay", "--json", code=1))
            if answer["counts"].get("batch") != len(forgotten):
                found.append(
                    Finding(
                        Rule.TOPICS,
                        "the restored database",
                        f"{len(forgotten)} batches are forgotten, replay says {answer['counts']}, {len(answer['in_motion'])} in motion",
                    )
                )
            found += self._renew_groups(len(forgotten))
        return forgotten | unfinished

    @contextlib.contextmanager
    def _server(self) -> Iterator["psycopg2.extensions.cursor"]:
        connection = self._connection("postgres")
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
        connection.close()

    def _connection(self, database: str) -> Connection:
        url = self._cluster.settings.owner_url.set(drivername="postgresql", database=database)
        return psycopg2.connect(url.render_as_string(hide_password=False))

    def _batches(self, database: str) -> Mapping[str, bool]:
        """For each id, whether the batch is completed."""
        connection = self._connection(database)
        with connection.cursor() as cursor:
            cursor.execute("SELECT batch_id::text, completed_at IS NOT NULL FROM orchestrator.batch")
            found: dict[str, bool] = dict(cursor.fetchall())
        connection.close()
        return found

    @contextlib.contextmanager
    def _roles_stopped(self) -> Iterator[None]:
        """The supervisor is stopped meanwhile, and restarts them afterwards."""
        supervisor = psutil.Process(self._cluster.supervisor)
        supervisor.suspend()
        try:
            roles = [process for role in ROLES if (process := self._cluster.process(role))]
            for process in roles:
                process.terminate()
            eventually(lambda: all(map(_has_ended, roles)), within_s=ENDED_WITHIN_S, what="the roles ended")
            yield
        finally:
            supervisor.resume()

    def _renew_groups(self, forgotten: int) -> Iterator[Finding]:
        """Runs the commands that `bulkreg doctor` prints for the groups. Yields a finding if it prints none, or counts other batches."""
        answer = json.loads(self._cluster.product.bulkreg("doctor", "--json", code=None))
        said = [each for each in answer["findings"] if each["subject"] == "database and topics"]
        commands = [command.split() for each in said for command in re.findall(RENEW, each["fix"] or "")]
        for command in commands:
            self._cluster.product.bulkreg(*command)
        if not commands or f"does not know {forgotten:,} batches" not in said[0]["detail"]:
            yield Finding(Rule.TOPICS, "the restored database", f"{forgotten} batches are forgotten, doctor says {said}")


def _has_ended(process: psutil.Process) -> bool:
    """Its parent is stopped, and so does not read its exit code."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
