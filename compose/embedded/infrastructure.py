"""Starts the PostgreSQL and Kafka servers of one home together. Tests use it, and the supervisor is built on it."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

from compose.embedded.home import Home
from compose.embedded.kafka import COPIES, KafkaBroker
from compose.embedded.layout import SINGLE, Layout
from compose.embedded.postgres import PostgresPair, PostgresServer
from compose.embedded.process import Child, Program
from compose.embedded.product import Endpoints


class EmbeddedServer(Protocol):
    """An embedded server."""

    name: str
    start_timeout_s: float
    stop_timeout_s: float

    def prepare(self) -> None:
        """Creates what the server needs before it can run; may be repeated."""

    def program(self) -> Program:
        """Returns what to run."""

    def is_ready(self, pid: int) -> bool:
        """Whether the process accepts clients now."""


class Infrastructure:
    """The servers of one home. `with Infrastructure(path) as endpoints:` starts and stops them.

    A server that is given by its address is used as it is, and neither started nor stopped. This class restarts nothing that ends; the
    supervisor does. Start it from a thread that lives as long as the servers may (`process.Child`).
    """

    def __init__(
        self,
        home: Home | Path,
        *,
        postgres_url: str | None = None,
        kafka_bootstrap_servers: str | None = None,
        layout: Layout = SINGLE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`pause` waits between two checks of a server that starts. An exception from it ends the start."""
        self._pause = pause
        self.home = home if isinstance(home, Home) else Home(home)
        self.home.create()
        postgres: Sequence[EmbeddedServer] = ()
        kafka: Sequence[KafkaBroker] = ()
        if postgres_url is None:
            pair = PostgresPair(self.home) if layout.databases > 1 else None
            single = PostgresServer(self.home) if pair is None else pair.primary
            postgres, postgres_url = (pair.servers, pair.url) if pair else ([single], single.url)
        if kafka_bootstrap_servers is None:
            kafka = [KafkaBroker(self.home, node=node, nodes=layout.brokers) for node in range(1, layout.brokers + 1)]
            kafka_bootstrap_servers = ",".join(broker.bootstrap_servers for broker in kafka)
        # Kafka stops first, so that the clients' writes end first. Servers of one kind stop at the same time.
        self._stop_together = ([service.name for service in kafka], [service.name for service in postgres])
        self.services: dict[str, EmbeddedServer] = {service.name: service for service in (*kafka, *postgres)}
        self.endpoints = Endpoints(
            postgres_url=postgres_url,
            kafka_bootstrap_servers=kafka_bootstrap_servers,
            topic_copies=min(COPIES, len(kafka)) if kafka else None,
        )
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Endpoints:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each running server."""
        return {name: child.pid for name, child in self.children.items() if child.pid is not None}

    def start(self, with_database: Callable[[], None] = lambda: None) -> Endpoints:
        """Starts all at the same time. Returns when all accept clients. Raises StartError.

        PostgreSQL accepts them seconds before Kafka does. It calls `with_database` in between.
        """
        kafka, postgres = self._stop_together
        try:
            self.launch()
            for name in postgres:
                self.wait_ready(name)
            with_database()
            for name in kafka:
                self.wait_ready(name)
        except BaseException:
            self.stop()
            raise
        return self.endpoints

    def launch(self) -> None:
        """Prepares and starts all. Returns when their processes run."""
        with ThreadPoolExecutor(len(self.services) or 1) as pool:
            prepared = {pool.submit(service.prepare): service for service in self.services.values()}
            for done in as_completed(prepared):
                done.result()
                service = prepared[done]
                self.children[service.name] = Child(service.program(), self.home.records)
                self.children[service.name].start()

    def wait_ready(self, name: str) -> None:
        """Returns when the server accepts clients. Raises ProcessError."""
        service, child = self.services[name], self.children[name]
        child.wait_ready(service.is_ready, time.monotonic() + service.start_timeout_s, self._pause)

    def stop(self) -> None:
        """Stops what runs, Kafka first."""
        for names in self._stop_together:
            stopping = [name for name in names if name in self.children]
            for name in stopping:
                self.children[name].signal_stop()
            began_s = time.monotonic()
            for name in stopping:
                self.children[name].wait(began_s + self.services[name].stop_timeout_s)
