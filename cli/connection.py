"""Where a command finds the product: a home on this machine, or an address and a token for one elsewhere."""

import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failures import BadInputError, UnreachableError

if TYPE_CHECKING:
    from cli.client import Client
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile

DEFAULT_HOME = Path(".bulkreg")

PATH = "/api/v1/bulk-registrations"


@dataclass(frozen=True)
class Target:
    """An API, and what to say to be let in. `home` is its home, if it is on this machine."""

    url: str
    token: str | None
    first_organization_token: str | None = None
    postgres_url: str | None = None

    def headers(self, organization_id: str | None, *, is_named_in_body: bool = False) -> dict[str, str]:
        """Identifies the caller, in an organization.

        A home's own token is for every organization, so one has to be named; where none is, its first organization is meant.
        """
        token = self.token
        if organization_id is None and not is_named_in_body and self.first_organization_token is not None:
            token = self.first_organization_token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return headers if organization_id is None else headers | {"X-Organization-Id": organization_id}


@dataclass(frozen=True)
class Connection:
    """The options that say where the product is, on every command that talks to it."""

    home: Annotated[
        Path | None,
        typer.Option(help="The home of a stack on this machine (BULKREG_HOME; default .bulkreg).", file_okay=False),
    ] = None
    url: Annotated[str | None, typer.Option(help="The API's address, instead of a home (BULKREG_URL).")] = None
    token: Annotated[str | None, typer.Option(help="The bearer token for --url (BULKREG_TOKEN).")] = None
    org: Annotated[
        str | None, typer.Option(help="The organization, for a token of several. In a home, the first one is meant.")
    ] = None

    def target(self) -> Target:
        """What is said on the command line goes before what the environment says, and an address before a home.

        Raises UnreachableError when nothing runs in the home.
        """
        url = self.url or (None if self.home else os.environ.get("BULKREG_URL"))
        if url:
            return Target(url.rstrip("/"), self.token or os.environ.get("BULKREG_TOKEN"))
        if self.token:
            raise BadInputError("--token is for --url; a home has its own token")
        _, stack = running_stack(self.home)
        return Target(stack.api, stack.token, stack.admin_token, stack.postgres)


def running_stack(home: Path | None) -> tuple["Home", "StackFile"]:
    """What runs in a home (BULKREG_HOME, or .bulkreg). Raises UnreachableError when nothing does."""
    # Imported here: shell completion need not wait for it.
    from compose.embedded.home import Home
    from compose.embedded.stack_file import StackFile

    path = home or Path(os.environ.get("BULKREG_HOME", DEFAULT_HOME))
    place = Home(path)
    stack = StackFile.read(place)
    if stack is None:
        raise UnreachableError(f"Nothing runs in {place.path}. Start it with: bulkreg up --detach --home {path}")
    return place, stack


def connected(target: Target, remark: Callable[[str], None]) -> AbstractAsyncContextManager["Client"]:
    """A client of the target's API. Raises BadInputError on an address that is none."""
    # Imported here: the processes of the roles are this program, too, and would each keep 11 MB of an HTTP client.
    from cli.client import opened

    return opened(target, remark)
