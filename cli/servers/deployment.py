"""Decides which database, Kafka and signing key a command uses: those of a home, or those in the settings."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.servers.running import running_stack
from cli.servers.settings import forget_servers, load_settings

# Imported in the functions, so that shell completion does not wait for them.
if TYPE_CHECKING:
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile
    from orchestrator.process.settings import Settings

SIGNING_KEY = "jwt-key"
"""The name of a home's secret that signs its tokens."""

WEBHOOK_KEY = "webhook-key"
"""The name of a home's secret that encrypts the secrets of webhooks."""

FORGETTING_KEY = "forgetting-key"
"""The name of a home's secret by which forgotten people are recognized."""

_DEPLOYMENT_VARIABLES = ("BULKREG_DATABASE_URL", "BULKREG_KAFKA_BOOTSTRAP_SERVERS", "BULKREG_JWT_HS256_KEY")


@dataclass(frozen=True)
class Deployment:
    """The option that names a home. Without it the command uses the database and the broker that the environment names."""

    home: Annotated[
        Path | None,
        typer.Option(
            help="A home on this machine (BULKREG_HOME). Default: what BULKREG_DATABASE_URL and the like name, or .bulkreg.",
            file_okay=False,
        ),
    ] = None

    def settings(self) -> "Settings":
        """The settings to use. Raises BadInputError for invalid values, UnreachableError when nothing runs in the home."""
        from pydantic import SecretStr

        from compose.embedded.receipts_key import RECEIPTS_ORIGIN

        running = self._stack()
        if running is None:
            return load_settings()
        home, stack = running
        forget_servers(
            database=os.environ.get("BULKREG_DATABASE_URL") != stack.postgres,
            kafka=os.environ.get("BULKREG_KAFKA_BOOTSTRAP_SERVERS") != stack.kafka,
        )
        return load_settings(
            database_url=SecretStr(stack.postgres),
            kafka_bootstrap_servers=stack.kafka,
            jwt_hs256_key=SecretStr(home.secret(SIGNING_KEY)),
            receipts_origin=RECEIPTS_ORIGIN,
            **({} if stack.topic_copies is None else {"topic_replication_factor": stack.topic_copies}),
            webhook_keys=SecretStr(home.secret(WEBHOOK_KEY)),
            forgetting_key=SecretStr(home.secret(FORGETTING_KEY)),
        )

    def refresh_admin_token(self) -> None:
        """Writes a token of the first organization's administrator into `stack.json`, if the home had no organization before."""
        from cli.servers.product import tokens
        from compose.embedded.product import Endpoints
        from compose.embedded.stack_file import StackFile

        running = self._stack()
        if running is None or running[1].admin_token is not None:
            return
        home, stack = running
        made = tokens(Endpoints(stack.postgres, stack.kafka), home.secret(SIGNING_KEY))
        # Read again, because the supervisor may have restarted something meanwhile.
        now = StackFile.read(home) or stack
        replace(now, admin_token=made.admin).write(home.stack_file)

    def _stack(self) -> "tuple[Home, StackFile] | None":
        """Returns what runs in the home. None: the environment names the servers."""
        is_home_named = self.home is not None or bool(os.environ.get("BULKREG_HOME"))
        if not is_home_named and any(name in os.environ for name in _DEPLOYMENT_VARIABLES):
            return None
        otherwise = "Name the servers of a deployment with its settings in the environment (BULKREG_DATABASE_URL and the others)"
        return running_stack(self.home, otherwise=otherwise)
