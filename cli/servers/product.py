"""What `bulkreg up` runs: this product's set-up, tokens and role processes. The supervisor itself knows none of them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cli.servers.kafka import reachable_kafka
from cli.servers.settings import load_settings
from compose.embedded.product import Endpoints, Product, Tokens

# Imported in the functions, so that other commands and shell completion do not wait for database drivers and Kafka.
if TYPE_CHECKING:
    from orchestrator.process.settings import Settings

# Longer than anybody uses a development stack. The signing key is the home's own.
TOKEN_LIFETIME_S = 365 * 24 * 3600


def _settings(endpoints: Endpoints, key: str | None = None) -> "Settings":
    from pydantic import SecretStr

    return load_settings(
        database_url=SecretStr(endpoints.postgres_url),
        kafka_bootstrap_servers=endpoints.kafka_bootstrap_servers,
        jwt_hs256_key=None if key is None else SecretStr(key),
        **({} if endpoints.topic_copies is None else {"topic_replication_factor": endpoints.topic_copies}),
    )


def prepare_database(endpoints: Endpoints) -> None:
    """Runs migrations; may be repeated. Raises UnreachableError."""
    from cli.servers.database import reachable_database
    from orchestrator.storage.migrate import upgrade

    settings = _settings(endpoints)
    with reachable_database(settings.owner_url):
        upgrade(settings)


def prepare_kafka(endpoints: Endpoints) -> None:
    """Creates topics; may be repeated. Raises UnreachableError, and BadInputError if the settings forbid a connection."""
    from producers.topics import create_topics

    settings = _settings(endpoints)
    with reachable_kafka(settings):
        create_topics(settings)


def tokens(endpoints: Endpoints, key: str) -> Tokens:
    """Returns a service token for every organization, and one for an administrator of the first."""
    from sqlalchemy import text

    from api.access.tokens import make_development_token
    from orchestrator.batches.model import Role
    from orchestrator.storage.connecting import open_engine

    settings = _settings(endpoints, key)
    engine = open_engine(settings.owner_url, application_name="bulkreg up")
    with engine.connect() as connection:
        first = connection.execute(text("SELECT min(organization_id) FROM registration.organization")).scalar_one()
    engine.dispose()
    return Tokens(
        service=make_development_token(settings, sub="bulkreg-up", role=Role.SERVICE, orgs=["*"], ttl_s=TOKEN_LIFETIME_S),
        admin=first and make_development_token(settings, sub="bulkreg-up", role=Role.ADMIN, orgs=[first], ttl_s=TOKEN_LIFETIME_S),
    )


def command(roles: Sequence[str], gate: Path) -> Sequence[str]:
    """Returns the command line that runs these roles in one process, as soon as the gate is open."""
    # -P: Python must not import a folder of the working directory that has the name of one of our packages.
    return [sys.executable, "-P", "-m", "cli", "run", "--gate", str(gate), *roles]


# -P as above.
PRODUCT = Product(
    prepare_database, prepare_kafka, tokens, command, login=[sys.executable, "-P", "-m", "compose.embedded.provider"]
)
