"""An operator who follows docs/runbooks.md: a role whose group Kafka's coordinator refuses for a minute gets another one (row 66)."""

import json
import threading
import time

from confluent_kafka import KafkaException
from sqlalchemy import NullPool, create_engine
from sqlalchemy.exc import SQLAlchemyError

from consumers.upkeep.groups import TOPICS, Groups
from tests.chaos.cluster import Cluster

LOOK_EVERY_S = 5.0
REFUSED_FOR_S = 60.0
"""As long as `/readyz` waits: a coordinator that still loads its groups refuses, too."""


class Operator:
    """Asks Kafka about the groups, and renews them with the product's command."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._engine = create_engine(cluster.settings.owner_url, poolclass=NullPool)
        self._groups = Groups(cluster.settings, timeout_s=LOOK_EVERY_S)
        self._refused_since: dict[str, float] = {}
        self.renewed: list[str] = []
        """The groups that roles were given."""

    def run(self, is_over: threading.Event) -> None:
        """Looks until it is over."""
        while not is_over.wait(LOOK_EVERY_S):
            for role in TOPICS:
                self._look_at(role)

    def _look_at(self, role: str) -> None:
        if not self._is_refused(role):
            self._refused_since.pop(role, None)
        elif time.monotonic() - self._refused_since.setdefault(role, time.monotonic()) >= REFUSED_FOR_S:
            # The database or every broker may be away just now. Then the command says so, and the next look runs it again.
            printed = self._cluster.product.bulkreg("groups", "renew", role, "--json", code=None)
            renewal = json.loads(printed) if printed else {}
            if renewal.get("renewed"):
                self.renewed.append(renewal["name"])

    def _is_refused(self, role: str) -> bool:
        try:
            with self._engine.connect() as connection:
                name = self._groups.name(connection, role)
            return self._groups.refusal(name) is not None
        except (SQLAlchemyError, KafkaException):
            # Nothing is known while the database or the broker is away: a refusal from before does not count on.
            return False
