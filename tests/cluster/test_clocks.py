"""The product's clocks are off by an hour, against those of Kafka and PostgreSQL."""

from pathlib import Path

import pytest

from compose.embedded.infrastructure import Infrastructure
from compose.embedded.layout import CLUSTER
from tests.cluster.bed import running_roles

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]


@pytest.mark.parametrize("off_by", ["+1h", "-1h"])
def test_clocks_off_by_an_hour(tmp_path: Path, off_by: str) -> None:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime (apt-get install libfaketime)")
    # Time that passes is measured as usual.
    clock = {"LD_PRELOAD": str(library), "FAKETIME": off_by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    servers = Infrastructure(tmp_path / "servers", layout=CLUSTER)
    with servers as endpoints, running_roles(servers, tmp_path / "roles", endpoints.postgres_url, **clock) as bed:
        before = bed.roles()
        with bed.load().at_work() as load:
            bed.go_on(load)
            bed.go_on(load)
        bed.check(load)
        assert bed.roles() == before
        bed.report(f"the product's clocks off by {off_by}", load)
