"""Which brokers respond to a consumer's client, from librdkafka's statistics (its STATISTICS.md describes the fields)."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# A broker with partitions of ours responds to a fetch within `fetch.wait.max.ms`. A busy one takes a tenth of this.
WAITS_S = 5.0
# A killed broker's partitions have another leader sooner than this.
SILENT_AFTER_S = 10.0


class BrokerContact:
    """What the client's reports say. They come at intervals (`statistics.interval.ms`)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._unheard_since: dict[int, float] = {}
        self._silent: Sequence[int] = ()
        self.any = False
        """Whether some broker responds."""

    def report(self, statistics: Mapping[str, Mapping[str, Any]]) -> None:
        """Takes a report's statistics of the brokers in, by their names."""
        now = self._clock()
        brokers = [broker for broker in statistics.values() if broker["nodeid"] >= 0]
        up = [broker for broker in brokers if broker["state"] == "UP"]
        awaited = [broker for broker in up if _is_awaited(broker)]
        # A connection stays up when packets are dropped, and shows nothing if nothing is asked.
        self.any = any(0 <= broker["rxidle"] < WAITS_S * 1e6 for broker in up) if awaited else bool(up)
        unheard = {broker["nodeid"] for broker in brokers if broker["toppars"] and (broker not in up or broker in awaited)}
        self._unheard_since = {node: self._unheard_since.get(node, now) for node in unheard}
        self._silent = sorted(node for node, since in self._unheard_since.items() if now - since >= SILENT_AFTER_S)

    @property
    def complaint(self) -> str | None:
        """The message about brokers whose partitions can't be read, if there are any."""
        if not self._silent:
            return None
        return f"no response from the brokers {', '.join(map(str, self._silent))}: what is in their partitions waits"


def _is_awaited(broker: Mapping[str, Any]) -> bool:
    """Whether a request has waited for too long."""
    return bool(broker["waitresp_cnt"]) and not 0 <= broker["rxidle"] < WAITS_S * 1e6
