"""The benchmark's comparison with other libraries, without the libraries."""

from dataclasses import replace

from compose.bench import rows
from compose.bench.peers import running
from tests.unit.test_bench_doubts import ROUND


def test_the_product_is_compared_with_each_library() -> None:
    found = rows.peer_rows([replace(ROUND, peers={"pgqueuer": 400.0, "dbos": 50.0})])
    assert [(row.what.split(",")[0], row.median, row.met) for row in found] == [
        ("pgqueuer", 400, None),
        ("product / pgqueuer", 5, False),
        ("dbos", 50, None),
        ("product / dbos", 40, True),
    ]
    assert rows.peer_rows([ROUND]) == []
    assert rows.PEER_TIMES.keys() == running.PEERS.keys()
