"""A database with a synchronous standby under load: promoted, cut off, read-only. Everything that was accepted is done."""

import contextlib
import time
from collections.abc import Iterator, Mapping

import httpx
import psycopg2
import pytest

from compose.embedded.postgres import STANDBY_SIGNAL
from tests.cluster.bed import Bed
from tests.cluster.network import dropped, need_own_network
from tests.support.crashes import kill, restart
from tests.support.no_tls import NO_TLS
from tests.support.read_only import read_only
from tests.support.waiting import PATIENCE_S, eventually

pytestmark = [pytest.mark.full, pytest.mark.production, pytest.mark.timeout(1_800)]

AWAY_S = 45.0
PROMOTED_AFTER_S = 5.0
PRIMARY, STANDBY = "postgres-1", "postgres-2"


def readiness(bed: Bed) -> tuple[int, Mapping[str, object]]:
    """What the API says of itself."""
    answer = httpx.get(f"{bed.product.stack['api']}/readyz", timeout=PATIENCE_S, verify=NO_TLS)
    return answer.status_code, answer.json()


@contextlib.contextmanager
def killed(bed: Bed, server: str) -> Iterator[None]:
    """In the block the server is gone."""
    kill(bed.servers, server)
    yield
    restart(bed.servers, server)


def check_outage(bed: Bed, what: str, harm: contextlib.AbstractContextManager[object]) -> None:
    """Checks that the API says that it is not ready while the harm lasts, and that everything that was accepted is done after it."""
    with bed.load().at_work() as load:
        bed.go_on(load)
        with harm:
            assert eventually(lambda: readiness(bed)[0] == 503)
            time.sleep(AWAY_S)  # How long the outage lasts.
        bed.go_on(load)
    bed.check(load)
    bed.report(f"{what} for {AWAY_S:.0f} s", load)


def test_the_database_cut_off(unharmed: Bed) -> None:
    """Packets are dropped, so no error comes."""
    need_own_network()
    check_outage(unharmed, "the database cut off", dropped(unharmed.postgres(PRIMARY).port))


def test_the_synchronous_standby_lost(unharmed: Bed) -> None:
    """Commits wait. A caller gets 503 in time, and reads go on."""
    check_outage(unharmed, "the synchronous standby lost", killed(unharmed, STANDBY))


def test_the_database_read_only(unharmed: Bed) -> None:
    check_outage(unharmed, "the database read-only", read_only(unharmed.settings.owner_url))


# The last test: the standby is the primary now, and the former primary is gone.
def test_the_standby_promoted(unharmed: Bed) -> None:
    """The primary is killed, and five seconds later the standby is promoted, as by an operator or Patroni."""
    bed = unharmed
    with bed.load().at_work() as load:
        bed.go_on(load)
        kill(bed.servers, PRIMARY)
        time.sleep(PROMOTED_AFTER_S)  # How long the outage lasts: nobody promotes the standby sooner.
        with psycopg2.connect(bed.postgres(STANDBY).url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_promote()")
        connection.close()
        bed.go_on(load)
    assert not (bed.postgres(STANDBY).data / STANDBY_SIGNAL).exists()
    bed.check(load)
    bed.report("the primary killed, the standby promoted after 5 s", load)
