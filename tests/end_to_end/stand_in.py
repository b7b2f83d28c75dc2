"""`bulkreg` with roles that do nothing but live. The supervisor's tests run it."""

import http.server
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psycopg2
import typer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from cli.commands import stack
from compose.embedded.gate import pass_through
from compose.embedded.product import Endpoints, Product, Tokens

TOPIC = "kept"
_RUN = [sys.executable, "-m", "tests.end_to_end.stand_in", "run"]
STUBBORN = "STAND_IN_STUBBORN"  # If it is set, the roles ignore the request to end.


def prepare_database(endpoints: Endpoints) -> None:
    connection = psycopg2.connect(endpoints.postgres_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    connection.close()


def prepare_kafka(endpoints: Endpoints) -> None:
    admin = AdminClient({"bootstrap.servers": endpoints.kafka_bootstrap_servers})
    if TOPIC not in admin.list_topics(timeout=10).topics:
        admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result()


def tokens(_endpoints: Endpoints, key: str) -> Tokens:
    return Tokens(service=f"service-{len(key)}", admin=f"admin-{len(key)}")


def command(roles: Sequence[str], gate: Path) -> list[str]:
    return [*_RUN, "--gate", str(gate), *roles]


app = typer.Typer()
product = Product(prepare_database, prepare_kafka, tokens, command, login=[*_RUN, "login"])
stack.register(app, product)


@app.command()
def run(roles: list[str], gate: Path | None = None) -> None:
    if STUBBORN in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if gate is not None:
        pass_through(gate)
    if "api" in roles:
        address = (os.environ["BULKREG_API_HOST"], int(os.environ["BULKREG_API_PORT"]))
        http.server.HTTPServer(address, _Ready).serve_forever()
    signal.pause()


class _Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


if __name__ == "__main__":
    app()
