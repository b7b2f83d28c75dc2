"""The whole product as a user runs it: `bulkreg` as a process, on a home of its own."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.support.no_tls import NO_TLS
from tests.support.prepared import BULKREG, prepared_bulkreg
from tests.support.waiting import PATIENCE_S

UP_WITHIN_S = 300
COMMAND_WITHIN_S = 400


class Product:
    """A product in a home. `environment` is added to ours for its processes."""

    def __init__(self, home: Path, environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._environment = os.environ | dict(environment or {})

    def up(self) -> None:
        """Starts it in the background. Returns when it is ready."""
        up = [*BULKREG, "up", "--detach", "--home", str(self.home)]
        with (self.home.parent / "up.out").open("ab") as out:
            subprocess.run(up, stdout=out, stderr=out, env=self._environment, timeout=UP_WITHIN_S, check=True)

    def bulkreg(self, *arguments: str, code: int | None = 0, within_s: float = COMMAND_WITHIN_S) -> str:
        """Runs a command on this home and returns its standard output. Fails on another exit code than the expected one (None: any)."""
        done = subprocess.run(
            [*prepared_bulkreg(), *arguments, "--home", str(self.home)],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert code in (None, done.returncode), f"exit code {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    @property
    def stack(self) -> dict[str, Any]:
        """Returns the present contents of stack.json."""
        found: dict[str, Any] = json.loads((self.home / "stack.json").read_text())
        return found

    def client(self, organization: str) -> httpx.Client:
        """Returns an HTTP client with the service token, in one organization."""
        headers = {"Authorization": f"Bearer {self.stack['token']}", "X-Organization-Id": organization}
        return httpx.Client(
            base_url=f"{self.stack['api']}/api/v1/bulk-registrations", headers=headers, timeout=PATIENCE_S, verify=NO_TLS
        )


@contextlib.contextmanager
def running_product(home: Path, environment: Mapping[str, str] | None = None) -> Iterator[Product]:
    """Runs `bulkreg up` until the block ends. `environment` is added to ours."""
    product = Product(home, environment)
    product.up()
    try:
        yield product
    finally:
        subprocess.run([*BULKREG, "down", "--home", str(home)], capture_output=True, timeout=UP_WITHIN_S, check=True)
