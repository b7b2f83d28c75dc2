"""Starts PostgreSQL and Kafka of one home together. Tests use it, and the supervisor is built on it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

from compose.embedded.home import Home
from compose.embedded.kafka import KafkaBroker
from compose.embedded.postgres import PostgresServer
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
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`pause` waits between two checks of a server that starts. An exception from it ends the start."""
        self._pause = pause
        self.home = home if isinstance(home, Home) else Home(home)
        self.home.create()
        postgres = None if postgres_url else PostgresServer(self.home)
        kafka = None if kafka_bootstrap_servers else KafkaBroker(self.home)
        # In the order in which they stop, so that the clients' writes end first.
        self.services: dict[str, EmbeddedServer] = {service.name: service for service in (kafka, postgres) if service}
        self.endpoints = Endpoints(
            postgres_url=postgres_url or (postgres.url if postgres else ""),
            kafka_bootstrap_servers=kafka_bootstrap_servers or (kafka.bootstrap_servers if kafka else ""),
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

    def start(self) -> Endpoints:
        """Starts both at the same time. Returns when both accept clients. Raises StartError."""
        try:
            self.launch()
            for name in self.children:
                self.wait_ready(name)
        except BaseException:
            self.stop()
            raise
        return self.endpoints

    def launch(self) -> None:
        """Prepares and starts both. Returns when their processes run."""
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
        for name, service in self.services.items():
            child = self.children.get(name)
            if child is not None:
                child.signal_stop()
                child.wait(time.monotonic() + service.stop_timeout_s)

    def kill(self, name: str) -> None:
        """Ends one server with SIGKILL, as a crash would."""
        self.children[name].kill()

    def restart(self, name: str) -> None:
        """Starts a server again that has ended, at the same address, and waits until it accepts clients. Raises ProcessError."""
        self.children[name].start()
        self.wait_ready(name)
