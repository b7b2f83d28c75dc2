"""Decides where a command finds the product: in a home on this machine, or at an address with a token."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.remote.target import Target
from cli.servers.running import running_stack
from cli.terminal.failures import BadInputError

if TYPE_CHECKING:
    from cli.remote.api_client import ApiClient


@dataclass(frozen=True)
class Connection:
    """The options that say where the product is. Every command that calls it has them."""

    home: Annotated[
        Path | None,
        typer.Option(help="The home of a stack on this machine (BULKREG_HOME; default .bulkreg).", file_okay=False),
    ] = None
    url: Annotated[str | None, typer.Option(help="The API's address, instead of a home (BULKREG_URL).")] = None
    token: Annotated[str | None, typer.Option(help="The bearer token for --url (BULKREG_TOKEN).")] = None
    org: Annotated[
        str | None, typer.Option(help="The organization, for a token with several. Default in a home: the first one.")
    ] = None

    def target(self) -> Target:
        """The API to call. The command line takes precedence over the environment, and an address over a home.

        Raises UnreachableError when nothing runs in the home.
        """
        url = self.url or (None if self.home else os.environ.get("BULKREG_URL"))
        if url:
            return Target(url.rstrip("/"), self.token or os.environ.get("BULKREG_TOKEN"))
        if self.token:
            raise BadInputError("--token needs --url; a home has its own token")
        _, stack = running_stack(self.home, otherwise="Name an API with --url and --token (BULKREG_URL, BULKREG_TOKEN)")
        return Target(stack.api, stack.token, stack.admin_token, stack.postgres)


def connected(target: Target, remark: Callable[[str], None]) -> AbstractAsyncContextManager["ApiClient"]:
    """Returns a client of the target's API. Raises BadInputError for an invalid address."""
    # Imported here: the processes of the roles are this program too, and would each keep 11 MB of an HTTP client.
    from cli.remote.api_client import opened

    return opened(target, remark)
