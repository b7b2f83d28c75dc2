"""The database's clock is off by an hour, against the product's and Kafka's.

Only the difference matters, and libfaketime holds up the sleep of Python's and Java's processes, so PostgreSQL gets the wrong clock.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from compose.embedded.postgres import PairedServer
from tests.cluster.bed import running_roles

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize("off_by", ["+1h", "-1h"])
def test_clocks_off_by_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_by: str) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime (apt-get install libfaketime)")
    usual = PairedServer.more_environment
    # Time that passes is measured as usual.
    clock = {"LD_PRELOAD": str(library), "FAKETIME": off_by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def with_clock(server: PairedServer) -> Mapping[str, str]:
        return {**usual(server), **clock}

    monkeypatch.setattr(PairedServer, "more_environment", with_clock)
    servers = Infrastructure(tmp_path / "servers", layout=CLUSTER)
    with servers as endpoints, running_roles(servers, tmp_path / "roles", endpoints.postgres_url) as bed:
        before = bed.roles()
        with bed.load().at_work() as load:
            bed.go_on(load)
            bed.go_on(load)
        bed.check(load)
        assert bed.roles() == before
