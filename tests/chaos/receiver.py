"""A receiver of webhooks that fails at random, and what the judge expects that it was told."""

import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import orjson
import psycopg2
from standardwebhooks import Webhook, WebhookVerificationError

from compose.embedded.home import LOOPBACK_ADDRESS
from schemas.paths import WEBHOOKS_PATH
from tests.chaos.cluster import Cluster
from tests.chaos.history import Ends
from tests.chaos.judge import Finding, Rule
from tests.support.no_tls import NO_TLS
from tests.support.pipeline import ORGANIZATION

ALLOWED = {"BULKREG_WEBHOOK_ALLOWED_NETWORKS": f"{LOOPBACK_ADDRESS}/32"}
"""The settings of a product that may tell this receiver."""

FAILS = 0.25
DELIVERED_WITHIN_S, LOOK_S = 120.0, 1.0

_MAKE_DUE = "UPDATE orchestrator.webhook_delivery SET due_at = clock_timestamp() WHERE state = 'pending'"
_WAITING = "SELECT count(*) FROM orchestrator.webhook_delivery WHERE state <> 'delivered'"


class Receiver:
    """What a webhook was told. Threads of the server add to it."""

    def __init__(self, seed: str) -> None:
        self.bodies: dict[str, set[bytes]] = defaultdict(set)
        """By the id of the event."""
        self.unsigned: list[str] = []
        """Requests whose signature is wrong."""
        self.secret = ""
        self.is_healthy = False
        """Whether it has stopped to fail."""
        self._rng = random.Random(f"{seed} receiver")
        self._lock = threading.Lock()

    def receive(self, headers: Mapping[str, str], body: bytes) -> int | None:
        """Returns the status of the response. None cuts the connection. It may have failed before or after it has handled the request."""
        with self._lock:
            fails = not self.is_healthy and self._rng.random() < FAILS
            is_handled, is_cut = not fails or self._rng.random() < 0.5, self._rng.random() < 0.5
            if is_handled:
                self._handle(headers, body)
        if not fails:
            return 204
        return None if is_cut else 500

    def _handle(self, headers: Mapping[str, str], body: bytes) -> None:
        told = {name.lower(): value for name, value in headers.items()}
        try:
            Webhook(self.secret).verify(body, told)
        except WebhookVerificationError as error:
            self.unsigned.append(f"{told.get('webhook-id')}: {error}")
        else:
            self.bodies[told["webhook-id"]].add(body)


@contextlib.contextmanager
def running_receiver(seed: str) -> Iterator[tuple[Receiver, str]]:
    """Serves until the block ends. Yields the receiver and its URL."""
    receiver = Receiver(seed)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status = receiver.receive(dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"])))
            if status is not None:
                with contextlib.suppress(ConnectionError):  # A notifier that was killed does not wait for the response.
                    self.send_response(status)
                    self.end_headers()

        def log_request(self, *_: object) -> None:
            """Writes no line for each request."""

    with ThreadingHTTPServer((LOOPBACK_ADDRESS, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver, f"http://{LOOPBACK_ADDRESS}:{server.server_port}/ends"
        finally:
            server.shutdown()
            thread.join()


def make_webhook(cluster: Cluster, receiver: Receiver, url: str) -> None:
    """Has the product tell the receiver of the ends of batches."""
    headers = {"Authorization": f"Bearer {cluster.token}", "X-Organization-Id": ORGANIZATION}
    asked = {"url": url, "events": ["BatchCompleted"]}
    response = httpx.post(f"{cluster.api}{WEBHOOKS_PATH}", json=asked, headers=headers, verify=NO_TLS)
    receiver.secret = response.raise_for_status().json()["secret"]


def finish_deliveries(cluster: Cluster, receiver: Receiver) -> str:
    """Waits until everything that is recorded is delivered. The pauses between attempts, which may be minutes, are cut short.

    Returns what is not delivered when the time is over, in words. Empty if everything is.
    """
    was_healthy, receiver.is_healthy = receiver.is_healthy, True
    deadline = time.monotonic() + DELIVERED_WITHIN_S
    with contextlib.closing(psycopg2.connect(cluster.postgres_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        while True:
            cursor.execute(_WAITING)
            [(waiting,)] = cursor.fetchall()
            if not waiting or time.monotonic() > deadline:
                break
            cursor.execute(_MAKE_DUE)
            time.sleep(LOOK_S)
    receiver.is_healthy = was_healthy
    return f"{waiting} deliveries wait" if waiting else ""


def delivery_findings(receiver: Receiver, ends: Ends, told_twice: Set[str]) -> Sequence[Finding]:
    """Each announced end must have arrived under one id, each time with the same body; and nothing else.

    A restored database announces the ends of some batches again, with other times (`told_twice`). It also publishes again what waited in its
    outbox when it was copied. Such a body has the same data, and the time of the second publication.
    """
    findings = [Finding(Rule.DELIVERY, "the webhook", f"wrong signature: {each}") for each in receiver.unsigned]
    ids: dict[tuple[str, int], set[str]] = defaultdict(set)
    for event_id, bodies in receiver.bodies.items():
        data = [orjson.loads(body)["data"] for body in bodies]
        told = {(each["batch_id"], each["retry_number"]) for each in data}
        for end in told:
            ids[end].add(event_id)
        contents = {orjson.dumps(each) for each in data} if told_twice else bodies
        if len(contents) > 1 and (len(told) > 1 or not {batch_id for batch_id, _ in told} <= told_twice):
            findings.append(Finding(Rule.DELIVERY, "the webhook", f"one id, {len(contents)} bodies: {contents}"))
    for end in ends.keys() | ids.keys():
        if len(ids[end]) != 1 or end not in ends:
            detail = f"retry {end[1]} has arrived under {ids[end] or 'no id'}" + ("" if end in ends else ", but has not ended")
            findings.append(Finding(Rule.DELIVERY, f"batch {end[0]}", detail))
    return findings
