"""A running product on a cluster, for the tests of one module."""

from collections.abc import Iterator

import pytest

from tests.cluster.bed import BROKERS, Bed, running_bed
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The product and its servers. A test leaves all of them well."""
    with running_bed(tmp_path_factory.mktemp("bed")) as bed:
        yield bed


@pytest.fixture
def unharmed(bed: Bed) -> Iterator[Bed]:
    """The same, with partitions on every broker. At the end no role has ended meanwhile, not even to start again."""
    eventually(lambda: len(set(bed.leaders().values())) == len(BROKERS), what="a leader on each broker")
    before = bed.roles()
    yield bed
    assert bed.roles() == before
