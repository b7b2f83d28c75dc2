"""An operator who follows docs/runbooks.md: a role whose group Kafka's coordinator refuses for a minute, or of which it gives a partition to
nobody for as long, gets another one (rows 66 and 79)."""

import json
import threading
import time
from typing import Any

from tests.chaos.cluster import Cluster

LOOK_EVERY_S = 15.0
REFUSED_FOR_S = 60.0
"""As long as `/readyz` waits: a coordinator that still loads its groups refuses, too."""


class Operator:
    """Uses the product's commands, which say nothing while the database or every broker is away. The next look tries again."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._refused_since: dict[str, float] = {}
        self.renewed: list[str] = []
        """The groups that roles were given."""

    def run(self, is_over: threading.Event) -> None:
        """Looks until it is over."""
        while not is_over.wait(LOOK_EVERY_S):
            groups = self._ask("list").get("groups", ())
            refused = {group["role"] for group in groups if not group["is_served"] or group["unread"]}
            self._refused_since = {role: self._refused_since.get(role, time.monotonic()) for role in refused}
            for role, since_s in self._refused_since.items():
                if time.monotonic() - since_s >= REFUSED_FOR_S and (renewal := self._ask("renew", role)).get("renewed"):
                    self.renewed.append(renewal["name"])

    def _ask(self, *arguments: str) -> dict[str, Any]:
        printed = self._cluster.product.bulkreg("groups", *arguments, "--json", code=None)
        answer: dict[str, Any] = json.loads(printed) if printed.startswith("{") else {}
        return answer
